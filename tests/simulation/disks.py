"""A machine whose disks come, grow, change their source and go while guests write, from one seed.

As ``story``: virtual time, a page cache, a process that may end at any file operation, with or
without the power. What is checked: every consistent point holds, for the disks of one moment, what
they held at some moment of their history; and once all is quiet the newest point is the
configuration's disks as they are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any
from unittest import mock

import trio
import trio.testing
from xxhash import xxh3_128_digest

from pipeline.config.model import (
    Cache,
    Capture,
    Config,
    Daemon,
    Disk,
    Machine,
    Pipeline,
    Ship,
    Vault,
)
from pipeline.delivery import Delivery
from pipeline.intake import MachineIntake
from pipeline.intake_disks import IntakeDisk
from pipeline.state import StateFolder
from stages import ports
from stages.cache.journal.writer import JournalLimits
from stages.capture.group.changing import look_for_growth, prepare
from stages.capture.group.group import Group, Limits
from stages.capture.group.opening import NamedDisk
from stages.capture.splitter.handler import SplitHandler
from stages.errors import NotFound, leaves
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Batch, Request
from stages.stream import REGION
from tests.ports.watched import InlineOffload, WatchedFiles
from tests.simulation.daemon import SimClock
from tests.whole.reading import open_group, read_point
from tests.whole.world import NAME, STATE, Crash, Dice, World

SIZES = (REGION + 24 * BLOCK + 512, 30 * BLOCK, 9 * BLOCK + 700)
MOST = 2 * REGION
HOT = 20  # blocks that guests like to write to


class Replies:
    """What a client hears."""

    def __init__(self) -> None:
        self.done_count = self.failed = 0
        self.moved = trio.Event()

    def done(self, request: Request) -> None:
        self.done_all([request])

    def done_all(self, requests: Any) -> None:
        self.done_count += len(requests)
        self.moved.set()

    def done_now(self, requests: Any) -> None:
        self.done_all(requests)

    def done_swiftly(self, cookies: Any) -> None:
        self.done_all(cookies)

    def place(self, length: int) -> memoryview | None:
        return memoryview(bytearray(length))

    def keep(self, cookie: int, offset: int, length: int) -> None:
        self.done_all([cookie])

    def data(self, request: Request, parts: Any) -> None:
        self.done_all([request])

    def extents(self, request: Request, extents: Any) -> None:
        self.done_all([request])

    def fail(self, request: Request, error: int, reason: str) -> None:
        self.failed += 1
        self.done_all([request])


@dataclass
class Disks:
    """One seed. ``wanted``: paths by name, as the configuration has them."""

    seed: int
    changes: int = 6
    fault_at: int | None = None
    wanted: dict[str, str] = field(default_factory=dict)
    states: set[bytes] = field(default_factory=set)
    operations: int = 0
    dead: bool = False
    made: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)  # operations of each change

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.world = World(self.seed)
        self.config = _config()
        self.group: Group | None = None
        self._parts: dict[str, bytes] = {}
        self._compared = 0  # points up to it
        self.wanted = {"root": self._file(), "data": self._file()}

    def run(self) -> None:
        """Lives that end by crash, and a last one that ends well."""
        for _ in range(self.dice.randrange(1, 4)):
            self.fault_at = self.dice.randrange(60, 1200)
            self.live(self._busy)
            if self.dice.random() < 0.5:
                self.world.files.power_cut(self.dice.getrandbits(30))
            if self.dice.random() < 0.3:
                self._operator()  # while nothing runs
            trio.run(self._check_points, False)
        self.end()

    def end(self) -> None:
        """A last life, and the last look."""
        self.fault_at = None
        self.live(self._quiet)
        trio.run(self._check_points, True)

    def live(self, work: Any) -> None:
        self.operations, self.dead, self.group = 0, False, None
        self._note()
        kernel: Any = trio._core._run
        clock = trio.testing.MockClock(autojump_threshold=0)
        with (
            mock.patch.object(kernel, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
            self.world.stores(lambda _: self.world.store),
        ):
            kernel._r.seed(self.seed)
            try:
                trio.run(work, clock=clock)
            except (Crash, BaseExceptionGroup) as raised:
                ours = (Crash, RuntimeError) if self.dead else Crash
                if not self.dead or any(not isinstance(leaf, ours) for leaf in leaves(raised)):
                    raise
        self.group = None
        self.world.files.process_died()

    # the operator

    def _file(self) -> str:
        self.made += 1
        path = f"/disks/{self.made}"
        content = bytearray(self.dice.choice(SIZES))
        for _ in range(8):
            at = self.dice.randrange(len(content) // BLOCK) * BLOCK
            content[at : at + BLOCK] = self.dice.randbytes(BLOCK)
        self.world.files.put(path, bytes(content), sparse=False)
        return path

    def _size(self, path: str) -> int:
        found = self.world.files.stat(path)
        assert found is not None
        return found.size

    def _operator(self, what: str = "") -> None:
        """Change what is configured, or how large it is."""
        what = what or self.dice.choice(["add", "grow", "grow", "remove", "replace"])
        name = self.dice.choice(sorted(self.wanted))
        path = self.wanted[name]
        if what == "remove" and len(self.wanted) > 1:
            del self.wanted[name]
        elif what == "add" and len(self.wanted) < 3:
            new = self.dice.choice([n for n in ("root", "data", "logs") if n not in self.wanted])
            self.wanted[new] = self._file()
        elif what == "grow" and self._size(path) < MOST:
            more = self.dice.choice([1, 512, BLOCK, 30 * BLOCK, REGION])
            data = self.world.files.read(path, 1 << 30)
            tail = bytes(more) if self.dice.random() < 0.3 else self.dice.randbytes(more)
            self.world.files.put(path, data + tail, sparse=False)
        elif what == "replace":
            other = self._file()
            missing = self._size(path) - self._size(other)
            if missing > 0:
                data = self.world.files.read(other, 1 << 30)
                self.world.files.put(other, data + self.dice.randbytes(missing), sparse=False)
            self.wanted[name] = other

    # its history

    def _around(self, name: str, path: str, call: Any) -> Any:
        if name != "close":
            if self.dead:
                raise Crash("a dead process writes")
            self.operations += 1
            if self.operations == self.fault_at:
                if self.dice.random() < 0.5:
                    call()
                    self._note()
                self.dead = True
                raise Crash("the process was killed")
        found = call()
        if path.startswith("/disks/") and name in ("pwrite", "punch"):
            self._note(path)
        return found

    def _note(self, path: str = "") -> None:
        """What the disks hold now, and any of them without the others: a start may leave some
        out."""
        if self.group is None:
            shown = {name: (at, self._size(at)) for name, at in self.wanted.items()}
        else:
            disks = self.group.disks.values()
            shown = {disk.name: (disk.source.path, disk.size) for disk in disks}
        for name, (at, size) in shown.items():
            if not path or at == path or name not in self._parts:
                data = self.world.files.read(at, 1 << 30)[:size]
                self._parts[name] = xxh3_128_digest(data)
        for count in range(1, len(shown) + 1):
            for names in combinations(sorted(shown), count):
                self.states.add(_joined({name: self._parts[name] for name in names}))

    # its life

    async def _busy(self) -> None:
        await self._process(quiet=False)

    async def _quiet(self) -> None:
        with trio.fail_after(7200):
            await self._process(quiet=True)

    async def _process(self, *, quiet: bool) -> None:
        machine = self._machine()
        state = StateFolder.open(machine, STATE, lock=False)
        intake = await MachineIntake.open(
            machine,
            state.intake_folder(NAME),
            NAME,
            [IntakeDisk(name, path, "") for name, path in self.wanted.items()],
            Limits(journal=self.dice.choice([300_000, 64 << 20]), cool=2.0),
            journal=JournalLimits(memory=1 << 20, file=40_000, sync_seconds=0.3),
        )
        group = self.group = intake.group
        taken = group._take_disks

        def noted(*args: Any) -> None:
            self._note()
            taken(*args)
            self._note()

        with mock.patch.object(group, "_take_disks", noted):
            async with trio.open_nursery() as nursery:
                await nursery.start(group.run)
                nursery.start_soon(self._deliver, machine, state, intake)
                async with trio.open_nursery() as guests:
                    for _ in range(2):
                        guests.start_soon(self._guest, group)
                    for _ in range(2 if quiet else self.changes):
                        await trio.sleep(self.dice.choice([0, 0.1, 1, 20]))
                        self._operator()
                        await self._change(machine, group)
                    self.done = True
                if quiet:
                    await self._becomes_quiet(intake)
                nursery.cancel_scope.cancel()

    async def _becomes_quiet(self, intake: MachineIntake) -> None:
        for _ in range(6000):
            if intake.status().state == "replicating":
                break
            await trio.sleep(1)
        assert intake.status().state == "replicating", intake.status()
        point = await intake.mark("end")
        assert point.seq, point.reason

    async def _change(self, machine: ports.Machine, group: Group) -> None:
        """As a reload does it: clients of what goes leave first."""
        began = self.operations
        if self.dice.random() < 0.2:
            grown, _ = await look_for_growth(machine, group)
            await grown.apply()
        named = [NamedDisk(name, path) for name, path in self.wanted.items()]
        prepared = await prepare(machine, group, named)
        self.leaving = {group.disks[number].name for number in prepared.plan.gone}
        while self.writing & self.leaving:  # noqa: ASYNC110 - time is virtual
            await trio.sleep(0.01)
        if prepared.changes:
            await prepared.apply()
        self.leaving = set()
        self.spans.append((began, self.operations))

    def _machine(self) -> ports.Machine:
        self.done, self.writing, self.leaving = False, set[str](), set[str]()
        files = WatchedFiles(self._around, self.world.files)
        return ports.Machine(SimClock(), InlineOffload(), Dice(self.dice.getrandbits(30)), files)

    async def _deliver(
        self, machine: ports.Machine, state: StateFolder, intake: MachineIntake
    ) -> None:
        while True:
            delivery = Delivery(
                machine,
                self.config,
                NAME,
                state,
                intake.joint,
                intake.joint.attached,
                keep_seconds=3.0,
            )
            with trio.move_on_after(self.dice.choice([2, 10, 1000])):
                await delivery.run()
            await trio.sleep(self.dice.choice([0, 1, 20]))

    async def _guest(self, group: Group) -> None:
        while not self.done:
            await trio.sleep(self.dice.choice([0, 0.01, 0.2, 3]))
            disks = [
                disk
                for disk in group.disks.values()
                if disk.name not in self.leaving | self.writing
            ]
            if not disks:
                continue
            disk = self.dice.choice(disks)
            self.writing.add(disk.name)
            handler = SplitHandler(disk, group.nursery)
            replies = Replies()
            buffer = ReceiveBuffer(1 << 20, lambda _: None)
            request = self._request(buffer, handler.info.size)
            await handler.execute(Batch([request], [], buffer, 0, 0), replies)
            while not replies.done_count:
                replies.moved = trio.Event()
                await replies.moved.wait()
            assert self.dead or not replies.failed
            buffer.release()
            self.writing.discard(disk.name)

    def _request(self, buffer: ReceiveBuffer, size: int) -> Request:
        """Near the start, or near the end, where it may grow meanwhile."""
        dice = self.dice
        command = dice.choice([wire.CMD_WRITE] * 6 + [wire.CMD_FLUSH, wire.CMD_TRIM])
        if command == wire.CMD_FLUSH:
            return Request(command, 0, 1, 0, 0, memoryview(b""), 0)
        last = max(0, size // BLOCK - 4)
        offset = min(dice.choice([0, last]) + dice.randrange(HOT), size // BLOCK) * BLOCK
        length = dice.randrange(1, 4) * BLOCK
        if dice.random() < 0.3:
            offset, length = offset + dice.choice([0, 100, 700]), dice.choice([1, 512, 5000])
        offset = min(offset, size - 1)
        length = min(length, size - offset)
        if command != wire.CMD_WRITE:
            return Request(command, 0, 1, offset, length, memoryview(b""), 0)
        buffer.view[28 : 28 + length] = dice.randbytes(length)
        payload = buffer.view[28 : 28 + length]
        return Request(command, 0, 1, offset, length, payload, 28)

    # what the vault holds

    async def _check_points(self, final: bool) -> None:
        try:
            group = await open_group(self.world.store, self.world.key)
        except NotFound:
            assert not final
            return
        newest: dict[str, bytes] = {}
        tail = await group.log.tail()
        # Objects do not change: what was compared after one life is read again only at the end.
        for seq in range(1 if final else self._compared + 1, tail + 1):
            if not (await group.log.signed(seq)).header.consistent:
                continue
            newest = await read_point(group, seq)
            held = _joined({name: xxh3_128_digest(data) for name, data in newest.items()})
            assert held in self.states, f"point #{seq} of {sorted(newest)} never was"
        self._compared = tail
        if final:
            files = self.world.files
            assert newest == {name: files.read(at, 1 << 30) for name, at in self.wanted.items()}


def _joined(parts: dict[str, bytes]) -> bytes:
    return xxh3_128_digest(b"".join(name.encode() + parts[name] for name in sorted(parts)))


def _config() -> Config:
    small = Pipeline.model_construct(
        capture=Capture.model_construct(workers=0),
        cache=Cache.model_construct(seal_bytes=128 << 10, seal_after=1),
        ship=Ship.model_construct(in_flight=2, inline=16 << 10),
    )
    disks = {"root": Disk(path="/disks/1", listen="unix:/x.sock", capture="nbd")}
    config = Config(
        daemon=Daemon(state=STATE),
        vaults={"v": Vault(url="file:/vault", trust="/trust.pub")},
        machines={NAME: Machine(vault="v", disks=disks)},
    )
    return config.model_copy(update={"pipelines": {"default": small}})
