"""Ports for tests of the scan: threads that run in place, a clock that stands, disks that fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio

from stages.capture.examiner import Examiners, InlineExaminers
from stages.capture.known import Known
from stages.capture.scan import Scan, ScanProgress
from stages.capture.source import ScanDisk
from stages.channel import Channel
from stages.model import CHUNK, Batch, Disk, StreamItem
from stages.ports import Clock, Files, Machine, OpenFile
from stages.stage import crew
from stages.system import SystemEntropy, SystemFile, SystemFiles
from tests.capture.vault_model import GROUP_KEY

T = TypeVar("T")


class InPlace:
    """Offload without threads."""

    async def run(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass
class StandingClock:
    """An hour ahead of every file; sleeps are remembered and take no time."""

    wall: int = 0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return self.wall or 4102444800_000_000  # the year 2100

    async def sleep(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.slept.append(seconds)
        self.on_sleep()


class FaultyFile(SystemFile):
    """Before the ``n``-th read of the disk, counted from 0, something happens."""

    def __init__(self, fd: int, path: str, faults: FaultyFiles):
        super().__init__(fd, path)
        self._faults = faults

    def pread_into(self, offset: int, target: memoryview) -> int:
        self._faults.reads += 1
        if self._faults.reads == self._faults.at + 1:
            self._faults.happens()
        return super().pread_into(offset, target)


class FaultyFiles(SystemFiles):
    """Files that open ``FaultyFile`` to read."""

    def __init__(self, at: int, happens: Callable[[], None]):
        self.at = at
        self.happens = happens
        self.reads = 0

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> OpenFile:
        return FaultyFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path, self)


def io_error() -> None:
    raise OSError(errno.EIO, "Input/output error")


def machine(files: Files | None = None, clock: Clock | None = None) -> Machine:
    return Machine(clock or StandingClock(), InPlace(), SystemEntropy(), files or SystemFiles())


def tiny() -> Examiners:
    """Batches of two chunks, so that small disks have many."""
    return InlineExaminers(InPlace(), batch=2 * CHUNK, slots=2)


@dataclass(frozen=True)
class Scanned:
    """The stream of a scan that came to its end."""

    items: list[StreamItem]
    progress: ScanProgress

    @property
    def batches(self) -> list[Batch]:
        return [item for item in self.items if isinstance(item, Batch)]


async def scan(
    disks: Sequence[ScanDisk],
    known: Known,
    *,
    examiners: Examiners | None = None,
    on: Machine | None = None,
    dedup_bytes: int = 1 << 16,
    on_item: Callable[[StreamItem], None] = lambda _: None,
    snapshot: bool = False,
) -> Scanned:
    """Run a scan to its end. The channel holds one item, so the scan is never far ahead."""
    sink: Channel[StreamItem] = Channel("stream", max_bytes=1 << 20, max_items=1)
    stage = Scan(
        disks,
        known,
        sink,
        machine=on or machine(),
        examiners=examiners or tiny(),
        group_key=GROUP_KEY,
        dedup_bytes=dedup_bytes,
        snapshot=snapshot,
    )
    items = []
    async with crew() as nursery:
        nursery.start_soon(stage.run)
        async for item in sink:
            on_item(item)
            items.append(item)
    return Scanned(items, stage.progress())


def disk_at(path: Path, number: int = 1, size: int | None = None) -> ScanDisk:
    size = path.stat().st_size if size is None else size
    return ScanDisk(Disk(number, path.name, size), str(path))
