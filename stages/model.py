"""Geometry, and the frozen records that cross stages.

A **block** is 4 KiB. A **unit** of a disk is one block number; inside a group a block is named by
a disk number and a block number, packed into 64 bits (``pack_block``). A **chunk** is 16 blocks
(64 KiB): digests exist for both, the chunk's is a cache above the blocks'.

Digests are 128 bits, held as two ``uint64`` columns. ``(0, 0)`` is *unknown*, ``(0, 1)`` is *zero*
(R3, R7); a real digest never has a first half of 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

BLOCK = 4096
CHUNK_BLOCKS = 16
CHUNK = BLOCK * CHUNK_BLOCKS
FRAME_BLOCKS = 64
MAX_DISKS = 4096
MAX_DISK_BYTES = 1 << 56
BLOCK_BITS = 48  # a block number inside a disk

U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

UNKNOWN = (0, 0)
ZERO = (0, 1)


def blocks_of(size: int) -> int:
    """Blocks that hold ``size`` bytes; the last may be padded with zeros."""
    return -(-size // BLOCK)


def chunks_of(size: int) -> int:
    """Chunks that hold ``size`` bytes."""
    return -(-size // CHUNK)


def pack_block(disk: int, block: U64) -> U64:
    """Disk number in the top 16 bits, block number below."""
    return block | np.uint64(disk << BLOCK_BITS)


def distinct(values: U64) -> U64:
    """Values (n,) in ascending order, each once.

    ``np.unique`` does the same, but for that it loads all of ``numpy.ma``: 30 ms in every process.
    """
    ordered = values if (values[1:] > values[:-1]).all() else np.sort(values)
    if ordered is values or not len(values):
        return values
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def empty_u64() -> U64:
    """An empty column."""
    return np.empty(0, np.uint64)


def empty_pairs() -> U64:
    """An empty two-column array."""
    return np.empty((0, 2), np.uint64)


@dataclass(frozen=True, slots=True)
class Runs:
    """Blocks as runs: ``start`` and ``count``, both (n,) uint64, in the order they apply."""

    start: U64
    count: U64

    @staticmethod
    def of(blocks: U64) -> Runs:
        """Group ascending block numbers (n,) into maximal runs."""
        if not len(blocks):
            return Runs(empty_u64(), empty_u64())
        breaks = np.flatnonzero(np.diff(blocks) != 1) + 1
        first = np.concatenate(([0], breaks))
        last = np.concatenate((breaks, [len(blocks)]))
        return Runs(blocks[first], (last - first).astype(np.uint64))

    @staticmethod
    def none() -> Runs:
        """No runs."""
        return Runs(empty_u64(), empty_u64())

    @staticmethod
    def join(parts: list[Runs]) -> Runs:
        """One after the other; touching neighbours become one run."""
        parts = [part for part in parts if len(part.start)]
        if not parts:
            return Runs.none()
        start = np.concatenate([part.start for part in parts])
        count = np.concatenate([part.count for part in parts])
        head = np.concatenate(([True], start[1:] != start[:-1] + count[:-1]))
        return Runs(start[head], np.add.reduceat(count, np.flatnonzero(head)))

    def blocks(self) -> U64:
        """Expand to block numbers, in order."""
        total = int(self.count.sum())
        if not total:
            return empty_u64()
        ends = np.cumsum(self.count)
        step = np.ones(total, np.uint64)
        step[0] = self.start[0]
        if len(self.start) > 1:
            jumps = self.start[1:] - (self.start[:-1] + self.count[:-1] - np.uint64(1))
            step[ends[:-1]] = jumps
        return np.cumsum(step, dtype=np.uint64)

    @property
    def total(self) -> int:
        """Blocks in all runs."""
        return int(self.count.sum())


class Loan:
    """Whoever holds it may look at memory that is somebody else's; with the last holder it ends."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True)
class Rows:
    """Blocks ``at`` (n,) of ``content`` (m, 4096), not yet copied together; ``loan`` of both."""

    content: U8
    at: Ints
    loan: Loan

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.content, self.at[part], self.loan)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> U8:
        """A copy (n, 4096)."""
        return self.gather(np.empty((len(self.at), BLOCK), np.uint8))

    def gather(self, into: U8) -> U8:
        """Copy to ``into`` (n, 4096), and return that."""
        return np.take(self.content, self.at, axis=0, out=into, mode="clip")

    def together(self) -> U8 | None:
        """The blocks where they are (n, 4096), if they lie one after the other."""
        first, count = int(self.at[0]), len(self.at)
        return self.content[first : first + count] if self.at[-1] - first == count - 1 else None


Payload: TypeAlias = U8 | Rows


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a group as the vault knows it. ``number`` is never used again for another disk."""

    number: int
    name: str
    size: int  # bytes

    @property
    def blocks(self) -> int:
        """Blocks of the disk, the last one padded."""
        return blocks_of(self.size)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a scan or a turn of capture found on one disk, in ascending order of blocks.

    ``data`` (n,) uint64 block numbers; ``payload`` (n, 4096) uint8 or ``Rows``, their content;
    ``digests`` (n, 2) uint64. ``zero``: runs of blocks that are now zero. ``refs`` (m, 2) uint64:
    block number and packed block (disk and number) it equals at this position (R17);
    ``ref_digests`` (m, 2).
    ``chunk_first`` and ``chunk_digests`` (k, 2): digests of whole chunks as seen, unknown where
    a chunk must not be skipped next time. ``scanned`` is the count of disk bytes behind this batch.
    """

    disk: int
    data: U64
    payload: Payload
    digests: U64
    zero: Runs
    refs: U64
    ref_digests: U64
    chunk_first: int
    chunk_digests: U64
    scanned: int

    @property
    def payload_bytes(self) -> int:
        """Bytes of content carried."""
        return len(self.data) * BLOCK

    @property
    def empty(self) -> bool:
        """True if nothing of the vault's map changes."""
        return not len(self.data) and not len(self.zero.start) and not len(self.refs)


@dataclass(frozen=True, slots=True)
class GapBegin:
    """From here on the vault is not consistent (R8, R9)."""

    reason: str


@dataclass(frozen=True, slots=True)
class GapEnd:
    """The last scan is complete: the next commit is consistent, of point class ``grade``."""

    grade: str


@dataclass(frozen=True, slots=True)
class Geometry:
    """The machine record in force from here on: ``number`` of the record, its disks."""

    number: int
    disks: tuple[Disk, ...]


StreamItem: TypeAlias = Batch | GapBegin | GapEnd | Geometry


@dataclass(frozen=True, slots=True)
class Segment:
    """Batches folded for one object and commit: in one segment no block occurs twice.

    ``batches`` in stream order; the content of all of them in that order is cut into frames of
    ``FRAME_BLOCKS`` blocks. A segment ends at every mark: ``in_gap`` says that the stream is
    inside a gap, ``grade`` of which class the point is. It travels in pieces, so that its content
    need not be in memory at once; ``final`` marks the last, and only that may end in a part frame.
    """

    batches: tuple[Batch, ...]
    in_gap: bool
    grade: str
    geometry: int
    final: bool = True
    position: tuple[int, int] = (0, 0)
    stamp: int = 0
    mark: int = 0

    @property
    def payload_bytes(self) -> int:
        """Bytes of content carried."""
        return sum(batch.payload_bytes for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Frame:
    """Up to ``FRAME_BLOCKS`` blocks, compressed (codec 1) or not (codec 0), not yet sealed."""

    codec: int
    blocks: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PackedSegment:
    """A segment whose content is frames. ``segment`` keeps the indexes, its payload is dropped."""

    segment: Segment
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A segment ready to store: ``first_frame`` numbers its frames within ``epoch``.

    ``frames``: the sealed frames, header and all, in order; ``blocks``: how many blocks each holds.
    """

    segment: Segment
    epoch: int
    first_frame: int
    frames: tuple[bytes, ...]
    blocks: tuple[int, ...]

    @property
    def stored_bytes(self) -> int:
        """Bytes as stored."""
        return sum(len(frame) for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: bytes of disk scanned, changed, sent; of a total. Immutable snapshot."""

    total: int
    scanned: int
    changed: int
    stored: int
    commits: int
    seq: int
    extra: dict[str, Any] = field(default_factory=dict)
