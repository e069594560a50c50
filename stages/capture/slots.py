"""Slots: fixed pieces of memory in which one batch is read and examined.

A slot holds the content of a batch, the chunk digests that are known of it, and the digests found.
The same layout serves private memory (``InlineExaminer``) and memory shared with worker processes.
Worker processes import this: it must not import trio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, U8, U64

MAX_BATCH = 16 << 20
_PAIR = 16
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Slot:
    """Views of one slot of c chunks and n = 16 c blocks.

    ``memory`` and ``content`` (n, 4096) are the same bytes; ``known`` (c, 2) goes in, ``chunks``
    (c, 2) and ``blocks`` (n, 2) come out.
    """

    number: int
    memory: memoryview
    content: U8
    known: U64
    chunks: U64
    blocks: U64


@dataclass(frozen=True, slots=True)
class Layout:
    """``count`` slots of ``batch`` bytes of content, a multiple of the chunk of at most 16 MiB."""

    batch: int
    count: int

    def __post_init__(self) -> None:
        if self.batch % CHUNK or not CHUNK <= self.batch <= MAX_BATCH or self.count < 1:
            raise ValueError(f"{self.count} slots of {self.batch} bytes: not a layout")

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next: content, then known, chunks and blocks, page-aligned."""
        used = self.batch + self.batch // CHUNK * (2 + CHUNK_BLOCKS) * _PAIR
        return -(-used // _PAGE) * _PAGE

    @property
    def size(self) -> int:
        """Bytes of all slots."""
        return self.stride * self.count

    def carve(self, memory: memoryview) -> list[Slot]:
        """The slots in ``memory`` of ``size`` bytes."""
        return [self._slot(memory[at * self.stride :], at) for at in range(self.count)]

    def _slot(self, memory: memoryview, number: int) -> Slot:
        chunks = self.batch // CHUNK
        pairs = np.frombuffer(memory, np.uint64, chunks * (2 + CHUNK_BLOCKS) * 2, self.batch)
        pairs = pairs.reshape(-1, 2)
        content = np.frombuffer(memory, np.uint8, self.batch).reshape(-1, BLOCK)
        return Slot(
            number=number,
            memory=memory[: self.batch],
            content=content,
            known=pairs[:chunks],
            chunks=pairs[chunks : 2 * chunks],
            blocks=pairs[2 * chunks :],
        )
