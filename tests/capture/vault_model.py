"""A vault as it should be: applies a stream to bytearrays, and knows the digests of it.

Written plainly, block by block, with checks of everything a batch promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from stages.model import (
    BLOCK,
    BLOCK_BITS,
    CHUNK,
    CHUNK_BLOCKS,
    U64,
    UNKNOWN,
    ZERO,
    Batch,
    Disk,
    GapBegin,
    GapEnd,
    StreamItem,
    blocks_of,
    chunks_of,
)

GROUP_KEY = bytes(range(32))
Pair = tuple[int, int]


def digest_of(content: bytes, kind: str) -> Pair:
    """Spelled out once more, on purpose."""
    if not any(content):
        return ZERO
    key = blake3(GROUP_KEY, derive_key_context=f"Backstay 1 digest of a {kind}").digest()
    found = blake3(content, key=key).digest()
    low, high = int.from_bytes(found[:8], "little"), int.from_bytes(found[8:16], "little")
    return low or 1, high


def block_digest(content: bytes) -> Pair:
    return digest_of(content, "4 KiB block")


def chunk_digest(content: bytes) -> Pair:
    return digest_of(content, "64 KiB chunk")


@dataclass
class Kept:
    """One disk in the vault."""

    content: bytearray
    blocks: U64
    chunks: U64

    @staticmethod
    def empty(size: int) -> Kept:
        blocks = np.zeros((blocks_of(size), 2), np.uint64)
        return Kept(
            bytearray(len(blocks) * BLOCK), blocks, np.zeros((chunks_of(size), 2), np.uint64)
        )


@dataclass
class Sent:
    """What one scan sent."""

    batches: list[Batch] = field(default_factory=list)
    data: set[tuple[int, int]] = field(default_factory=set)
    zero: set[tuple[int, int]] = field(default_factory=set)
    refs: set[tuple[int, int]] = field(default_factory=set)
    grade: str = ""

    @property
    def changed(self) -> set[tuple[int, int]]:
        return self.data | self.zero | self.refs


class VaultModel:
    """The vault, and the ``Known`` of a scan against it."""

    def __init__(self, disks: Iterable[Disk]):
        self.disks = {disk.number: Kept.empty(disk.size) for disk in disks}

    def blocks(self, disk: int, first: int, count: int) -> U64:
        found = self.disks[disk].blocks[first : first + count]
        assert len(found) == count
        return found

    def chunks(self, disk: int, first: int, count: int) -> U64:
        found = self.disks[disk].chunks[first : first + count]
        assert len(found) == count
        return found

    def forget_blocks(self, disk: int, blocks: Iterable[int]) -> None:
        for block in blocks:
            self.disks[disk].blocks[block] = UNKNOWN
            self.disks[disk].chunks[block // CHUNK_BLOCKS] = UNKNOWN

    def apply(self, items: list[StreamItem]) -> Sent:
        """A whole scan."""
        begin, *batches, end = items
        assert isinstance(begin, GapBegin)
        assert begin.reason == "scan"
        assert isinstance(end, GapEnd)
        sent = Sent(grade=end.grade)
        place: tuple[int, int] = (0, -1)
        for batch in batches:
            assert isinstance(batch, Batch)
            place = self._apply(batch, sent, place)
            sent.batches.append(batch)
        return sent

    def _apply(self, batch: Batch, sent: Sent, place: tuple[int, int]) -> tuple[int, int]:
        kept, disk = self.disks[batch.disk], batch.disk
        data, zero = batch.data.tolist(), batch.zero.blocks().tolist()
        refs = batch.refs.tolist()
        for column in (data, zero, [block for block, _ in refs]):
            assert column == sorted(set(column)), "ascending, each once"
        touched = [*data, *zero, *(block for block, _ in refs)]
        assert len(set(touched)) == len(touched), "disjoint"
        if touched:
            assert place < (disk, min(touched)), "stream order"
            place = (disk, max(touched))
        assert batch.scanned > 0
        payload = np.asarray(batch.payload)
        assert payload.shape == (len(data), BLOCK)
        for row, block in enumerate(data):
            self._write(kept, block, payload[row].tobytes(), tuple(batch.digests[row]))
        for block in zero:
            self._write(kept, block, bytes(BLOCK), ZERO)
        sent.data |= {(disk, block) for block in data}
        sent.zero |= {(disk, block) for block in zero}
        for (block, packed), digest in zip(refs, batch.ref_digests.tolist(), strict=True):
            target = packed >> BLOCK_BITS, packed & ((1 << BLOCK_BITS) - 1)
            assert target < (disk, block), "a reference points back"
            assert target not in sent.refs, "never to a reference"
            assert target not in sent.zero
            source = self.disks[target[0]].content
            content = bytes(source[target[1] * BLOCK : (target[1] + 1) * BLOCK])
            self._write(kept, block, content, tuple(digest))
            sent.refs.add((disk, block))
        self._note_chunks(kept, batch, touched)
        return place

    @staticmethod
    def _write(kept: Kept, block: int, content: bytes, digest: tuple[int, ...]) -> None:
        assert digest == block_digest(content)
        kept.content[block * BLOCK : (block + 1) * BLOCK] = content
        kept.blocks[block] = digest

    @staticmethod
    def _note_chunks(kept: Kept, batch: Batch, touched: list[int]) -> None:
        for block in touched:
            kept.chunks[block // CHUNK_BLOCKS] = UNKNOWN
        for start, count in zip(batch.zero.start.tolist(), batch.zero.count.tolist(), strict=True):
            first, last = -(-start // CHUNK_BLOCKS), (start + count) // CHUNK_BLOCKS
            kept.chunks[first : max(first, last)] = ZERO
        for at, digest in enumerate(batch.chunk_digests.tolist(), batch.chunk_first):
            if tuple(digest) != UNKNOWN:
                content = bytes(kept.content[at * CHUNK : (at + 1) * CHUNK])
                assert len(content) == CHUNK, "only whole chunks have digests"
                assert tuple(digest) == chunk_digest(content), "of what the vault holds now"
            kept.chunks[at] = digest

    def check(self) -> None:
        """Every digest says what is there, and no whole chunk is left unknown."""
        for kept in self.disks.values():
            for at, digest in enumerate(kept.blocks.tolist()):
                content = bytes(kept.content[at * BLOCK : (at + 1) * BLOCK])
                assert tuple(digest) == block_digest(content)
            for at in range(len(kept.blocks) // CHUNK_BLOCKS):
                content = bytes(kept.content[at * CHUNK : (at + 1) * CHUNK])
                assert tuple(kept.chunks[at].tolist()) == chunk_digest(content)
