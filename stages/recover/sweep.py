"""Go over all content of a point, window by window: what restore and verify have in common.

Gets run ahead of the workers that open frames, so that neither waits for the other; what is
fetched and not yet opened is bounded by ``AHEAD`` hauls of at most ``HAUL_BYTES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import trio

from stages.model import BLOCK, U64, Disk
from stages.ports import Machine
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.extract import DamagedExtent, Extractor, Laid, Sink, extents_of
from stages.recover.lineage import others_epochs
from stages.recover.plan import FrameNeed, Haul, hauls, needs
from stages.recover.pointmap import PointMap
from stages.stage import crew

WINDOW_BLOCKS = 1 << 18  # 1 GiB of disk: a frame is fetched once for all its blocks in a window
AHEAD = 8
Lost: TypeAlias = tuple[FrameNeed, str, str]  # a frame that cannot be had, key and reason
MAX_DAMAGE = 10_000  # extents that are listed; ``lost`` counts all


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one disk and the locations (n,) of its blocks."""

    disk: Disk
    first: int
    locations: U64


class Sweep:
    """Extracts windows of a point and gathers what is damaged.

    ``lost`` counts damaged bytes, ``frames`` and ``stored_bytes`` what was looked at.
    """

    def __init__(
        self,
        point: PointMap,
        machine: Machine,
        *,
        workers: int = 2,
        window_blocks: int = WINDOW_BLOCKS,
    ):
        self.point = point
        self.damage: list[DamagedExtent] = []
        self.lost = 0
        self.frames = 0
        self.stored_bytes = 0
        self._window = window_blocks
        self._opening = trio.CapacityLimiter(workers)
        self._extractor = Extractor(point.group, machine.offload)

    def windows(self, disk: Disk, start: int = 0) -> range:
        """First blocks of the windows of a disk, from ``start`` on."""
        return range(start, disk.blocks, self._window)

    async def locate(self, disk: Disk, first: int, count: int | None = None) -> Window:
        """Read the map of one window, or of ``count`` blocks. Raises ``Damage``."""
        count = min(self._window if count is None else count, disk.blocks - first)
        return Window(disk, first, await self.point.locations(disk.number, first, count))

    async def extract(
        self, window: Window, sink: Sink, advance: Callable[[int], None] | None = None
    ) -> list[DamagedExtent]:
        """Hand all content of a window to ``sink``; ``advance`` hears of stored bytes done.

        ``sink`` is called in worker threads, several at a time. Returns what is damaged in this
        window. Raises ``Damage`` if the map is, and store errors.
        """
        frames, wanted = needs(window.locations, window.first)
        self.frames += len(wanted)
        group = self.point.group
        lost: dict[tuple[int, int], Lost] = {}
        for _ in range(TRIES):
            since = floors(group)
            lost = await self._haul(frames, wanted, sink, advance)
            if not lost or not await moved_on(group, self.point.seq, since):
                break
            left = [at for at, need in enumerate(wanted) if (need.epoch, need.number) in lost]
            frames, wanted = frames[left], [wanted[at] for at in left]
        bad = [
            extent
            for need, key, reason in lost.values()
            for extent in extents_of(window.disk, need, key, reason)
        ]
        found = _joined([*bad, *self._doubtful(window)])
        self.lost += sum(extent.length for extent in found)
        self.damage.extend(found[: MAX_DAMAGE - len(self.damage)])
        return found

    async def _haul(
        self,
        frames: U64,
        wanted: list[FrameNeed],
        sink: Sink,
        advance: Callable[[int], None] | None,
    ) -> dict[tuple[int, int], Lost]:
        """Hand frames to ``sink``; those that cannot be had, by epoch and number."""
        rows = await self.point.places(frames)
        found: dict[tuple[int, int], Lost] = {}
        room = trio.Semaphore(AHEAD)
        group = self.point.group
        others = await others_epochs(group, {need.epoch for need in wanted})

        async def one(haul: Haul) -> None:
            fetched = await self._extractor.fetch(haul)
            async with self._opening:
                bad = await self._extractor.open(fetched, sink)
            del fetched
            room.release()
            self.stored_bytes += haul.length
            for need, reason in bad:
                found[need.epoch, need.number] = need, haul.key, reason
            if advance is not None:
                advance(haul.length)

        async with crew() as nursery:
            for haul in hauls(group.scope.group, wanted, rows, others):
                await room.acquire()
                nursery.start_soon(one, haul)
        return found

    def _doubtful(self, window: Window) -> list[DamagedExtent]:
        """What may be older than the point: it is restored, and listed all the same."""
        if self.point.doubt is None:
            return []
        disk, count = window.disk, len(window.locations)
        return [
            DamagedExtent(
                disk.name,
                first * BLOCK,
                min(blocks * BLOCK, disk.size - first * BLOCK),
                hole.key,
                f"may be older: {hole.reason}",
                older=True,
            )
            for first, blocks, hole in self.point.doubt.runs(disk.number, window.first, count)
        ]


def _joined(extents: list[DamagedExtent]) -> list[DamagedExtent]:
    """In the order of the disk; those that touch and have one cause become one."""
    found: list[DamagedExtent] = []
    for extent in sorted(extents, key=lambda extent: extent.offset):
        last = found[-1] if found else None
        if last and extent == replace(
            extent, offset=last.offset + last.length, key=last.key, reason=last.reason
        ):
            found[-1] = replace(last, length=last.length + extent.length)
        else:
            found.append(extent)
    return found


def content_runs(need: FrameNeed) -> list[tuple[int, int, int]]:
    """Stretches of a frame that go to consecutive blocks: slot, block, count."""
    return _runs(need.slots, need.blocks)


def stretches(laid: Sequence[Laid]) -> list[tuple[int, int, int]]:
    """Stretches of a room that go to consecutive blocks: block of the room, block, count."""
    if len(laid) == 1 and not laid[0][0]:
        return content_runs(laid[0][2])
    slots = np.concatenate([need.slots + np.uint64(at // BLOCK) for at, _, need in laid])
    return _runs(slots, np.concatenate([need.blocks for _, _, need in laid]))


def _runs(slots: U64, blocks: U64) -> list[tuple[int, int, int]]:
    count = len(slots)
    if not count:
        return []
    breaks = (np.diff(slots) != 1) | (np.diff(blocks) != 1)
    if not breaks.any():
        return [(int(slots[0]), int(blocks[0]), count)]
    heads = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    counts = np.diff(np.concatenate((heads, [count])))
    return list(zip(slots[heads].tolist(), blocks[heads].tolist(), counts.tolist(), strict=True))
