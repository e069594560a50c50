"""Restoring a ``Past`` into a folder, or onto files that pass for devices."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stages.errors import BackstayError
from stages.model import BLOCK, Disk
from stages.ports import Files, FileStat
from stages.recover.pointmap import PointMap
from stages.recover.restore import Report, Restore
from stages.recover.target import Target
from stages.store.port import ObjectStore
from stages.system import SystemFiles
from tests.ports.watched import Tripwire
from tests.recover.past import Past, machine, noise

ROOT, DATA = 1, 2


def disk(size: int) -> Disk:
    return Disk(ROOT, "root", size)


TWO = (disk(300 * BLOCK), Disk(DATA, "data", 40 * BLOCK + 700))


async def two_disks(made: Past) -> None:
    """Content in three windows of 100 blocks, across both disks."""
    await made.write((ROOT, noise(0, 80) | noise(150, 70)), (DATA, noise(0, 10) | noise(40, 1)))
    await made.write(
        (ROOT, noise(20, 30, word="new")),
        zero={ROOT: ((60, 5),)},
        refs={DATA: tuple((20 + at, ROOT, 150 + at) for at in range(10)), ROOT: ((299, ROOT, 0),)},
    )


class Stopped(BackstayError):
    """The restore ends here, as if the process was told to."""


class Devices(SystemFiles):
    """Files that pass for block devices; ``mounts`` says which are in use."""

    def __init__(self) -> None:
        self.mounts: dict[str, str] = {}

    def stat(self, path: str) -> FileStat | None:
        found = super().stat(path)
        return found and replace(found, is_file=False, is_block=True)

    def mounted(self, path: str) -> str | None:
        return self.mounts.get(path)


def stop_after(windows: int) -> Callable[[int], None]:
    """An ``advance`` that ends the restore once so many windows are done."""
    left = windows + 1  # it is told of what was done before, first

    def advance(done: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Stopped("stopped")

    return advance


def targets(made: Past, folder: Path, *, devices: tuple[str, ...] = ()) -> list[Target]:
    """One for each disk: a new file in the folder, or the file there as a device."""
    return [
        Target(disk, f"{folder}/{disk.name}", device=disk.name in devices) for disk in made.disks
    ]


async def restore(
    made: Past,
    to: list[Target],
    *,
    seq: int | None = None,
    files: Files | None = None,
    window: int = 100_000,
    salvage: bool = False,
    advance: Callable[[int], None] | None = None,
    store: ObjectStore | None = None,
) -> Report:
    """Restore a moment, as a process of its own would."""
    group = await made.group(store)
    point = await PointMap.build(group, SystemFiles(), seq or made.tail)
    work = Restore(point, machine(files), salvage=salvage, window_blocks=window)
    try:
        return await work.run(to, advance)
    finally:
        work.close()


def is_restored(made: Past, to: list[Target], *, seq: int | None = None) -> bool:
    """True if all disks are there as they were, and nothing else lies in the folder."""
    moment = made.moments[seq or made.tail]
    names = {Path(target.path).name for target in to}
    left = {path.name for path in Path(to[0].path).parent.iterdir()}
    return left == names and all(
        Path(target.path).read_bytes() == moment.image(target.disk.number) for target in to
    )


def named(to: list[Target]) -> list[Target]:
    """Those that have their names."""
    return [target for target in to if Path(target.path).exists()]


def is_whole(made: Past, target: Target) -> bool:
    image = made.moments[made.tail].image(target.disk.number)
    return Path(target.path).read_bytes() == image


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def second(name: str) -> Tripwire:
    class Second(Tripwire):
        def __call__(self, called, path, call):  # type: ignore[no-untyped-def]
            self.names.append(called)
            if self.names.count(name) == 2 and called == name:
                raise OSError(errno.EIO, "Input/output error", path)
            return call()

    return Second()
