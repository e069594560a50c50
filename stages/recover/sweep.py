"""Go over all content of a point, window by window: what restore and verify have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trio

from stages.errors import Damage
from stages.model import U64, Disk
from stages.ports import Machine
from stages.recover.extract import DamagedExtent, Extractor, Sink, extents_of
from stages.recover.plan import FrameNeed, Haul, hauls, needs
from stages.recover.pointmap import PointMap
from stages.stage import crew

WINDOW_BLOCKS = 1 << 18  # 1 GiB of disk: a frame is fetched once for all its blocks in a window
MAX_DAMAGE = 10_000


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one disk and the locations (n,) of its blocks."""

    disk: Disk
    first: int
    locations: U64


class Sweep:
    """Extracts windows of a point with bounded parallelism and gathers what is damaged."""

    def __init__(self, point: PointMap, machine: Machine, *, workers: int = 2):
        self.point = point
        self.damage: list[DamagedExtent] = []
        self.frames = 0
        self.stored_bytes = 0
        self._machine = machine
        self._workers = workers
        self._extractor = Extractor(point.group, machine.offload)

    def windows(self, disk: Disk, start: int = 0) -> range:
        """First blocks of the windows of a disk, from ``start`` on."""
        return range(start, disk.blocks, WINDOW_BLOCKS)

    async def locate(self, disk: Disk, first: int, count: int = WINDOW_BLOCKS) -> Window:
        """Read the map of one window; a damaged checkpoint is got round by reading the log."""
        count = min(count, disk.blocks - first)
        try:
            return Window(disk, first, await self.point.locations(disk.number, first, count))
        except Damage as error:
            await self._without_checkpoints(error)
            return Window(disk, first, await self.point.locations(disk.number, first, count))

    async def extract(
        self, window: Window, sink: Sink, advance: Callable[[int], None] | None = None
    ) -> None:
        """Hand all content of a window to ``sink``; ``advance`` hears of stored bytes done."""
        frames, wanted = needs(window.locations, window.first)
        try:
            rows = await self.point.places(frames)
        except Damage as error:
            await self._without_checkpoints(error)
            rows = await self.point.places(frames)
        self.frames += len(wanted)
        await self._haul(window.disk, wanted, rows, sink, advance)

    async def _haul(
        self,
        disk: Disk,
        wanted: list[FrameNeed],
        rows: U64,
        sink: Sink,
        advance: Callable[[int], None] | None,
    ) -> None:
        limit = trio.CapacityLimiter(self._workers)
        gate = trio.Semaphore(2 * self._workers)

        async def one(haul: Haul) -> None:
            async with limit:
                bad = await self._extractor.run(haul, sink)
            gate.release()
            self.stored_bytes += haul.length
            for need, reason in bad:
                self._note(extents_of(disk, need, haul.key, reason))
            if advance is not None:
                advance(haul.length)

        async with crew() as nursery:
            for haul in hauls(self.point.group.scope.group, wanted, rows):
                await gate.acquire()
                nursery.start_soon(one, haul)

    async def _without_checkpoints(self, error: Damage) -> None:
        """Rebuild the map from the log alone; if that fails too, it is damage indeed."""
        if not self.point.uses_checkpoint:
            raise error
        group = self.point.group
        group.log.ignored.append(f"{error}; commits are read instead")
        rebuilt = await PointMap.build(
            group, self._machine.files, self.point.seq, checkpoints=False
        )
        self.point.close()
        self.point = rebuilt

    def _note(self, found: list[DamagedExtent]) -> None:
        room = MAX_DAMAGE - len(self.damage)
        self.damage.extend(found[:room])


def content_runs(need: FrameNeed) -> list[tuple[int, int, int]]:
    """Stretches of a frame that go to consecutive blocks: slot, block, count."""
    if not len(need.slots):
        return []
    step_slot = np.diff(need.slots)
    step_block = np.diff(need.blocks)
    heads = np.flatnonzero(np.concatenate(([True], (step_slot != 1) | (step_block != 1))))
    counts = np.diff(np.concatenate((heads, [len(need.slots)])))
    return list(
        zip(need.slots[heads].tolist(), need.blocks[heads].tolist(), counts.tolist(), strict=True)
    )
