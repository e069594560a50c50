"""Divide a disk into batches to examine and holes to jump over.

A hole costs no read, only a look at what is known of it: 64 KiB of digests for every 256 MiB, so
that a terabyte of hole already known to be zero passes in well under a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from stages.capture.known import Known
from stages.digests import same
from stages.model import (
    BLOCK,
    CHUNK,
    CHUNK_BLOCKS,
    U64,
    ZERO,
    Batch,
    Disk,
    Runs,
    chunks_of,
    empty_pairs,
    empty_u64,
)

WINDOW = 4096  # chunks: known digests are looked at in pieces of this many (256 MiB of disk)
HOLE = 65536  # chunks in one hole at most (4 GiB)
RUNS = 4096  # a hole ends early when it has collected this many runs
PIECES = 32  # per step
FRESH = 4 << 20  # bytes: a batch is no longer where content must be expected, to save memory

_ZEROS = np.tile(np.array(ZERO, np.uint64), (WINDOW, 1)).tobytes()


class Extents(Protocol):
    """What of ``OpenFile`` the plan needs."""

    def next_data(self, offset: int) -> int | None:
        """First offset that may hold data; None if only holes follow."""


@dataclass(frozen=True, slots=True)
class Look:
    """Examine ``length`` bytes from ``offset`` of ``disk`` (an index), knowing these chunks."""

    disk: int
    offset: int
    length: int
    known: U64


@dataclass(frozen=True, slots=True)
class Hole:
    """``scanned`` bytes that are a hole; ``batch`` says what of that is news, if anything."""

    batch: Batch | None
    scanned: int


Piece: TypeAlias = Look | Hole


@dataclass
class _News:
    """What is found out about a hole: new zero runs; chunks ``low`` to ``high`` to call zero."""

    zero: list[Runs] = field(default_factory=list)
    low: int = 0
    high: int = 0

    @property
    def full(self) -> bool:
        """Time to send it: it grows no further than by one window."""
        return self.high > 0 or sum(len(runs.start) for runs in self.zero) >= RUNS

    def batch(self, disk: int, scanned: int) -> Batch | None:
        """As a batch; None if there is nothing."""
        zero = Runs.join(self.zero)
        if not len(zero.start) and not self.high:
            return None
        return Batch(
            disk=disk,
            data=empty_u64(),
            payload=np.empty((0, BLOCK), np.uint8),
            digests=empty_pairs(),
            zero=zero,
            refs=empty_pairs(),
            ref_digests=empty_pairs(),
            chunk_first=self.low,
            chunk_digests=np.tile(np.array(ZERO, np.uint64), (self.high - self.low, 1)),
            scanned=scanned,
        )


class Plan:
    """The pieces of one disk, in order. ``step`` reads digests and seeks: run it in Offload."""

    def __init__(self, index: int, disk: Disk, file: Extents, known: Known, batch: int):
        self._index = index
        self._disk = disk
        self._file = file
        self._known = known
        self._batch = batch // CHUNK
        self._at = 0
        self._end = chunks_of(disk.size)

    @property
    def offset(self) -> int:
        """Bytes planned so far."""
        return self._at * CHUNK

    def step(self) -> list[Piece]:
        """The next pieces, at most ``PIECES``; none at the end. ``OSError`` as from the file."""
        pieces: list[Piece] = []
        while self._at < self._end and len(pieces) < PIECES:
            data = self._file.next_data(self._at * CHUNK)
            start = self._end if data is None else min(data // CHUNK, self._end)
            pieces.append(self._hole(start) if start > self._at else self._look())
        return pieces

    def _look(self) -> Look:
        first = self._at
        most = min(self._batch, self._end - first)
        known = self._known.chunks(self._disk.number, first, most)
        if not known[:, 0].all():
            known = known[: FRESH // CHUNK]
        self._at = first + len(known)
        # A copy: what is known may be a mapped file, and the event loop must not wait for a disk.
        return Look(self._index, first * CHUNK, self._bytes(first, self._at), known.copy())

    def _hole(self, stop: int) -> Hole:
        first = self._at
        news = _News()
        stop = min(stop, first + HOLE)
        while self._at < stop and not news.full:
            last = min(self._at + WINDOW, stop)
            self._window(self._at, last, news)
            self._at = last
        scanned = self._bytes(first, self._at)
        return Hole(news.batch(self._disk.number, scanned), scanned)

    def _window(self, first: int, last: int, news: _News) -> None:
        """What of the hole's chunks ``first`` to ``last`` is not known to be zero."""
        whole = self._disk.blocks // CHUNK_BLOCKS
        chunks = self._known.chunks(self._disk.number, first, last - first)
        if last <= whole and chunks.tobytes() == _ZEROS[: chunks.nbytes]:
            return
        differ = ~same(chunks, ZERO)
        differ[max(whole - first, 0) :] = True  # a last chunk of fewer blocks has no digest
        stale = np.flatnonzero(differ) + first
        block = int(stale[0]) * CHUNK_BLOCKS
        end = min((int(stale[-1]) + 1) * CHUNK_BLOCKS, self._disk.blocks)
        zero = same(self._known.blocks(self._disk.number, block, end - block), ZERO)
        if not zero.any() and end % CHUNK_BLOCKS == 0:  # never seen before: one run
            news.zero.append(Runs(np.array([block], np.uint64), np.array([end - block], np.uint64)))
            return
        unset = np.flatnonzero(~zero) + block
        news.zero.append(Runs.of(unset.astype(np.uint64)))
        # The digest of a chunk wholly inside a run follows from that; of the others it is said.
        inside = np.bincount(unset // CHUNK_BLOCKS - first, minlength=last - first)
        rest = stale[(inside[stale - first] < CHUNK_BLOCKS) & (stale < whole)]
        if len(rest):
            news.low, news.high = int(rest[0]), int(rest[-1]) + 1

    def _bytes(self, first: int, last: int) -> int:
        return min(last * CHUNK, self._disk.size) - first * CHUNK
