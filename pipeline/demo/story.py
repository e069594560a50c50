"""The story: a disk protected while its guest writes, killed, destroyed and brought back twice.

Every step is the command that a person would type, run as a process of its own; the recovery runs
with an empty environment in an empty folder that holds the vault and the key.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.demo.client import NbdClient
from pipeline.demo.commands import Commands, Tools, failure
from pipeline.demo.daemon import Daemon
from pipeline.demo.guest import Guest, Moment, check_files, first_difference
from stages.errors import BackstayError, DamagedObject, UsageError

MACHINE, DISK = "demo", "root"
MIB = 1 << 20
_CONTENT = 96 * MIB
_RANDOM = 8 * MIB
_IMAGE = 256 * MIB
_LOOK_EVERY = 64  # writes between two looks whether the scan has ended
_KILL_AFTER = 900  # writes: some of them are flushed, some are not
_SAMPLES = 64  # blocks of an export that are read
_EXPORT_SECONDS = 60.0
_SUN_PATH = 107  # bytes of a Unix socket's path, unix(7)
_DISK_SOCKET, _EXPORT_SOCKET = "disk.sock", "export.sock"
_CONFIG = f"""\
daemon: {{state: ./state}}
vaults:
  standby: {{url: "file:./vault", trust: ./operator.pub}}
machines:
  {MACHINE}:
    vault: standby
    disks:
      {DISK}: {{path: ./disk.img, capture: nbd, listen: "unix:./{_DISK_SOCKET}"}}
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, how long it took, what came out."""

    title: str
    seconds: float
    result: str


def check_place(folder: Path) -> None:
    """Raise ``UsageError`` if a socket in ``folder``, an absolute path, cannot have its name."""
    longest = len(os.fsencode(folder / _EXPORT_SOCKET))
    if longest > _SUN_PATH:
        raise UsageError(
            f"its path is too long by {longest - _SUN_PATH} bytes for a socket in it",
            operation="demo",
            subject=str(folder),
            hint="give a folder with a shorter path: --dir, or the variable TMPDIR",
        )


class Demo:
    """Runs all steps in ``folder``, an absolute path; ``tell`` hears of each one when it is done.
    ``figures`` are numbers of the whole."""

    def __init__(self, folder: Path, tell: Callable[[Step], None]):
        check_place(folder)
        self._folder = folder
        self._bare = folder / "bare"
        self._tell = tell
        self._tools = Tools()
        self._commands = Commands(folder)
        self._guest = Guest(folder, self._tools, [])
        self._daemon = Daemon(self._commands, folder / "backstay.yaml", MACHINE)
        self._disk: NbdClient | None = None
        self._moments: list[Moment] = []
        self.steps: list[Step] = []
        self.points: list[int] = []
        self.figures: dict[str, Any] = {}

    def run(self) -> None:
        """From nothing to two verified recoveries. Raises the errors of the steps; no process is
        left behind."""
        try:
            self._protect()
            self._step("destroy the disk, the configuration and all state", self._destroy)
            self._bring_back()
        finally:
            self._commands.end()
            if self._disk is not None:
                self._disk.abandon()

    def _protect(self) -> None:
        self._step("make a disk image with an ext4 file system", self._make)
        self._step("make a key and a vault", self._found)
        self._step("start the daemon; the guest opens its disk", self._start)
        self._step("the guest writes while its disk is replicated", self._replicate)
        self._step("flush, read back, mark a moment", self._mark, "first")
        self._step("write on; kill -9 everything in the middle", self._kill)
        self._step("start again; is all that was flushed there?", self._again)
        self._step("write on, mark a second moment", self._mark, "second")
        self._step("stop with SIGTERM: everything is shipped", self._stop)

    def _bring_back(self) -> None:
        for at, point in enumerate(self.points):
            self._step(f"recover point #{point} with vault and key only", self._recover, at)
        for at, point in enumerate(self.points):
            self._step(f"compare #{point}: every byte, e2fsck -fn, files", self._compare, at)
        self._step(f"export point #{self.points[0]} over NBD and read blocks", self._export)

    def _step(self, title: str, work: Callable[..., str], *args: Any) -> None:
        started = time.monotonic()
        try:
            result = work(*args)
        except (OSError, subprocess.TimeoutExpired) as error:
            said = (error.strerror if isinstance(error, OSError) else "") or str(error)
            raise BackstayError(said, operation="demo", subject=title) from error
        step = Step(title, time.monotonic() - started, result)
        self.steps.append(step)
        self._tell(step)

    # a machine

    def _make(self) -> str:
        tree = self._folder / "tree"
        self._guest.library, copied = _copy_files(tree, _CONTENT)
        (tree / "random.bin").write_bytes(os.urandom(_RANDOM))
        image = self._folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(_IMAGE)
        self._tools.mkfs(tree, image)
        self._guest.starts_with(image)
        return f"{copied} files, {_allocated(image) >> 20} MiB of {_IMAGE >> 20} MiB in use"

    def _found(self) -> str:
        self._commands.backstay("keygen", "--out", "operator", "--no-passphrase")
        words = ("--key", "operator.key", "--single-recipient")
        made = self._commands.backstay("init", "file:./vault", *words)
        (self._folder / "backstay.yaml").write_text(_CONFIG)
        return f"vault {made['vault']}"

    def _start(self) -> str:
        self._guest.change(12)  # made before, so that its writes begin at once
        self._daemon.start()
        size = self._connect().size
        return f"{len(self._commands.processes())} processes, {size >> 20} MiB of disk"

    def _connect(self) -> NbdClient:
        self._disk = NbdClient(f"{self._folder}/{_DISK_SOCKET}", DISK)
        return self._disk

    @property
    def _connected(self) -> NbdClient:
        assert self._disk is not None  # noqa: S101
        return self._disk

    def _replicate(self) -> str:
        """Rounds of writes until the scan has ended; those acknowledged before are counted."""
        guest, during, ended = self._guest, 0, False

        def look() -> None:
            nonlocal during, ended
            if not ended and guest.acknowledged % _LOOK_EVERY == 0:
                ended = self._daemon.replicated()
                during = during if ended else guest.acknowledged

        guest.write(self._connected, each=look)
        while not ended:
            guest.change(2)
            guest.write(self._connected, each=look)
        self.figures["writes_during_replication"] = during
        return f"{during} writes acknowledged before it was replicated"

    def _mark(self, name: str) -> str:
        self._guest.change(3)
        self._guest.write(self._connected)
        self._guest.check(self._connected)
        words = (str(self._folder / "backstay.yaml"), MACHINE, "--label", name)
        made = self._commands.backstay("mark", *words)
        self._moments.append(self._guest.mark(name))
        self.points.append(made["seq"])
        return f"point #{made['seq']} ({made['grade']}) after {self._guest.acknowledged} writes"

    # a crash

    def _kill(self) -> str:
        guest = self._guest
        guest.change(2)
        guest.write(self._connected)
        guest.change(6)
        begun, flushes = guest.acknowledged, guest.flushes
        victims = self._commands.processes()
        killed = False

        def strike() -> None:
            nonlocal killed
            if not killed and guest.acknowledged - begun >= _KILL_AFTER:
                killed = True
                self._commands.kill(victims)

        try:
            guest.write(self._connected, each=strike)
        except ConnectionError:
            self._connected.abandon()
        else:
            raise BackstayError("the daemon is killed, and its disk still answers")
        written, flushed = guest.acknowledged - begun, guest.flushes - flushes
        self.figures["killed"] = len(victims)
        return (
            f"{len(victims)} processes; the disk vanished after {written} writes, {flushed} flush"
        )

    def _again(self) -> str:
        self._daemon.start()
        self._connect()
        found = self._guest.check(self._connected)
        written = self._guest.write(self._connected)
        self._daemon.until_replicated()
        return (
            f"yes; and {found.there} of {found.unflushed} blocks that were not; "
            f"{written} written again"
        )

    def _stop(self) -> str:
        self._connected.close()
        self._daemon.stop()
        ended = time.time()
        words = ("--vault", "file:./vault", "--key", "operator.key", "--count", "100000")
        made = self._commands.backstay("points", MACHINE, *words)["points"]
        newest = datetime.fromisoformat(made[0]["time"]).timestamp()
        self.figures |= {
            "writes": self._guest.acknowledged,
            "flushes": self._guest.flushes,
            "points": len(made),
            "newest_age_seconds": round(ended - newest, 2),
            "vault_bytes": sum(
                path.stat().st_size
                for path in (self._folder / "vault").rglob("*")
                if path.is_file()
            ),
        }
        return f"{len(made)} consistent points"

    def _destroy(self) -> str:
        with (self._folder / "disk.img").open("r+b") as file:
            file.write(os.urandom(4 * MIB))
        for name in ("disk.img", "backstay.yaml", "operator.pub"):
            (self._folder / name).unlink()
        for name in ("state", "tree"):
            shutil.rmtree(self._folder / name)
        self._bare.mkdir()
        for name in ("vault", "operator.key"):
            (self._folder / name).rename(self._bare / name)
        return "left: the vault and the private key"

    # the way back

    def _recover(self, at: int) -> str:
        report = self._commands.backstay(
            "restore",
            *self._point(at),
            "--to",
            str(self._bare / f"point-{at}"),
            folder=self._bare,
            environment={},
        )
        (disk,) = report["disks"]
        return f"{disk['content_bytes'] >> 20} MiB from {report['stored_bytes'] >> 20} MiB"

    def _compare(self, at: int) -> str:
        restored = self._bare / f"point-{at}" / f"{MACHINE}-{DISK}.img"
        moment = self._moments[at]
        difference = first_difference(restored, moment.image)
        if difference is not None:
            raise DamagedObject(
                f"differs from {moment.image.name} at byte {difference}",
                operation="demo",
                subject=str(restored),
            )
        self._tools.check(restored)
        files = check_files(moment, restored, self._tools, self._folder / f"files-{at}")
        return f"identical, file system clean, {files} files"

    def _export(self) -> str:
        socket, log = self._folder / _EXPORT_SOCKET, self._folder / "export.log"
        words = ("export", *self._point(0), "--listen", f"unix:{socket}", "--json")
        process = self._commands.start(*words, log=log, folder=self._bare, environment={})
        deadline = time.monotonic() + _EXPORT_SECONDS
        while not socket.exists() or not log.stat().st_size:
            if process.poll() is not None or time.monotonic() > deadline:
                raise failure(log.read_text(), " ".join(words))
            time.sleep(0.02)
        started = time.monotonic()
        with NbdClient(str(socket), DISK) as disk, self._moments[0].image.open("rb") as known:
            for _ in range(_SAMPLES):
                at = random.randrange(disk.size >> 16) << 16  # noqa: S311 - a sample
                known.seek(at)
                if disk.read(at, 1 << 16) != known.read(1 << 16):
                    raise DamagedObject(
                        f"differs from the original in 64 KiB at {at}",
                        operation="demo",
                        subject=str(socket),
                    )
        took = time.monotonic() - started
        process.terminate()
        code = self._commands.ended(process, _EXPORT_SECONDS)
        if code:
            raise failure(log.read_text(), " ".join(words))
        return f"{_SAMPLES} times 64 KiB in {took:.2f} s, identical"

    def _point(self, at: int) -> tuple[str, ...]:
        keys = ("--vault", "file:./vault", "--key", "operator.key")
        return (MACHINE, *keys, "--at", f"#{self.points[at]}")


def _copy_files(tree: Path, limit: int) -> tuple[list[Path], int]:
    """Real files for the file system: this Python's own library, up to ``limit`` bytes. Those with
    text in them, and the number of all."""
    texts: list[Path] = []
    count = size = 0
    library = Path(sysconfig.get_path("stdlib"))
    for source in _regular_files(library):
        length = source.stat().st_size
        if size > limit * 0.99:
            break
        if size + length > limit:
            continue
        target = tree / source.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        count, size = count + 1, size + length
        if target.suffix == ".py" and length:
            texts.append(target)
    return texts, count


def _regular_files(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(above, name) for name in sorted(names)):
            if path.is_file() and not path.is_symlink():
                yield path


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512
