"""One mutation that takes its time: odd ranges, trims, zeroes, writes to a source that is slow.

Its whole blocks are locked from before the source is touched until its record is in the stream; the
source is worked on in a thread. A block of which only a part is written is read back under that
lock, and so is what a failed write has left (R4).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import partial

import trio

from stages.capture.splitter.disk import LiveDisk, regions_of
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.transmission import Request
from stages.ports import Buffer
from stages.stream import HEAD_BYTES, ROW, ZERO_ROW, Entry, Kind

_ZEROS = bytes(1 << 20)
_NO_PUNCH = frozenset((errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))


@dataclass(frozen=True, slots=True)
class _Left:
    """What a mutation left on the source: ``zero`` blocks (first, stop), and ``content`` of other
    blocks as (first, bytes)."""

    zero: tuple[int, int] = (0, 0)
    content: tuple[tuple[int, Buffer], ...] = ()


class Mutation:
    """A write, trim or write-zeroes of one disk."""

    def __init__(self, disk: LiveDisk, request: Request):
        self._disk = disk
        self._request = request
        self._first = request.offset // BLOCK
        self._stop = -(-(request.offset + request.length) // BLOCK)
        self._odd_start = bool(request.offset % BLOCK)

    @property
    def _odd_end(self) -> bool:
        """Asked under the lock: a disk that grows while this waits for it may have its end here."""
        end = self._request.offset + self._request.length
        return bool(end % BLOCK) and end != self._disk.size

    async def run(self) -> None:
        """Carry it out; on return it is on the source and in the stream. ``OSError``,
        ``StateError``."""
        disk, request = self._disk, self._request
        span: tuple[int, int] | None = (self._first, self._stop)
        if request.command == wire.CMD_TRIM:
            span = self._inner()
        if span is None:
            return  # less than a block: ignored, as R7 allows
        async with disk.locks.hold(*span):
            if disk.closed:
                raise OSError(errno.ESHUTDOWN, "the disk is being closed")
            regions = regions_of(request.offset, request.length)
            size = self._most()
            try:
                journal = await disk.gate.admit(disk.number, regions, size)
            except BaseException:
                disk.on_unsaid(disk, *span)
                raise
            stream = disk.gate.stream
            with disk.gate.tracked(), trio.CancelScope(shield=True):
                disk.gate.touch(disk.number, regions)
                left, failed = await self._carry_out()
                disk.gate.touch(disk.number, regions)
                # Until here the lock keeps scans off these blocks; a scan that has read them before
                # this moment must drop them (R8).
                disk.windows.mark(disk.number, span[0], span[1] - span[0])
                if journal:
                    entry = None if left is None else self._entry(left)
                    if entry is None:
                        stream.release(size)
                    else:
                        stream.push(entry, size)
                if not (journal and self._says(left, span) and stream is disk.gate.stream):
                    disk.on_unsaid(disk, *span)
        if failed is not None:
            raise failed

    def _says(self, left: _Left | None, span: tuple[int, int]) -> bool:
        """Is all of ``span`` in the record of ``left``? A trim may leave blocks as they are."""
        if left is None:
            return False
        return self._request.command != wire.CMD_TRIM or bool(left.content) or left.zero == span

    def _most(self) -> int:
        """Bytes in the stream at most."""
        blocks = self._stop - self._first if self._request.command == wire.CMD_WRITE else 2
        return HEAD_BYTES + 3 * ROW.size + blocks * BLOCK

    async def _carry_out(self) -> tuple[_Left | None, OSError | None]:
        """What is on the source now (None: as before, or unknown and reported), and the error."""
        offload = self._disk.machine.offload
        try:
            return await offload.run(self._apply), None
        except OSError as error:
            failed = error
        if self._stop - self._first > wire.MAX_PAYLOAD // BLOCK:  # too much to be read at once
            self._disk.on_unread(self._disk, self._first, self._stop, failed)
            return None, failed
        try:
            again = partial(self._disk.read_block_range, self._first, self._stop)
            return _Left(content=((self._first, await offload.run(again)),)), failed
        except OSError as error:
            self._disk.on_unread(self._disk, self._first, self._stop, error)
            return None, failed

    def _apply(self) -> _Left:
        """In a thread."""
        disk, request = self._disk, self._request
        if request.command == wire.CMD_WRITE:
            disk.source.file.pwrite(request.offset, request.payload)
            if self._odd_start or self._odd_end or (self._stop * BLOCK > disk.size):
                whole = disk.read_block_range(self._first, self._stop)
                return _Left(content=((self._first, whole),))
            return _Left(content=((self._first, request.payload),))
        inner = self._inner()
        zero = (0, 0) if inner is None else self._zero_inner(*inner)
        if request.command == wire.CMD_TRIM:
            return _Left(zero=zero)
        return _Left(zero, tuple(self._zero_edges(inner)))

    def _inner(self) -> tuple[int, int] | None:
        """The whole blocks of the range (the disk's last one counts as whole), if any."""
        first = self._first + self._odd_start
        stop = self._stop - self._odd_end
        return (first, stop) if first < stop else None

    def _zero_inner(self, first: int, stop: int) -> tuple[int, int]:
        """Make them read zeros; (0, 0) if a trim is not possible here."""
        file, size = self._disk.source.file, self._disk.size
        begin = first * BLOCK
        end = min(stop * BLOCK, size)
        keep = self._request.flags & wire.FLAG_NO_HOLE
        if not (keep and self._request.command == wire.CMD_WRITE_ZEROES):
            try:
                file.punch(begin, end - begin)
            except OSError as error:
                if error.errno not in _NO_PUNCH:
                    raise
                if self._request.command == wire.CMD_TRIM:
                    return 0, 0
            else:
                return first, stop
        for at in range(begin, end, len(_ZEROS)):
            file.pwrite(at, memoryview(_ZEROS)[: min(len(_ZEROS), end - at)])
        return first, stop

    def _zero_edges(self, inner: tuple[int, int] | None) -> list[tuple[int, Buffer]]:
        """Zero what is less than a block at either end, and read those blocks."""
        disk = self._disk
        begin, end = self._request.offset, self._request.offset + self._request.length
        if inner is None:
            stretches = [(begin, end)]
        else:
            stretches = [(begin, inner[0] * BLOCK), (min(inner[1] * BLOCK, disk.size), end)]
        found: list[tuple[int, Buffer]] = []
        for low, high in stretches:
            if low < high:
                disk.source.file.pwrite(low, bytes(high - low))
                first, stop = low // BLOCK, -(-high // BLOCK)
                found.append((first, disk.read_block_range(first, stop)))
        return found

    def _entry(self, left: _Left) -> Entry | None:
        """None if nothing changed."""
        table, payload, at = [], [], 0
        if left.zero[0] < left.zero[1]:
            table.append(ROW.pack(left.zero[0], left.zero[1] - left.zero[0], ZERO_ROW))
        for first, content in left.content:
            size = len(content)
            table.append(ROW.pack(first, size // BLOCK, at))
            payload.append(content)
            at += size
        if not table:
            return None
        # A payload may lie in a receive buffer: a copy, so that the buffer is free at the reply.
        kept = [bytes(part) for part in payload]
        wall = self._disk.machine.clock.wall_us()
        return Entry(Kind.WRITE, self._disk.number, wall, b"".join(table), b"", kept, at)
