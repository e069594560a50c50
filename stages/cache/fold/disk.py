"""What a segment collects of one disk, and the last version of each of its blocks: pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages.cache.fold.intervals import covered, difference
from stages.digests import DigestKeys, block_digests, live_blocks
from stages.model import (
    BLOCK,
    CHUNK_BLOCKS,
    U8,
    U64,
    UNKNOWN,
    Batch,
    Bools,
    Ints,
    Runs,
    distinct,
    empty_pairs,
    empty_u64,
)


@dataclass(frozen=True, slots=True)
class _Content:
    """Blocks (n,) in stream order with their content in ``source``, at ``places`` (n,) bytes.

    ``digests`` (n, 2), unknown where they are still to be computed. ``turn`` counts along the
    stream.
    """

    turn: int
    blocks: U64
    source: memoryview
    places: Ints
    digests: U64


@dataclass(frozen=True, slots=True)
class _Zero:
    """Blocks that became zero: ascending, disjoint."""

    turn: int
    runs: Runs


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Digests (k, 2) of whole chunks as a scan has seen them."""

    first: int
    digests: U64
    scanned: int


@dataclass
class DiskFold:
    """Collects; ``fold`` gives one batch. ``number`` is the vault's."""

    number: int
    content: list[_Content] = field(default_factory=list)
    zero: list[_Zero] = field(default_factory=list)
    chunks: list[_Chunks] = field(default_factory=list)
    written: list[U64] = field(default_factory=list)  # chunks that guests wrote content to
    trimmed: list[Runs] = field(default_factory=list)  # what guests made zero
    turn: int = 0
    blocks: int = 0  # of content collected

    def write(self, blocks: U64, source: memoryview, places: Ints) -> None:
        """A guest wrote: content in stream order; a block may occur twice."""
        self.turn += 1
        self.blocks += len(blocks)
        unknown = np.zeros((len(blocks), 2), np.uint64)
        self.content.append(_Content(self.turn, blocks, source, places, unknown))
        self.written.append(distinct(blocks // np.uint64(CHUNK_BLOCKS)))

    def scan(self, blocks: U64, source: memoryview, places: Ints, digests: U64) -> None:
        """A scan found content."""
        self.turn += 1
        self.blocks += len(blocks)
        self.content.append(_Content(self.turn, blocks, source, places, digests))

    def clear(self, runs: Runs, *, scan: bool) -> None:
        """Blocks became zero."""
        self.turn += 1
        self.zero.append(_Zero(self.turn, runs))
        if not scan:
            self.trimmed.append(runs)

    def saw_chunks(self, first: int, digests: U64, scanned: int) -> None:
        """A scan has seen these chunks whole."""
        self.chunks.append(_Chunks(first, digests, scanned))

    def compact(self) -> None:
        """Keep only the last version of each block, in memory of its own."""
        if not self.content:
            return
        kept, blocks = self._last()
        content = self._gather(kept)
        digests = np.concatenate([part.digests for part in self.content])[kept]
        turns = np.repeat(
            [part.turn for part in self.content], [len(part.blocks) for part in self.content]
        )[kept]
        # One part must have one turn: what was written before a later zero run is gone already,
        # so nothing is between the oldest and the newest of them that matters.
        places = np.arange(len(blocks), dtype=np.int64) * BLOCK
        self._drop_cleared(blocks)
        newest = int(turns.max(initial=0))
        self.content = [_Content(newest, blocks, content.reshape(-1).data, places, digests)]
        self.blocks = len(blocks)

    def fold(self, keys: DigestKeys) -> Batch | None:
        """The last version of every block, as a batch; None if nothing was collected."""
        if not self.turn:
            return None
        kept, blocks = self._last()
        content = self._gather(kept)
        alive = live_blocks(content.view(np.uint64)) if len(content) else np.zeros(0, np.bool_)
        digests = self._digests(kept, content, alive, keys)
        cleared = [part.runs for part in self.zero]
        emptied = Runs.of(blocks[~alive])
        every = Runs(
            np.concatenate([empty_u64(), emptied.start, *(runs.start for runs in cleared)]),
            np.concatenate([empty_u64(), emptied.count, *(runs.count for runs in cleared)]),
        )
        if not alive.all():
            blocks, content, digests = blocks[alive], content[alive], digests[alive]
        first, chunk_digests = self._chunk_digests()
        return Batch(
            disk=self.number,
            data=blocks,
            payload=content,
            digests=digests,
            zero=difference(every, Runs.of(blocks)),
            refs=empty_pairs(),
            ref_digests=empty_pairs(),
            chunk_first=first,
            chunk_digests=chunk_digests,
            scanned=sum(part.scanned for part in self.chunks),
        )

    def _last(self) -> tuple[Ints, U64]:
        """Indexes into the joined content of the versions that count, and their blocks."""
        if not self.content:
            return np.zeros(0, np.int64), empty_u64()
        joined = np.concatenate([part.blocks for part in self.content])
        blocks, back = np.unique(joined[::-1], return_index=True)
        kept = len(joined) - 1 - back.astype(np.int64)
        if self.zero:
            turns = np.repeat(
                [part.turn for part in self.content], [len(part.blocks) for part in self.content]
            )
            dead = self._cleared_later(blocks, turns[kept])
            kept, blocks = kept[~dead], blocks[~dead]
        return kept, blocks

    def _cleared_later(self, blocks: U64, turns: Ints) -> Bools:
        dead = np.zeros(len(blocks), np.bool_)
        for part in self.zero:
            older = turns < part.turn
            if older.any():
                dead |= older & covered(blocks, part.runs)
        return dead

    def _drop_cleared(self, blocks: U64) -> None:
        """Zero runs keep their turns, but no longer reach what was written after them."""
        after = Runs.of(blocks)
        self.zero = [_Zero(part.turn, difference(part.runs, after)) for part in self.zero]

    def _gather(self, kept: Ints) -> U8:
        """Content (n, 4096) of the versions that count: the one copy."""
        out = np.empty((len(kept), BLOCK), np.uint8)
        end = 0
        for part in self.content:
            begin, end = end, end + len(part.blocks)
            mine = np.flatnonzero((kept >= begin) & (kept < end))
            if len(mine):
                flat = np.frombuffer(part.source, np.uint8)
                windows = np.lib.stride_tricks.sliding_window_view(flat, BLOCK)
                out[mine] = windows[part.places[kept[mine] - begin]]
        return out

    def _digests(self, kept: Ints, content: U8, alive: Bools, keys: DigestKeys) -> U64:
        if not len(kept):
            return empty_pairs()
        digests = np.concatenate([part.digests for part in self.content])[kept]
        missing = np.flatnonzero((digests[:, 0] == 0) & alive)
        if len(missing):
            view = content.reshape(-1).data
            digests[missing] = block_digests(view, missing.tolist(), keys)
        return digests

    def _chunk_digests(self) -> tuple[int, U64]:
        """One stretch over all chunks scanned; unknown where a guest wrote as well, or between."""
        if not self.chunks:
            return 0, empty_pairs()
        first = min(part.first for part in self.chunks)
        stop = max(part.first + len(part.digests) for part in self.chunks)
        if stop - first > _MOST_CHUNKS:  # far apart: not worth a stretch
            return 0, empty_pairs()
        found = np.tile(np.array(UNKNOWN, np.uint64), (stop - first, 1))
        for part in self.chunks:
            found[part.first - first : part.first - first + len(part.digests)] = part.digests
        touched = np.concatenate([empty_u64(), *self.written]).astype(np.int64) - first
        found[touched[(touched >= 0) & (touched < len(found))]] = UNKNOWN
        for runs in self.trimmed:
            for low, count in zip(runs.start, runs.count, strict=True):
                begin = int(low) // CHUNK_BLOCKS - first
                end = -(-int(low + count) // CHUNK_BLOCKS) - first
                found[max(0, begin) : max(0, end)] = UNKNOWN
        return first, found


_MOST_CHUNKS = 1 << 20
