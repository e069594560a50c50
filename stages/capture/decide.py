"""Decide block by block what of an examined batch the vault needs: pure.

zero -> into a zero run, unless known as zero; digest as known -> skipped; equal to a block of this
scan -> a reference; else -> content.
"""

from __future__ import annotations

import numpy as np

from stages.capture.dedup import Backlog, DedupTable
from stages.capture.examiner import Examined
from stages.capture.known import Known
from stages.digests import same
from stages.model import (
    BLOCK,
    CHUNK_BLOCKS,
    U8,
    U64,
    Batch,
    Bools,
    Ints,
    Loan,
    Payload,
    Rows,
    Runs,
    blocks_of,
    pack_block,
)

LENT = 2 << 20  # bytes of content from which a batch is not copied out of its slot


class Decider:
    """Decides the batches of one scan, in stream order. ``dedup_bytes`` 0: no references.

    ``lend``: the payload of a batch of much content is ``Rows`` of the slot. A batch of little has
    a copy, because many of those are held back until they make up a segment.
    """

    def __init__(self, known: Known, dedup_bytes: int, *, lend: bool = False):
        self._known = known
        self._lend = lend
        self._table = DedupTable(dedup_bytes) if dedup_bytes else None
        self._backlog = Backlog(self._table.capacity if self._table else 0)

    def unchanged(self, disk: int, found: Examined) -> None:
        """A batch without a changed chunk: nothing to send, its blocks can be referred to."""
        if self._table is not None:
            self._backlog.add(disk, found.first_chunk * CHUNK_BLOCKS, blocks_of(found.length))

    def decide(self, disk: int, found: Examined) -> Batch | None:
        """What the vault needs of a batch with changed chunks; None if nothing after all.

        Reads known digests: run it in Offload. The slot can be released, unless the payload is
        ``Rows``: then when its loan ends.
        """
        changed = ~same(found.chunks, found.known)
        whole = blocks_of(found.length) // CHUNK_BLOCKS
        changed[whole:] = True  # a last chunk of fewer blocks has no digest of its own
        low, high = _span(changed)
        first = found.first_chunk * CHUNK_BLOCKS
        at, end = low * CHUNK_BLOCKS, min(high * CHUNK_BLOCKS, blocks_of(found.length))
        seen = found.blocks[at:end]
        looked = np.repeat(changed[low:high], CHUNK_BLOCKS)[: end - at]
        fresh = looked & ~same(seen, self._known.blocks(disk, first + at, end - at))
        live = seen[:, 0] != 0
        data, refs, targets = self._divide(disk, first + at, seen, looked & live, fresh)
        self._note_unchanged(disk, found.first_chunk, changed)  # after: no reference goes forward
        zero = np.flatnonzero(fresh & ~live)
        if not (len(data) or len(refs) or len(zero) or low < whole):
            return None
        return Batch(
            disk=disk,
            data=_numbers(data, first + at),
            payload=self._payload(found.content[at:end], data),
            digests=seen[data],
            zero=Runs.of(_numbers(zero, first + at)),
            refs=np.column_stack((_numbers(refs, first + at), targets)),
            ref_digests=seen[refs],
            chunk_first=found.first_chunk + low,
            chunk_digests=found.chunks[low:high].copy(),
            scanned=found.length,
        )

    def _payload(self, content: U8, at: Ints) -> Payload:
        """Rows ``at`` of (n, 4096)."""
        if self._lend and len(at) * BLOCK >= LENT:
            return Rows(content, at, Loan())
        return np.take(content, at, axis=0)

    def _divide(
        self, disk: int, first: int, seen: U64, candidates: Bools, fresh: Bools
    ) -> tuple[Ints, Ints, U64]:
        """Of the non-zero blocks: which go as content, which as references, and to what."""
        wanted = candidates & fresh
        if self._table is None or not wanted.any():
            self._remember(disk, first, seen, candidates)
            return np.flatnonzero(wanted), np.empty(0, np.int64), np.empty(0, np.uint64)
        self._index_backlog(self._table)
        at = np.flatnonzero(candidates)
        packed = pack_block(disk, _numbers(at, first))
        double, target = self._table.resolve(seen[at], packed, fresh[at])
        return at[fresh[at] & ~double], at[double], target[double]

    def _remember(self, disk: int, first: int, seen: U64, candidates: Bools) -> None:
        at = np.flatnonzero(candidates)
        if self._table is not None and len(at):
            self._table.insert(seen[at], pack_block(disk, _numbers(at, first)))

    def _note_unchanged(self, disk: int, first_chunk: int, changed: Bools) -> None:
        if self._table is None:
            return
        runs = Runs.of(np.flatnonzero(~changed).astype(np.uint64))
        for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
            self._backlog.add(disk, (first_chunk + start) * CHUNK_BLOCKS, count * CHUNK_BLOCKS)

    def _index_backlog(self, table: DedupTable) -> None:
        for disk, first, count in self._backlog.take():
            digests = self._known.blocks(disk, first, count)
            real = np.flatnonzero(digests[:, 0] != 0)
            table.insert(digests[real], pack_block(disk, _numbers(real, first)))


def _span(changed: Bools) -> tuple[int, int]:
    found = np.flatnonzero(changed)
    return int(found[0]), int(found[-1]) + 1


def _numbers(at: Ints, first: int) -> U64:
    return at.astype(np.uint64) + np.uint64(first)
