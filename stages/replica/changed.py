"""Which blocks commits have changed: what is written when a replica goes from one to a later one.

More may be named than has changed, never less: beyond a bound of memory whole windows are named.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from stages.model import U64, Bools, Disk, Ints, Runs, distinct
from stages.recover.opened import Group
from stages.replica.record import At
from stages.vault.commits import Commit
from stages.vault.fold import CopyRefs, SetData, SetZero, check_bounds, steps
from stages.vault.rollup import SPAN
from stages.vault.sealing import EpochKeys

WINDOW_BLOCKS = 1 << 16  # 256 MiB of disk
_TOGETHER = 1 << 18  # blocks of short runs that are looked at together
MAX_BYTES = 64 << 20  # of masks, a byte for each block of a window that was touched


class Changed:
    """Blocks by disk and window. ``window``: blocks in one; ``most``: bytes of all masks."""

    def __init__(
        self, disks: tuple[Disk, ...], *, window: int = WINDOW_BLOCKS, most: int = MAX_BYTES
    ):
        self.window = window
        self._blocks = {disk.number: disk.blocks for disk in disks}
        self._masks: dict[tuple[int, int], Bools | None] = {}  # None: all of it
        self._most = max(1, most // window)
        self._held = 0

    def add(self, disk: int, runs: Runs) -> None:
        """Blocks of runs; of many short ones together, as guests write here and there."""
        short = runs.count < np.uint64(self.window)
        for start, count in zip(
            runs.start[~short].tolist(), runs.count[~short].tolist(), strict=True
        ):
            at, end = start, start + count
            while at < end:
                number, low = divmod(at, self.window)
                step = min(self.window - low, end - at)
                self._mark(disk, number, slice(low, low + step))
                at += step
        starts, counts = runs.start[short], runs.count[short]
        ends, at = np.cumsum(counts), 0
        while at < len(starts):
            before = int(ends[at - 1]) if at else 0
            until = max(at + 1, int(np.searchsorted(ends, before + _TOGETHER)))
            self._scatter(disk, Runs(starts[at:until], counts[at:until]).blocks())
            at = until

    def windows(self, disk: int) -> Iterator[tuple[int, int, Bools]]:
        """First block, count and mask (count,) of each window that was touched, ascending."""
        for number in sorted(at for of, at in self._masks if of == disk):
            first = number * self.window
            count = min(self.window, self._blocks[disk] - first)
            mask = self._masks[disk, number]
            yield first, count, np.ones(count, bool) if mask is None else mask[:count]

    def commit(self, commit: Commit, group: Group, keys: EpochKeys) -> None:
        """All that a commit changes. Raises ``DamagedObject``."""
        segments = commit.index(group.scope, keys)
        check_bounds(segments, self._blocks, commit.container.key)
        for step in steps(commit.header, segments):
            match step:
                case SetData(disk=disk, runs=runs) | SetZero(disk=disk, runs=runs):
                    self.add(disk, runs)
                case CopyRefs(disk=disks, block=blocks):
                    for disk in distinct(disks).tolist():
                        self.add(disk, Runs.of(distinct(blocks[disks == disk])))

    def _scatter(self, disk: int, blocks: U64) -> None:
        if not len(blocks):
            return
        numbers, low = np.divmod(blocks, np.uint64(self.window))
        order = np.argsort(numbers, kind="stable")
        numbers, low = numbers[order], low[order].astype(np.int64)
        heads = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
        for start, end in itertools.pairwise([*heads.tolist(), len(numbers)]):
            self._mark(disk, int(numbers[start]), low[start:end])

    def _mark(self, disk: int, number: int, part: slice | Ints) -> None:
        key = (disk, number)
        if key not in self._masks:
            fits = self._held < self._most
            self._held += fits
            self._masks[key] = np.zeros(self.window, bool) if fits else None
        mask = self._masks[key]
        if mask is not None:
            mask[part] = True


async def between(
    group: Group, disks: tuple[Disk, ...], start: At, end: At, *, through: At, window: int
) -> Changed | None:
    """What the commits after ``start`` up to ``end`` have changed, all of one history.

    ``through``: a commit on the way, which has to be the very one. None if the log does not lead
    from one to the other any more, or the disks are others on the way: then only comparing tells.
    Raises ``Damage`` and store errors.
    """
    if {start.group, end.group, through.group} != {group.scope.group}:
        return None
    if not group.log.first - 1 <= start.seq <= through.seq <= end.seq:
        return None
    found, link, record = Changed(disks, window=window), start.link, -1
    geometry = _geometry(disks)
    if through.seq == start.seq and through.link != start.link:
        return None
    at = start.seq
    while at < end.seq:
        until = min(end.seq, (at // SPAN + 1) * SPAN)
        for commit in await group.log.stretch(at + 1, until, link):
            if commit.header.machine != record:
                record = commit.header.machine
                if _geometry((await group.machine(record)).disks) != geometry:
                    return None
            if commit.header.seq == through.seq and commit.link != through.link:
                return None
            found.commit(commit, group, await group.ring.keys(commit.header.epoch))
            link = commit.link
        at = until
    return found if link == end.link else None


def _geometry(disks: tuple[Disk, ...]) -> set[tuple[int, int]]:
    return {(disk.number, disk.size) for disk in disks}
