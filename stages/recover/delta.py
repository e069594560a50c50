"""What commits after a checkpoint changed of a block map: newest changes sorted, older ones filed.

Commits that rewrite blocks here and there would touch a page of the file for nearly every block.
So changes are gathered in sorted runs, merged sixteen at a time, and go to the file only when they
exceed a limit, then page by page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from stages.model import U64, Runs
from stages.ports import OpenFile
from stages.vault.paged import PagedArray

ROW_BYTES = 16  # of a gathered change: block and value
_FAN = 16  # runs of one tier before they are merged into one of the next
_SHORT = 4096  # longest run of one value that is gathered
_LONG = 64  # mean length of runs that need no gathering, unless something is gathered already

_Run: TypeAlias = tuple[U64, U64]  # ascending blocks, their values


class Delta:
    """A column of 64-bit values, 0 where nothing was set; calls as of a ``PagedArray``.

    ``limit`` bounds the bytes of gathered changes; merging takes up to three times that besides.
    """

    def __init__(self, file: OpenFile, *, cache: int, limit: int):
        self._array = PagedArray(file, 1, cache=cache)
        self._limit = max(1, limit // ROW_BYTES)
        self._tiers: list[list[_Run]] = [[]]  # newest tier first, in it oldest run first
        self._held = 0

    @property
    def rows(self) -> int:
        """Rows of the column."""
        return self._array.rows

    def resize(self, rows: int) -> None:
        """Grow with zeros, or cut."""
        if rows < self.rows:
            self._spill()
        self._array.resize(rows)

    def read(self, first: int, count: int) -> U64:
        """Rows ``first`` to ``first + count``: (count, 1)."""
        out = self._array.read(first, count)
        ends = np.array([first, first + count], np.uint64)
        for blocks, values in self._oldest_first():
            low, high = blocks.searchsorted(ends)
            if low < high:
                out[(blocks[low:high] - np.uint64(first)).astype(np.int64), 0] = values[low:high]
        return out

    def gather(self, rows: U64) -> U64:
        """Rows by number, any order: (n, 1)."""
        out = np.empty((len(rows), 1), np.uint64)
        left = np.arange(len(rows))
        for blocks, values in reversed(list(self._oldest_first())):
            wanted = rows[left]
            at = np.searchsorted(blocks, wanted).clip(0, len(blocks) - 1)
            hit = blocks[at] == wanted
            out[left[hit], 0] = values[at[hit]]
            left = left[~hit]
        out[left] = self._array.gather(rows[left])
        return out

    def assign(self, runs: Runs, values: U64) -> None:
        """Set the blocks of ``runs``, in order, to ``values`` (n, 1)."""
        if not self._held and len(values) >= _LONG * len(runs.start):
            self._array.assign(runs, values)
        else:
            self.scatter(runs.blocks(), values)

    def fill(self, first: int, count: int, value: int) -> None:
        """Set a run of rows to one value."""
        if count <= _SHORT:
            blocks = np.arange(first, first + count, dtype=np.uint64)
            self._add(blocks, np.full(count, value, np.uint64))
        else:
            self._spill()
            self._array.fill(first, count, value)

    def scatter(self, rows: U64, values: U64) -> None:
        """Set rows by number to ``values`` (n, 1); where one occurs twice the later value wins."""
        step = np.diff(rows.astype(np.int64))
        if (step <= 0).any():
            self._add(*_newest(rows, values[:, 0]))
        elif not self._held and len(rows) >= _LONG * (1 + np.count_nonzero(step != 1)):
            self._array.scatter(rows, values)
        else:
            self._add(rows, values[:, 0])

    def close(self) -> None:
        """Release the file."""
        self._tiers = [[]]
        self._held = 0
        self._array.close()

    def _add(self, blocks: U64, values: U64) -> None:
        if not len(blocks):
            return
        self._tiers[0].append((blocks, values))
        self._held += len(blocks)
        at = 0
        while len(self._tiers[at]) == _FAN:
            merged = _joined(self._tiers[at])
            self._held += len(merged[0]) - sum(len(run[0]) for run in self._tiers[at])
            self._tiers[at] = []
            at += 1
            if at == len(self._tiers):
                self._tiers.append([])
            self._tiers[at].append(merged)
        if self._held > self._limit:
            self._spill()

    def _spill(self) -> None:
        """Write all that was gathered, as one run, so that each page is touched once."""
        if self._held:
            blocks, values = _joined(list(self._oldest_first()))
            self._array.scatter(blocks, values[:, None])
            self._tiers = [[]]
            self._held = 0

    def _oldest_first(self) -> Iterator[_Run]:
        for tier in reversed(self._tiers):
            yield from tier


def _joined(runs: list[_Run]) -> _Run:
    """Runs, oldest first, as one."""
    if len(runs) == 1:
        return runs[0]
    return _newest(
        np.concatenate([blocks for blocks, _ in runs]),
        np.concatenate([values for _, values in runs]),
    )


def _newest(blocks: U64, values: U64) -> _Run:
    """Sort by block; of equal blocks the last counts."""
    order = np.argsort(blocks, kind="stable")
    ordered = blocks[order]
    last = np.concatenate((ordered[1:] != ordered[:-1], [True]))
    return ordered[last], values[order[last]]
