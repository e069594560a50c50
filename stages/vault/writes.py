"""Bodies of many commits as one table of writes, in the order in which they apply.

For commits of data and short zero runs, nearly all there are; the others are ``Odd`` and folded
one by one. ``fold.steps`` is what this has to agree with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import zstandard

from stages.crypto.aead import OpenFailed
from stages.errors import DamagedObject
from stages.model import BLOCK_BITS, FRAME_BLOCKS, MAX_DISKS, U32, U64, Ints, Runs
from stages.vault import location
from stages.vault.commit import FORMAT, MAX_PARTS, MAX_SEGMENT_BLOCKS, MAX_SEGMENTS
from stages.vault.container import Kind
from stages.vault.heads import Heads, Odd
from stages.vault.sealing import MAX_PLAIN, EpochKeys, Scope, body_aad, expand

LONGEST_ZERO = 4096  # blocks of a zero run that is written block by block
MOST_BLOCKS = 1 << 21  # in one table: eight columns of them are held for a moment


@dataclass(frozen=True, slots=True)
class Writes:
    """Blocks (n,) of disks (n,) take locations (n,); of two of one block the later counts."""

    disk: U64
    block: U64
    location: U64

    def of_disk(self, disk: int) -> tuple[U64, U64]:
        """Blocks and locations of one disk."""
        here = self.disk == np.uint64(disk)
        return (
            (self.block, self.location) if here.all() else (self.block[here], self.location[here])
        )


@dataclass
class _Flat:
    """Tables of all segments, still as bytes. ``runs``: one for each part's data and zeros.

    ``chunks``: of each of ``runs`` disk, runs, segment, and 1 for zeros. ``segments``: of each row
    of the commit, number of frames. Segments are numbered through.
    """

    spans: list[bytes] = field(default_factory=list)
    runs: list[bytes] = field(default_factory=list)
    chunks: list[tuple[int, int, int, int]] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)


def read_writes(heads: Heads, scope: Scope, keys: Mapping[int, EpochKeys]) -> Writes:
    """The writes of all commits of ``heads``; ``keys`` of all their epochs. Raises ``Odd``.

    Whether the blocks lie on the disks is for the caller to check.
    """
    flat, tool = _Flat(), zstandard.ZstdDecompressor()
    objects = heads.objects_of().tolist()
    for row, (seq, epoch) in enumerate(heads.numbers[:, :2].tolist()):
        plain = _open(heads.body(row), scope, keys[epoch], seq, tool)
        try:
            _flatten(flat, plain, row, objects[row])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Odd(str(error)) from None
    return _writes(heads, flat)


def _open(
    body: bytes, scope: Scope, keys: EpochKeys, seq: int, tool: zstandard.ZstdDecompressor
) -> bytes:
    try:
        packed = scope.cipher.open(keys.index, body, body_aad(scope, Kind.COMMIT, keys.epoch, seq))
    except OpenFailed:
        raise Odd("does not open") from None
    try:
        return expand(packed, MAX_PLAIN, str(seq), tool)
    except DamagedObject as error:
        raise Odd(error.message) from None


def _flatten(flat: _Flat, plain: bytes, row: int, objects: int) -> None:
    body = msgpack.unpackb(plain, raw=False, strict_map_key=True, use_list=True)
    segments = body["segments"]
    if type(body["format"]) is not int or body["format"] != FORMAT or len(segments) > MAX_SEGMENTS:
        raise Odd("a body of another kind")
    for segment in segments:
        source, spans, parts = segment["source"], segment["spans"], segment["parts"]
        if type(source) is not int or not 0 <= source <= objects or len(parts) > MAX_PARTS:
            raise Odd("a segment out of bounds")
        if type(spans) is not bytes or len(spans) % 12:
            raise Odd("spans of another length")
        number = len(flat.segments)
        flat.segments.append((row, len(spans) // 12))
        flat.spans.append(spans)
        for part in parts:
            _flatten_part(flat, part, number)


def _flatten_part(flat: _Flat, part: Any, segment: int) -> None:
    disk, refs = part["disk"], part["refs"]
    if type(disk) is not int or not 0 <= disk < MAX_DISKS or refs != b"":
        raise Odd("references, or no disk")
    for zero, runs in enumerate((part["data"], part["zero"])):
        if type(runs) is not bytes or len(runs) % 16:
            raise Odd("runs of another length")
        if runs:
            flat.runs.append(runs)
            flat.chunks.append((disk, len(runs) // 16, segment, zero))


def _writes(heads: Heads, flat: _Flat) -> Writes:
    segments = np.array(flat.segments, np.int64).reshape(-1, 2)
    spans = np.frombuffer(b"".join(flat.spans), "<u4").reshape(-1, 3)
    of_row = np.bincount(segments[:, 0], segments[:, 1], len(heads)).astype(np.int64)
    if (of_row != heads.frames).any() or (spans[:, 1:] == 0).any():
        raise Odd("frames of body and header differ")
    if (spans[:, 2] > FRAME_BLOCKS).any():
        raise Odd("frame sizes out of bounds")
    chunks = np.array(flat.chunks, np.int64).reshape(-1, 4)
    pairs = np.frombuffer(b"".join(flat.runs), "<u8").reshape(-1, 2)
    runs = Runs(pairs[:, 0], pairs[:, 1])
    totals = _totals(runs, chunks)
    if int(totals.sum()) > MOST_BLOCKS:
        raise Odd("many blocks")
    zero = chunks[:, 3] == 1
    held = np.bincount(chunks[~zero, 2], totals[~zero], len(segments)).astype(np.int64)
    which = np.repeat(np.arange(len(segments)), segments[:, 1])
    if (held != np.bincount(which, spans[:, 2], len(segments)).astype(np.int64)).any():
        raise Odd("a segment's index does not match its frames")
    if len(held) and held.max() > MAX_SEGMENT_BLOCKS:
        raise Odd("a segment of too many blocks")
    located = np.full(int(totals.sum()), location.ZERO, np.uint64)
    located[np.repeat(~zero, totals)] = _locations(heads, of_row, spans)
    return Writes(np.repeat(chunks[:, 0].astype(np.uint64), totals), runs.blocks(), located)


def _totals(runs: Runs, chunks: Ints) -> Ints:
    """Blocks of each chunk. Raises ``Odd`` if a run is out of bounds, or long and zero."""
    if not len(runs.start):
        return np.zeros(0, np.int64)
    longest = np.where(np.repeat(chunks[:, 3], chunks[:, 1]) == 1, LONGEST_ZERO, MAX_SEGMENT_BLOCKS)
    if int(runs.start.max()) >> BLOCK_BITS or not runs.count.all():
        raise Odd("a run out of bounds")
    if (runs.count > longest.astype(np.uint64)).any():
        raise Odd("a long run")
    heads = np.cumsum(chunks[:, 1]) - chunks[:, 1]
    return np.add.reduceat(runs.count, heads).astype(np.int64)


def _locations(heads: Heads, frames: Ints, spans: U32) -> U64:
    """Of all blocks of all frames, in order; ``frames`` of each commit."""
    total = int(frames.sum())
    within = np.arange(total) - np.repeat(np.cumsum(frames) - frames, frames)
    base = np.repeat(
        (heads.epoch.astype(np.uint64) << np.uint64(32)) + heads.first_frame.astype(np.uint64),
        frames,
    ) + within.astype(np.uint64)
    blocks = spans[:, 2].astype(np.int64)
    first = np.cumsum(blocks) - blocks
    slot = np.arange(int(blocks.sum())) - np.repeat(first, blocks)
    located: U64 = (np.repeat(base, blocks) << np.uint64(8)) | slot.astype(np.uint64)
    return located
