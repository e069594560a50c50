"""Which blocks of a point may be older than it, because a commit could not be read.

Only salvage goes on after such a hole: everything known before it is in doubt from then on, until
a later commit says what a block holds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from stages.model import Runs, distinct
from stages.ports import Files
from stages.vault.fold import CopyRefs
from stages.vault.paged import PagedArray

_CACHE = 4 << 20


@dataclass(frozen=True, slots=True)
class Hole:
    """The object that could not be read, and why."""

    key: str
    reason: str


class Doubt:
    """For each block the newest hole since it was written last: 1, 2 ..., or 0. Blocking calls."""

    def __init__(self, files: Files):
        self._files = files
        self._disks: dict[int, PagedArray] = {}
        self.holes: list[Hole] = []

    def hole(self, hole: Hole, rows: dict[int, int]) -> None:
        """Nothing is certain any more; ``rows``: disk number to blocks of the disk."""
        self.holes.append(hole)
        for disk, count in rows.items():
            self.cover(disk, count)
            self._disks[disk].fill(0, self._disks[disk].rows, len(self.holes))

    def cover(self, disk: int, rows: int) -> None:
        """Follow the size of a disk: of what is new, nothing is certain."""
        if disk not in self._disks:
            self._disks[disk] = PagedArray(self._files.scratch(), 1, cache=_CACHE)
        array = self._disks[disk]
        known = array.rows
        if rows > known:
            array.resize(rows)
            array.fill(known, rows - known, len(self.holes))

    def clear(self, disk: int, runs: Runs) -> None:
        """A commit says what these blocks hold."""
        for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
            self._disks[disk].fill(start, count, 0)

    def copy(self, step: CopyRefs) -> None:
        """Blocks that were copied from others are as certain as those."""
        holes = np.zeros((len(step.block), 1), np.uint64)
        for disk in distinct(step.target_disk).tolist():
            here = step.target_disk == disk
            holes[here] = self._disks[disk].gather(step.target_block[here])
        for disk in distinct(step.disk).tolist():
            here = step.disk == disk
            self._disks[disk].scatter(step.block[here], holes[here])

    def runs(self, disk: int, first: int, count: int) -> list[tuple[int, int, Hole]]:
        """Stretches of blocks in doubt: first block, count, newest hole."""
        holes = self._disks[disk].read(first, count)[:, 0].astype(np.int64)
        heads = np.flatnonzero(np.concatenate(([True], holes[1:] != holes[:-1])))
        ends = [*heads[1:].tolist(), count]
        return [
            (first + head, end - head, self.holes[holes[head] - 1])
            for head, end in zip(heads.tolist(), ends, strict=True)
            if holes[head]
        ]

    def close(self) -> None:
        """Release the scratch files."""
        for array in self._disks.values():
            array.close()

    @property
    def disks(self) -> Collection[int]:
        """Numbers of the disks that are covered."""
        return self._disks.keys()
