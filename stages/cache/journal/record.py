"""Journal files and records as bytes: pure.

A file is a head of 64 bytes and then records; a record is a head of 64 bytes, table, extra and
payload. Every checksum is seeded with run, file and offset, so that a record of another place, or
of an older life of the same blocks of the disk, never verifies (R10). It is XXH3 of 64 bits, which
tells torn and rotten records as well as a CRC does and costs a tenth: a guest's every byte is
summed twice, when it is written and when delivery reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64

from stages.model import MAX_DISKS
from stages.ports import Buffer
from stages.stream import HEAD_BYTES, ROW, Entry, Kind, Position

FILE_HEAD = 64
MAX_ROWS = 1 << 20
MAX_EXTRA = 16 << 20
MAX_PAYLOAD = 96 << 20
ROWS = np.dtype([("block", "<u8"), ("count", "<u4"), ("at", "<u4")])

_FILE = struct.Struct("<8sIIQQQ24x")
_FILE_MAGIC = b"BKJOURN\n"
_VERSION = 2
_HEAD = struct.Struct("<4sBxHIIIQQQQQ4x")
_SUM = slice(44, 52)  # of a head: where the checksum stands
_MAGIC = b"BJR2"
_SEED = struct.Struct("<QQQ")
_KINDS = {int(kind): kind for kind in Kind}

assert _HEAD.size == HEAD_BYTES and _FILE.size == FILE_HEAD  # noqa: S101


@dataclass(frozen=True, slots=True)
class Head:
    """A decoded head, bounds checked; the checksum is not.

    ``synced``: the stream offset up to which the run was durable when the record was written.
    """

    kind: Kind
    disk: int
    rows: int
    extra: int
    payload: int
    offset: int
    wall_us: int
    checksum: int
    synced: int

    @property
    def size(self) -> int:
        """Of the whole record."""
        return HEAD_BYTES + self.rows * ROW.size + self.extra + self.payload


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read. ``rows`` (n,) of ``ROWS``; the memoryviews are valid while held.

    ``piece`` is what was read at once, ``at`` where in it the payload begins.
    """

    kind: Kind
    disk: int
    rows: npt.NDArray[Any]
    extra: memoryview
    payload: memoryview
    start: Position
    end: Position
    wall_us: int
    piece: memoryview
    at: int


def file_head(run: int, start: int) -> bytes:
    """The head of the file whose first record has stream offset ``start``."""
    plain = _FILE.pack(_FILE_MAGIC, _VERSION, 0, run, start, 0)
    return _FILE.pack(_FILE_MAGIC, _VERSION, 0, run, start, xxh3_64(plain).intdigest())


def good_file_head(data: bytes, run: int, start: int) -> bool:
    """Is this the head of that file?"""
    return data == file_head(run, start)


def encode(entry: Entry, run: int, start: int, offset: int, synced: int) -> list[Buffer]:
    """A record as buffers, at stream ``offset`` of the file that begins at ``start``; the run is
    durable up to ``synced``."""
    fields = (
        _MAGIC,
        int(entry.kind),
        entry.disk,
        len(entry.table) // ROW.size,
        len(entry.extra),
        entry.payload_bytes,
        run,
        offset,
        entry.wall_us,
    )
    rest: list[Buffer] = [part for part in (entry.table, entry.extra) if part]
    rest += entry.payload
    checksum = _checksum(_HEAD.pack(*fields, 0, synced), rest, run, start, offset)
    return [_HEAD.pack(*fields, checksum, synced), *rest]


def decode_head(data: memoryview, run: int, offset: int) -> Head | None:
    """The head at the start of ``data``, if it is one of that place and within bounds."""
    if len(data) < HEAD_BYTES:
        return None
    fields = _HEAD.unpack_from(data)
    magic, kind, disk, rows, extra, payload, its_run, its_offset, wall, checksum, synced = fields
    if magic != _MAGIC or its_run != run or its_offset != offset or kind not in _KINDS:
        return None
    if disk >= MAX_DISKS or rows > MAX_ROWS or extra > MAX_EXTRA or payload > MAX_PAYLOAD:
        return None
    return Head(_KINDS[kind], disk, rows, extra, payload, offset, wall, checksum, synced)


def decode(piece: memoryview, at: int, run: int, start: int, offset: int) -> Record | None:
    """The record at byte ``at`` of ``piece``, or None if there is no good and whole one."""
    data = piece[at:]
    head = decode_head(data, run, offset)
    if head is None or head.size > len(data):
        return None
    body = data[HEAD_BYTES : head.size]
    plain = bytearray(data[:HEAD_BYTES])
    plain[_SUM] = bytes(8)
    if _checksum(plain, [body], run, start, offset) != head.checksum:
        return None
    table = head.rows * ROW.size
    return Record(
        head.kind,
        head.disk,
        np.frombuffer(body[:table], ROWS),
        body[table : table + head.extra],
        body[table + head.extra :],
        Position(run, offset),
        Position(run, offset + head.size),
        head.wall_us,
        piece,
        at + HEAD_BYTES + table + head.extra,
    )


def find_magic(data: bytes, at: int) -> int:
    """Where the next record might begin, or -1."""
    return data.find(_MAGIC, at)


def _checksum(head: Buffer, rest: Sequence[Buffer], run: int, start: int, offset: int) -> int:
    found = xxh3_64(_SEED.pack(run, start, offset))
    found.update(head)
    for part in rest:
        found.update(part)
    return found.intdigest()
