"""What a scan's record carries beside its rows: digests it has computed already. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from stages.errors import StateDamaged
from stages.model import U64, chunks_of

_HEAD = struct.Struct("<IIQQ")  # digests, chunk digests, first chunk, bytes scanned
_MOST_CHUNKS = chunks_of(64 << 20)
_PAIR = 16


@dataclass(frozen=True, slots=True)
class ScanExtra:
    """``digests`` (n, 2) of the content blocks in the order of the rows; ``chunk_digests`` (k, 2)
    from ``chunk_first``; ``scanned`` bytes of disk stand behind the record."""

    digests: U64
    chunk_first: int
    chunk_digests: U64
    scanned: int


def encode(extra: ScanExtra) -> bytes:
    """As a record's ``extra``."""
    head = _HEAD.pack(
        len(extra.digests), len(extra.chunk_digests), extra.chunk_first, extra.scanned
    )
    digests = np.ascontiguousarray(extra.digests, "<u8").tobytes()
    return head + digests + np.ascontiguousarray(extra.chunk_digests, "<u8").tobytes()


def decode(data: memoryview, content_blocks: int) -> ScanExtra:
    """Undo ``encode`` for a record of ``content_blocks``. Raises ``StateDamaged``."""
    if len(data) < _HEAD.size:
        raise _wrong()
    count, chunks, first, scanned = _HEAD.unpack_from(data)
    if count != content_blocks or chunks > _MOST_CHUNKS:
        raise _wrong()
    if len(data) != _HEAD.size + _PAIR * (count + chunks):
        raise _wrong()
    pairs = np.frombuffer(data[_HEAD.size :], "<u8").astype(np.uint64).reshape(-1, 2)
    return ScanExtra(pairs[:count], first, pairs[count:], scanned)


def _wrong() -> StateDamaged:
    return StateDamaged("a scan's record does not fit its blocks", operation="read journal")
