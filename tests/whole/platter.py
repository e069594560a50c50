"""One file as programs see it and as the platter has it, and what is between the two."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import numpy as np

from stages.model import BLOCK, Bools

SECTOR = 512


@dataclass
class Node:
    """A file: ``data`` as programs see it, ``durable`` as the platter has it."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: cut to there
    sparse: bool = True  # its zero blocks count as holes
    changes: int = 0
    holder: object = None
    live: tuple[int, Bools] | None = None

    def write(self, offset: int, data: bytes) -> None:
        self.changes += 1
        self.pending.append((offset, data))
        _write(self.data, offset, data)

    def cut(self, size: int) -> None:
        self.changes += 1
        self.pending.append((size, None))
        _cut(self.data, size)

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def lose_power(self, dice: random.Random) -> None:
        fate = dice.choice(["all", "none", "some", "torn"])
        for offset, data in self.pending:
            if fate == "all" or (fate != "none" and dice.random() < 0.5):
                torn = fate == "torn" and data is not None
                for at, piece in _torn(offset, data or b"", dice) if torn else [(offset, data)]:
                    _apply(self.durable, at, piece)
        self.pending.clear()
        self.data = bytearray(self.durable)
        self.holder = None
        self.changes += 1

    def live_blocks(self) -> Bools:
        """Which blocks are data rather than a hole."""
        if self.live is None or self.live[0] != self.changes:
            padded = np.zeros(-(-len(self.data) // BLOCK) * BLOCK, np.uint8)
            padded[: len(self.data)] = np.frombuffer(self.data, np.uint8)
            words = padded.view(np.uint64).reshape(-1, BLOCK // 8)
            found = np.ones(len(words), np.bool_)
            if self.sparse:
                found[:] = words.any(axis=1)
            self.live = self.changes, found
        return self.live[1]


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        _cut(data, offset)
    else:
        _write(data, offset, piece)


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _cut(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _torn(offset: int, data: bytes, dice: random.Random) -> list[tuple[int, bytes]]:
    """Some sectors of a write."""
    end = offset + len(data)
    edges = [offset, *range(offset - offset % SECTOR + SECTOR, end, SECTOR), end]
    pieces = itertools.pairwise(edges)
    return [(a, data[a - offset : b - offset]) for a, b in pieces if dice.random() < 0.5]
