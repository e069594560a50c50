"""A machine whose guest writes while parts of the daemon are killed with SIGKILL, by a seed.

Moments are counted in the writer's operations. Delivery and the parent may die at any time, and the
guest must not notice. With intake the guest's disk dies: its file system is torn down, the daemon
comes back, the file system is mounted again, and what was synced must be there.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.daemon.link_client import IntakeGone
from tests.cli.support import MIB, Place
from tests.daemon.running import Daemon, ask, died, replicating
from tests.storm.blocks import read_tree
from tests.storm.guest import DATA, JOURNAL, Guest, StormError, Writer, make_file_system
from tests.storm.oracle import History
from tests.storm.writer import now_us

SIZES = {DATA: 24 * MIB, JOURNAL: 8 * MIB}
VARIANTS = {"one-disk": (DATA,), "two-disks": (DATA, JOURNAL)}
_CONFIG = """\
daemon: {{state: ./state}}
vaults:
  standby: {{url: "file:./vault", trust: ./op.pub}}
pipelines:
  default: {{cache: {{seal_after: 100ms, journal_limit: 64MiB}}}}
machines:
  web1:
    vault: standby
    disks:
{disks}"""
_DISK = '      {name}: {{path: ./{name}.img, capture: nbd, listen: "unix:./{name}.sock"}}\n'
_MARK_LOST = 7  # exit code: a gap was open
_DELIVERY = "delivery_main"
_HANGING = 40  # operations

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Act:
    """Something that happens ``after`` so many operations.

    ``kind``: whom SIGKILL ends (delivery, parent, intake, all), or hang (of delivery, for a
    while), restart (of all, in order), mark.
    """

    after: int
    kind: str


def plan(seed: str, counts: dict[str, int], apart: int) -> list[Act]:
    """Acts in a random order, about ``apart`` operations from each other."""
    draw = random.Random(f"{seed}/plan")
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    draw.shuffle(kinds)
    return [Act(draw.randint(1, 2 * apart), kind) for kind in kinds]


def prepare(root: Path, disks: tuple[str, ...]) -> Place:
    """Keys, a vault, a file system on disks, and a configuration."""
    place = Place(root)
    for name in disks:
        with (place / f"{name}.img").open("wb") as image:
            image.truncate(SIZES[name])
    make_file_system({name: place / f"{name}.img" for name in disks})
    place.json("keygen", "--out", "op", "--no-passphrase")
    place.json("init", "file:./vault", "--key", "op.key", "--single-recipient", "--state", "state")
    rows = "".join(_DISK.format(name=name) for name in disks)
    (place / "c.yaml").write_text(_CONFIG.format(disks=rows))
    return place


@dataclass
class Storm:
    """One machine from its first mount to the end of its daemon; ``run`` it inside ``raised``."""

    place: Place
    disks: tuple[str, ...]
    seed: str
    tell: Tell = lambda _: None
    history: History = field(default_factory=History)
    marks: list[int] = field(default_factory=list)  # seqs of marked points
    killed: list[tuple[int, str]] = field(default_factory=list)  # µs, what
    _daemon: Daemon | None = None
    _pids: set[int] = field(default_factory=set)  # intakes that may be there
    _guests: list[Guest] = field(default_factory=list)
    _writer: Writer | None = None
    _random: random.Random = field(default_factory=random.Random)

    def run(self, acts: list[Act], tail: int) -> None:
        """All acts, ``tail`` more operations, and an end in order."""
        self._random = random.Random(f"{self.seed}/acts")
        self.begin()
        for act in acts:
            self.go_on(act.after)
            self.tell(f"operation {self.history.newest}: {act.kind}")
            self._act(act.kind)
        self.go_on(tail)
        replicating(self.place)  # so that the newest point is a consistent one
        self._end()

    def begin(self) -> None:
        """Start the daemon, mount its disks, and write."""
        self._start()
        self._mount()
        self._write()

    def go_on(self, operations: int) -> None:
        """Wait for that many more. Raises ``StormError`` if the guest stops."""
        assert self._writer is not None
        self._writer.reached(self.history.newest + operations)

    def pull_the_disk(self) -> None:
        """Kill intake."""
        _kill(self._running.intake)

    def _act(self, kind: str) -> None:
        if kind == "mark":
            self._mark()
            return
        self.killed.append((now_us(), kind))
        if kind == "delivery":
            _kill(self._running.child(_DELIVERY))
        elif kind == "hang":
            self._hang()
        elif kind == "parent":
            self._kill_parent()
            self._start()
        elif kind == "intake":
            self.pull_the_disk()
            self._dead_disk()
            self._running.heard("intake: gone")
            self._served()
            self._mount()
            self._write()
        elif kind == "restart":
            self._end()
            self.begin()
        else:
            self._kill_all()
            self._dead_disk()
            self.begin()

    @property
    def _running(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon

    # the daemon

    def _start(self) -> None:
        process = self.place.fork("run", "c.yaml")
        self._daemon = Daemon(self.place, process, self.place / "state")
        self._served()

    def _served(self) -> None:
        self._running.heard("intake: ")
        self._pids.add(self._running.intake)

    def _kill_parent(self) -> None:
        delivery = self._running.child(_DELIVERY)
        self._running.process.kill()
        self._running.process.communicate()
        died(delivery)

    def _kill_all(self) -> None:
        pids = [self._running.process.pid, self._running.intake]
        pids.append(self._running.child(_DELIVERY))
        self._random.shuffle(pids)
        for pid in pids:
            _kill(pid)
        self._running.process.communicate()
        for pid in pids:
            died(pid)

    def _hang(self) -> None:
        delivery = self._running.child(_DELIVERY)
        os.kill(delivery, signal.SIGSTOP)
        try:
            self.go_on(_HANGING)
        finally:
            os.kill(delivery, signal.SIGCONT)

    def _end(self) -> None:
        assert self._writer is not None
        self._writer.end()
        self._writer.kill()
        self._guests[-1].detach()
        said = self._running.end()
        if "not all was shipped" in said:
            raise StormError(f"it was drained, and not all was shipped: {said}")

    def _mark(self) -> None:
        said = self.place.backstay("mark", "c.yaml", "web1", "--wait", "60", "--json")
        if said.code == 0:
            self.marks.append(int(said.fields["seq"]))
        elif said.code != _MARK_LOST:
            raise StormError(f"mark: {said}")

    # the guest

    def _mount(self) -> None:
        """Attach and mount; what was found after a crash is checked, and gone on from."""
        uris = {
            name: f"nbd+unix:///{name}?socket={self.place.root}/{name}.sock" for name in self.disks
        }
        guest = Guest(self.place / f"guest{len(self._guests)}", uris)
        self._guests.append(guest)
        guest.attach()
        found = read_tree(guest.mounted)
        wrong = self.history.complaints(found)
        if wrong:
            raise StormError("after a crash of the disk:\n  " + "\n  ".join(wrong))
        self.history.adopt(found, now_us())

    def _write(self) -> None:
        mounted = self._guests[-1].mounted
        self._writer = Writer(mounted, f"{self.seed}/{len(self._guests)}", self.history)

    def _dead_disk(self) -> None:
        assert self._writer is not None
        self._guests[-1].died()
        self._writer.died()
        self._writer.kill()
        self._guests[-1].pull()

    def close(self) -> None:
        """Leave nothing behind: mounts, loop devices, processes."""
        for guest in self._guests:
            guest.pull()
        if self._writer is not None:
            self._writer.kill()
        if self._daemon is not None:
            self._daemon.process.kill()
            self._daemon.process.communicate()
            with suppress(IntakeGone):
                self._pids.add(ask(self.place / "state", "status")["pid"])
        for pid in self._pids:
            if _is_intake(pid, self.place):
                _kill(pid)
                died(pid)


@contextmanager
def raised(root: Path, variant: str, seed: str, tell: Tell = lambda _: None) -> Iterator[Storm]:
    """A storm in an empty folder with a short path, and nothing left of it afterwards."""
    disks = VARIANTS[variant]
    storm = Storm(prepare(root, disks), disks, seed, tell)
    began = time.time_ns() - time.monotonic_ns()
    try:
        yield storm
        moved = time.time_ns() - time.monotonic_ns() - began
        if abs(moved) > 10_000_000:
            raise StormError(f"the clock was set meanwhile, by {moved / 1e6:.0f} ms: run it again")
    finally:
        storm.close()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_intake(pid: int, place: Place) -> bool:
    """It was ours, and nobody else has its number now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"intake_main" in words and str(place.root).encode() in words
