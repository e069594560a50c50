"""Whole-block writes of one turn: all of them to the source and into one entry, without an await.

The entry's payload is the stretch of the receive buffer from the first write to the last, request
heads and all: one piece of memory, and a row for each write says where its content lies.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.capture.splitter.disk import LiveDisk
from stages.model import BLOCK
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Request
from stages.stream import HEAD_BYTES, REGION, ROW, Entry, Kind

_SHIFT = BLOCK.bit_length() - 1
_REGION_SHIFT = REGION.bit_length() - 1

Failed = list[tuple[Request, OSError]]


def regions_touched(writes: Sequence[Request]) -> list[int]:
    """The regions of these writes, each once."""
    found = {write.offset >> _REGION_SHIFT for write in writes}
    for write in writes:
        last = (write.offset + write.length - 1) >> _REGION_SHIFT
        if last not in found:
            found.update(range(write.offset >> _REGION_SHIFT, last + 1))
    return list(found)


def entry_size(writes: Sequence[Request]) -> int:
    """Bytes in the stream, if all of them succeed."""
    last = writes[-1]
    return HEAD_BYTES + ROW.size * len(writes) + last.at + last.length - writes[0].at


def write_all(disk: LiveDisk, writes: Sequence[Request]) -> Failed:
    """To the source, in order. What fails does not keep the others from being written."""
    failed: Failed = []
    pwrite = disk.source.file.pwrite
    for write in writes:
        try:
            pwrite(write.offset, write.payload)
        except OSError as error:
            failed.append((write, error))
    return failed


def mark_windows(disk: LiveDisk, writes: Sequence[Request]) -> None:
    """Tell open scans (R8)."""
    mark, number = disk.windows.mark, disk.number
    for write in writes:
        mark(number, write.offset >> _SHIFT, write.length >> _SHIFT)


def entry_of(disk: LiveDisk, writes: Sequence[Request], buffer: ReceiveBuffer, wall: int) -> Entry:
    """The record of these writes (at least one); holds the buffer until it is journalled."""
    base = writes[0].at
    end = writes[-1].at + writes[-1].length
    pack = ROW.pack
    table = b"".join(
        [pack(write.offset >> _SHIFT, write.length >> _SHIFT, write.at - base) for write in writes]
    )
    buffer.hold()
    payload = (buffer.view[base:end],)
    return Entry(
        Kind.WRITE, disk.number, wall, table, b"", payload, end - base, release=buffer.release
    )
