"""Read one batch of a disk and say what differs from what is known: pure but for the reads.

Only data extents are read, in pieces that are hashed while they are still in the processor's
caches. Where content is known, a piece is read into a scratch buffer that stays there, and only
the chunks that differ are copied to the slot and hashed block by block: an unchanged disk costs a
read, a hash per 64 KiB, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stages.capture.slots import Slot
from stages.digests import (
    DigestKeys,
    as_pairs,
    block_digests,
    live_blocks,
    raw_chunk_digests,
    same,
    zero_chunks,
)
from stages.model import (
    BLOCK,
    CHUNK,
    CHUNK_BLOCKS,
    U64,
    UNKNOWN,
    ZERO,
    Bools,
    blocks_of,
    chunks_of,
)

READ = 512 << 10  # bytes of a piece, and of a scratch buffer

_PIECE = READ // CHUNK


class Readable(Protocol):
    """What of ``OpenFile`` an examiner needs."""

    def pread_into(self, offset: int, target: memoryview) -> int:
        """Fill ``target``; short only at the end of the file."""

    def next_data(self, offset: int) -> int | None:
        """First offset that may hold data; None if only holes follow."""

    def next_hole(self, offset: int) -> int:
        """First offset in a hole, or the size."""


class ReadFailed(Exception):
    """The disk cannot be read at byte ``offset``; ``code`` is the errno, 0 if the disk ends there.

    Examiners turn it into ``SourceIO`` or ``SourceShrunk``, which name the disk.
    """

    def __init__(self, offset: int, code: int):
        super().__init__(f"errno {code} at {offset}")
        self.offset = offset
        self.code = code


@dataclass(frozen=True, slots=True)
class Outcome:
    """``changed``: chunks whose blocks must be compared one by one; ``read``: bytes read."""

    changed: int
    read: int


@dataclass(frozen=True, slots=True)
class Work:
    """What an examination works with: ``scratch`` has ``READ`` bytes and is used by one at a time.

    ``whole`` chunks of the batch have all their blocks, and so digests of their own.
    """

    slot: Slot
    words: U64  # (c, 16, 512), the slot's content
    scratch: memoryview
    keys: DigestKeys
    whole: int


def examine(
    file: Readable, offset: int, length: int, slot: Slot, scratch: memoryview, keys: DigestKeys
) -> Outcome:
    """Examine ``length`` bytes (cut only at the disk's end) from ``offset``, a chunk's start.

    In: ``slot.known``. Out: ``slot.chunks``, the digests as seen, ``unknown`` for a last chunk of
    fewer than 16 blocks, which is always compared block by block; and, only for chunks that differ
    from what is known, ``slot.blocks`` and (where that is not zero) ``slot.content``.
    """
    blocks, chunks = blocks_of(length), chunks_of(length)
    whole = blocks // CHUNK_BLOCKS
    words = slot.content.view(np.uint64).reshape(-1, CHUNK_BLOCKS, BLOCK // 8)
    work = Work(slot, words, scratch, keys, whole)
    slot.chunks[:whole] = ZERO
    slot.chunks[whole:chunks] = UNKNOWN
    slot.blocks[:blocks] = ZERO
    unsure = slot.known[:chunks, 0] == 0  # zero or unknown
    unsure[whole:] = True
    read = 0
    for first, stop in _data_pieces(file, offset, length):
        start, end = first * CHUNK, stop * CHUNK
        new = bool(unsure[first:stop].any())
        target = slot.memory[start:end] if new else scratch[: end - start]
        read += _fill(file, offset + start, target, min(end, length) - start)
        (_digest_new if new else _digest_known)(work, first, stop)
    differ = ~same(slot.chunks[:whole], slot.known[:whole])
    return Outcome(int(np.count_nonzero(differ)) + chunks - whole, read)


def _data_pieces(file: Readable, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Ranges of chunks of the batch that touch data, at most ``READ`` bytes each."""
    at, end = 0, offset + length
    while at * CHUNK < length:
        start = offset + at * CHUNK
        try:
            data = file.next_data(start)
            hole = 0 if data is None else file.next_hole(data)
        except OSError as error:
            raise ReadFailed(start, error.errno or 0) from error
        if data is None or data >= end:
            return
        at = max(at, (data - offset) // CHUNK)
        stop = max(at + 1, chunks_of(min(hole, end) - offset))
        for first in range(at, stop, _PIECE):
            yield first, min(first + _PIECE, stop)
        at = stop


def _fill(file: Readable, offset: int, target: memoryview, size: int) -> int:
    """Read ``size`` bytes into ``target``, pad the rest of it with zeros."""
    try:
        got = file.pread_into(offset, target[:size])
    except OSError as error:
        raise ReadFailed(offset, error.errno or 0) from error
    if got < size:
        raise ReadFailed(offset + got, 0)
    if size < len(target):
        target[size:] = bytes(len(target) - size)
    return got


def _digest_known(work: Work, first: int, stop: int) -> None:
    """A piece in the scratch buffer: whole chunks that all have a known digest, none of it zero."""
    slot = work.slot
    raw = raw_chunk_digests(work.scratch, range(stop - first), work.keys)
    if raw == slot.known[first:stop].tobytes():
        slot.chunks[first:stop] = slot.known[first:stop]
        return
    seen = as_pairs(raw)
    slot.chunks[first:stop] = seen
    differ = ~same(seen, slot.known[first:stop])
    for at in np.flatnonzero(differ).tolist():
        start = (first + at) * CHUNK
        slot.memory[start : start + CHUNK] = work.scratch[at * CHUNK : (at + 1) * CHUNK]
    _digest_blocks(work, first, differ)


def _digest_new(work: Work, first: int, stop: int) -> None:
    """A piece in the slot, of which something is not known, or known to be zero."""
    slot = work.slot
    whole = min(stop, work.whole)
    live = np.flatnonzero(~zero_chunks(work.words[first:whole])) + first
    slot.chunks[live] = as_pairs(raw_chunk_digests(slot.memory, live.tolist(), work.keys))
    differ = ~same(slot.chunks[first:stop], slot.known[first:stop])
    differ[whole - first :] = True
    _digest_blocks(work, first, differ)


def _digest_blocks(work: Work, first: int, differ: Bools) -> None:
    """Digest the non-zero blocks of the chunks ``first`` + where ``differ`` (n,) says so."""
    slot = work.slot
    alive = live_blocks(work.words[first : first + len(differ)]) & differ[:, np.newaxis]
    emptied = np.flatnonzero(differ & ~alive.any(axis=1)) + first
    slot.chunks[emptied[emptied < work.whole]] = ZERO
    found = np.flatnonzero(alive) + first * CHUNK_BLOCKS
    slot.blocks[found] = block_digests(slot.memory, found.tolist(), work.keys)
