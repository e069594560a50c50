"""Which blocks of a disk an overlay holds: a bitmap in memory, and the small file that keeps it.

The file, all integers little-endian::

    0    8  magic "BKSTOVL1"
    8    4  block size in bytes
    12   8  size of the disk in bytes
    20   2  i: bytes of the base's identity (at most 1024)
    22   4  p: pages
    26   4  c: bytes of the compressed body
    30   i  identity, UTF-8
    ..   c  zstd of: p page numbers (u32), p pages of 4096 bytes, 1 bit a block, lowest bit first
    ..  32  BLAKE3 of everything before

A page that is not in the file is all absent. Every size is checked before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard

from stages.crypto.digest import SIZE as DIGEST
from stages.crypto.digest import digest
from stages.errors import StateDamaged, TargetError
from stages.model import BLOCK, U8, Bools, blocks_of

_MAGIC = b"BKSTOVL1"
_HEAD = struct.Struct("<8sIQHII")
_PAGE = 4096
_MAX_IDENTITY = 1024
_SEARCH = 64 << 10  # bytes of bitmap looked at together
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pages with any block, at one moment: (n,) uint32 numbers and (n, 4096) uint8 bits."""

    version: int
    numbers: np.ndarray[tuple[int], np.dtype[np.uint32]]
    pages: U8


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of bytes whose blocks are all present or all absent."""

    offset: int
    size: int
    present: bool


def touched(offset: int, length: int) -> tuple[int, int]:
    """The blocks that a range of bytes touches: first, and one past the last."""
    return offset // BLOCK, -(-(offset + length) // BLOCK)


class BlockMap:
    """One bit for each block of a disk of ``size`` bytes: 32 MiB a TiB, resident where used."""

    def __init__(self, size: int):
        self.size = size
        self.blocks = blocks_of(size)
        self.present = 0
        self.version = 0
        pages = max(1, -(-self.blocks // (_PAGE * 8)))
        self._bits: U8 = np.zeros(pages * _PAGE, np.uint8)
        self._touched: Bools = np.zeros(pages, np.bool_)

    @property
    def complete(self) -> bool:
        """Every block is in the overlay."""
        return self.present == self.blocks

    def presence(self, first: int, count: int) -> Bools:
        """(count,) whether each block is present."""
        low = first >> 3
        bits = np.unpackbits(self._bits[low : (first + count + 7) >> 3], bitorder="little")
        return bits[first - low * 8 :][:count].view(np.bool_)

    def runs(self, offset: int, length: int, most: int = 1 << 30) -> list[Run]:
        """The first ``most`` runs of a range of bytes."""
        first, stop = touched(offset, length)
        presence = self.presence(first, stop - first)
        turns = np.flatnonzero(presence[1:] != presence[:-1])[:most]
        bounds = ((turns + (first + 1)) * BLOCK).tolist()
        if len(bounds) < most:
            bounds.append(offset + length)
        found, at, present = [], offset, bool(presence[0])
        for bound in bounds:
            found.append(Run(at, bound - at, present))
            at, present = bound, not present
        return found

    def whole(self, offset: int, length: int) -> tuple[int, int]:
        """Blocks that lie in a range of bytes entirely; the disk's last one may be short."""
        end = offset + length
        stop = self.blocks if end == self.size else end // BLOCK
        return -(-offset // BLOCK), stop

    def mark(self, first: int, count: int) -> None:
        """Blocks are in the overlay from now on."""
        low, high = first >> 3, (first + count + 7) >> 3
        bits = np.unpackbits(self._bits[low:high], bitorder="little")
        part = bits[first - low * 8 :][:count]
        fresh = count - int(np.count_nonzero(part))
        if not fresh:
            return
        part[:] = 1
        self._bits[low:high] = np.packbits(bits, bitorder="little")
        self._touched[low // _PAGE : (high - 1) // _PAGE + 1] = True
        self.present += fresh
        self.version += 1

    def first_absent(self, start: int) -> int | None:
        """The first block at or after ``start`` that is not present."""
        at = start >> 3
        while at * 8 < self.blocks:
            part = self._bits[at : at + _SEARCH]
            found = np.flatnonzero(part != 0xFF)
            for byte in found[:2]:  # the first may hold only blocks before start
                base = (at + int(byte)) * 8
                for block in range(max(base, start), min(base + 8, self.blocks)):
                    if not self._bits[block >> 3] >> (block & 7) & 1:
                        return block
            at += len(part)
        return None

    def snapshot(self) -> Snapshot:
        """A copy that later marks do not change."""
        numbers = np.flatnonzero(self._touched).astype(np.uint32)
        return Snapshot(self.version, numbers, self._bits.reshape(-1, _PAGE)[numbers])

    def restore(self, numbers: np.ndarray[tuple[int], np.dtype[np.uint32]], pages: U8) -> None:
        """Take over pages read from a file; ``StateDamaged`` if they are not of this disk."""
        total = len(self._touched)
        if len(numbers) and (
            int(numbers.max()) >= total or (np.diff(numbers.astype(int)) < 1).any()
        ):
            raise ValueError("page numbers")
        self._bits.reshape(-1, _PAGE)[numbers] = pages
        self._touched[numbers] = True
        self.present = int(_ONES[pages].sum())
        beyond = np.unpackbits(self._bits[self.blocks >> 3 :], bitorder="little")
        if beyond[self.blocks & 7 :].any():
            raise ValueError("blocks beyond the end")


def encode(snapshot: Snapshot, size: int, identity: str) -> bytes:
    """The file's bytes."""
    name = identity.encode()
    if len(name) > _MAX_IDENTITY:
        raise ValueError(f"an identity of {len(name)} bytes")
    body = snapshot.numbers.astype("<u4").tobytes() + snapshot.pages.tobytes()
    packed = zstandard.ZstdCompressor(level=1).compress(body)
    count = len(snapshot.numbers)
    head = _HEAD.pack(_MAGIC, BLOCK, size, len(name), count, len(packed)) + name
    return b"".join((head, packed, digest([head, packed])))


def most_bytes(size: int) -> int:
    """No map of a disk of this size is larger."""
    pages = blocks_of(size) // (_PAGE * 8) + 1
    return pages * (_PAGE + 64) + (64 << 10)


def decode(data: bytes, size: int, identity: str, path: str) -> BlockMap:
    """The map in a file. ``StateDamaged`` if it does not verify, ``TargetError`` if it belongs to
    another base."""
    if len(data) < _HEAD.size + DIGEST or digest([data[:-DIGEST]]) != data[-DIGEST:]:
        raise _damaged(path)
    magic, block, was_size, named, count, packed = _HEAD.unpack_from(data)
    body_at = _HEAD.size + named
    if (magic, block) != (_MAGIC, BLOCK) or len(data) != body_at + packed + DIGEST:
        raise _damaged(path)
    if (was_size, data[_HEAD.size : body_at]) != (size, identity.encode()):
        raise TargetError(
            "this overlay belongs to another point or disk",
            operation="open overlay",
            subject=path,
            hint="choose another file, or delete this one if its changes are not needed",
        )
    found = BlockMap(size)
    numbers, pages = _unpack(data[body_at:-DIGEST], count, size, path)
    try:
        found.restore(numbers, pages)
    except ValueError as error:
        raise _damaged(path) from error
    return found


def _unpack(
    body: bytes, count: int, size: int, path: str
) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], U8]:
    length = count * (4 + _PAGE)
    if length > most_bytes(size):
        raise _damaged(path)
    try:
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=max(1, length))
    except zstandard.ZstdError as error:
        raise _damaged(path) from error
    if len(raw) != length:
        raise _damaged(path)
    numbers = np.frombuffer(raw, "<u4", count).astype(np.uint32)
    return numbers, np.frombuffer(raw, np.uint8, offset=4 * count).reshape(count, _PAGE)


def _damaged(path: str) -> StateDamaged:
    return StateDamaged(
        "the overlay's map does not verify",
        operation="open overlay",
        subject=path,
        hint="the changes in this overlay are lost; delete both files to begin anew",
    )
