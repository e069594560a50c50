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


def enqueue(
    disk: LiveDisk, writes: Sequence[Request], buffer: ReceiveBuffer, wall: int, reserved: int
) -> None:
    """Record these writes (at least one), in the order of their places in ``buffer``; it is held
    until they are journalled.

    What follows the newest record in the same buffer joins it: a guest that writes a block at a
    time makes a record for each little while, not for each block.
    """
    stream, base = disk.gate.stream, writes[0].at
    end = writes[-1].at + writes[-1].length
    newest = stream.newest()
    if newest is not None and newest.buffer is buffer and newest.disk == disk.number:
        between = base - newest.end
        if 0 <= between <= HEAD_BYTES:  # the credit for a head pays for it
            rows = _rows(writes, newest.begin)
            stream.extend(rows, buffer.view[newest.begin : end], end, wall, reserved)
            return
    entry = Entry(
        Kind.WRITE,
        disk.number,
        wall,
        _rows(writes, base),
        payload=(buffer.view[base:end],),
        payload_bytes=end - base,
        release=buffer.release,
        buffer=buffer,
        begin=base,
        end=end,
    )
    buffer.hold()
    stream.push(entry, reserved)


def _rows(writes: Sequence[Request], base: int) -> bytes:
    pack = ROW.pack
    return b"".join(
        [pack(write.offset >> _SHIFT, write.length >> _SHIFT, write.at - base) for write in writes]
    )
