"""Find blocks that equal another block of this scan: the table behind references (R17).

A reference saves sending the content again. Its target is a block that this scan has seen before,
either sent as content or unchanged in the vault; it is never a reference itself, and at rest it
cannot change any more while the scan runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from stages.model import U64, Bools, Ints

ENTRY = 24  # bytes: digest, packed block
WAYS = 2
BACKLOG_RUNS = 65536
PIECE = 16384  # blocks indexed at a time


class DedupTable:
    """A two-way set-associative table, lossy when full, that never grows beyond ``limit`` bytes.

    A lookup compares whole digests, so what it loses costs only a repeated transfer. Memory is
    taken as it fills. 0.1 to 0.2 µs a block for lookup and insert.
    """

    def __init__(self, limit: int):
        self._sets = max(limit // (ENTRY * WAYS), 1)
        self._table = np.zeros((self._sets, WAYS, 3), np.uint64)

    @property
    def capacity(self) -> int:
        """Blocks it can hold."""
        return self._sets * WAYS

    def lookup(self, digests: U64) -> tuple[Bools, U64]:
        """For digests (n, 2): which are there (n,), and the packed blocks that hold them (n,)."""
        return _match(digests, self._table[self._set_of(digests)])

    def insert(self, digests: U64, packed: U64) -> None:
        """Remember where digests (n, 2) were seen (n,), unless they are there already."""
        place = self._set_of(digests)
        rows = self._table[place]
        new = ~_match(digests, rows)[0]
        self._put(digests[new], packed[new], place[new], rows[new])

    def resolve(self, digests: U64, packed: U64, fresh: Bools) -> tuple[Bools, U64]:
        """Which fresh blocks need not be sent, and what they equal.

        ``digests`` (n, 2) of non-zero blocks of one batch in ascending order, ``packed`` (n,) their
        names, ``fresh`` (n,) those that differ from the vault; the others are unchanged. Returns
        which of them become references (n,) and their targets (n,), and remembers the rest.
        """
        place = self._set_of(digests)
        rows = self._table[place]
        hit, target = _match(digests, rows)
        first = first_equal(digests)
        new = (first == np.arange(len(digests))) & ~hit
        self._put(digests[new], packed[new], place[new], rows[new])
        return fresh & ~new, np.where(hit, target, packed[first])

    def _set_of(self, digests: U64) -> U64:
        place: U64 = digests[:, 0] % np.uint64(self._sets)
        return place

    def _put(self, digests: U64, packed: U64, place: U64, rows: U64) -> None:
        """Write new entries into their sets, whose rows (n, 2, 3) were read before."""
        taken = rows[:, :, 0] != 0  # no digest has a first half of 0
        # Both taken: throw out either, by a bit that the set does not depend on.
        way = taken[:, 0] & (~taken[:, 1] | ((digests[:, 1] & np.uint64(1)) != 0))
        # One assignment of whole rows: where two new blocks share a place, one of them wins whole.
        self._table[place, way.astype(np.intp)] = np.column_stack((digests, packed))


def _match(digests: U64, rows: U64) -> tuple[Bools, U64]:
    """Which digests (n, 2) are in their sets' rows (n, 2, 3), and the packed blocks there."""
    hits = (rows[:, :, 0] == digests[:, :1]) & (rows[:, :, 1] == digests[:, 1:])
    return hits[:, 0] | hits[:, 1], np.where(hits[:, 0], rows[:, 0, 2], rows[:, 1, 2])


def first_equal(digests: U64) -> Ints:
    """For each of (n, 2) the index of the first that equals it."""
    low = digests[:, 0]
    order = np.argsort(low, kind="stable")
    ordered = low[order]
    heads = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(heads, len(low)))
    lead = np.empty(len(low), np.int64)
    lead[order] = np.repeat(order[heads], lengths)
    # Equal first halves with different second ones: then it leads only itself.
    return np.where(digests[lead, 1] == digests[:, 1], lead, np.arange(len(low)))


class Backlog:
    """Unchanged blocks that a scan passed and the table does not know yet, as runs.

    They are worth looking up only once there is something that may equal them: the scan of an
    unchanged disk never does. Holds at most what the table can, and forgets the oldest first.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._total = 0
        self._runs: deque[tuple[int, int, int]] = deque()

    def add(self, disk: int, first: int, count: int) -> None:
        """``count`` blocks from ``first`` are unchanged."""
        self._total += count
        if self._runs:
            last_disk, start, length = self._runs[-1]
            if last_disk == disk and start + length == first:
                self._runs[-1] = (disk, start, length + count)
                count = 0
        if count:
            self._runs.append((disk, first, count))
        while self._total > self._limit or len(self._runs) > BACKLOG_RUNS:
            self._forget()

    def take(self) -> Iterator[tuple[int, int, int]]:
        """Empty it: disk, first, count, at most ``PIECE`` blocks at a time."""
        while self._runs:
            disk, first, count = self._runs.popleft()
            self._total -= count
            for at in range(first, first + count, PIECE):
                yield disk, at, min(PIECE, first + count - at)

    def _forget(self) -> None:
        disk, first, count = self._runs.popleft()
        excess = max(self._total - self._limit, 0)
        if 0 < excess < count:
            self._runs.appendleft((disk, first + excess, count - excess))
            self._total -= excess
        else:
            self._total -= count
