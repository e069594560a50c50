"""What stands beside Backstay where disks are written to and read: other servers of a disk made
alike, and the disk itself without any server between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from bench.live import NBDKIT, Daemon, Serving, nbdkit
from bench.load import Load, make_disk, put
from bench.qemu import QEMU_NBD, qemu_nbd, qemu_nbd_missing
from bench.results import Sample
from bench.told import StageWatch

FIO = "fio on the file"


class OnTheFile(Serving):
    """No server: fio opens the file itself, by the same page cache."""

    def __init__(self, disk: Path):
        self.uri = str(disk)

    @property
    def pid(self) -> int:
        """Nobody answers; this process does nothing meanwhile."""
        return os.getpid()

    def settle(self) -> None:
        """What it wrote is where it belongs."""


def takes(name: str, load: Load) -> bool:
    """nbdcopy needs a server."""
    return name != FIO or not load.copy


def absent() -> tuple[str, ...]:
    """A note for each that is left out."""
    missing = qemu_nbd_missing()
    return (f"{missing} is left out: not installed",) if missing else ()


@contextmanager
def others(
    folder: Path, size: int, seed: int, *, fio: bool
) -> Iterator[tuple[dict[str, Serving], list[Path]]]:
    """Servers by name, each with a disk of its own below ``folder``; the disks. Raises
    ``CommandFailed``."""
    with ExitStack() as stack:
        servers: dict[str, Serving] = {}
        disks = []

        def disk(name: str) -> Path:
            disks.append(make_disk(folder / f"by {name}", size, seed))
            return disks[-1]

        servers[NBDKIT] = stack.enter_context(nbdkit(disk(NBDKIT)))
        if not qemu_nbd_missing():
            servers[QEMU_NBD] = stack.enter_context(qemu_nbd(disk(QEMU_NBD)))
        if fio:
            servers[FIO] = OnTheFile(disk(FIO))
        yield servers, disks


def burst(
    load: Load,
    server: Serving,
    size: int,
    seconds: float,
    folder: Path,
    seed: int,
    *,
    how: AbstractContextManager[None] | None = None,
) -> Sample:
    """One load on one server, in the state ``how``; afterwards everything is shipped. Raises
    ``CommandFailed``."""
    watch = StageWatch(server) if isinstance(server, Daemon) and how is None else None
    with how or nullcontext():
        before = server.cpu()
        done = put(load, server.uri, size, seconds, folder, seed)
        cpu = None if isinstance(server, OnTheFile) else server.cpu() - before
        if watch:
            watch.done()
    server.settle()
    return Sample(
        done.seconds,
        cpu=cpu,
        figures=done.figures(),
        series=done.series,
        stages=watch.since() if watch else {},
    )
