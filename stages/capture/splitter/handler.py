"""The write splitter of one disk: an NBD ``BatchHandler`` in front of its source.

Everything a connection sent in one turn comes in one batch. Its whole-block writes are done at
once: marks, credit, all pwrites, one entry, all answers, with no await between the first pwrite and
the entry. Reads come from the page cache without a thread, large ones by sendfile. What has to wait
for a disk (cold reads, odd writes, trims, flushes) goes on in a task of the disk, answers when it
is done, and holds up nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.flush import Flusher
from stages.capture.splitter.lane import Lane
from stages.capture.splitter.mutation import Mutation
from stages.capture.splitter.plain import (
    Failed,
    enqueue,
    entry_size,
    mark_windows,
    regions_touched,
    write_all,
)
from stages.capture.splitter.reads import LARGEST, Reads
from stages.errors import BackstayError
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.device import BlockSizes, DeviceFlags, DeviceInfo, Extent, FileRange, error_code
from stages.nbd.hops import SharedHops
from stages.nbd.replies import ReplySink, clip
from stages.nbd.transmission import Batch, Request
from stages.stream import ROW, Entry, Kind

FLAGS = DeviceFlags(flush=True, fua=True, trim=True, write_zeroes=True, multi_conn=True)
_ODD = BLOCK - 1
_COMMAND = 7  # where in a request's head the lower byte of its command is


class SplitHandler:
    """Serves ``disk`` under its name. Tasks that outlast a batch run in ``nursery``."""

    concurrent = False

    def __init__(self, disk: LiveDisk, nursery: trio.Nursery):
        self.disk = disk
        self.info = DeviceInfo(
            disk.name, disk.size, "captured by Backstay", False, FLAGS, BlockSizes(1, BLOCK)
        )
        self._nursery = nursery
        self._flusher = Flusher(disk, nursery)
        self._lane = Lane(disk, self.info.blocks.maximum)
        self._reads = Reads(disk)
        self._hops = SharedHops(disk.machine.offload)

    async def flush(self) -> None:
        """Make every answered write durable."""
        await self._flusher.flush()

    def swift(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        """Whole-block writes that have nothing to wait for, and reads of what is in the page cache
        (``BatchHandler``)."""
        count = 0
        while count < most and end - at > _COMMAND:
            if buffer.view[at + _COMMAND] == wire.CMD_READ:
                at, some = self._reads.answered(buffer, at, end, most - count, replies)
            else:
                at, some = self._written(buffer, at, end, most - count, replies)
            if not some:
                break
            count += some
        return at, count

    def _written(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        found = self._lane.admitted(buffer, at, end, most)
        if found is None:
            return at, 0
        writes, size = found
        done = self._carry_out(writes, buffer, size, replies, journal=True, held=False)
        replies.done_swiftly([write.cookie for write in done])
        last = writes[-1]
        return last.at + last.length, len(writes)

    async def execute(self, batch: Batch, replies: ReplySink) -> None:
        """See ``BatchHandler``; what takes its time is answered later."""
        plain: list[Request] = []
        rest: list[Request] = []
        for request in batch.requests:
            whole = not (request.offset | request.length) & _ODD
            (plain if request.command == wire.CMD_WRITE and whole else rest).append(request)
        if plain:
            await self._write(plain, batch.buffer, replies)
        for request in rest:
            if request.command == wire.CMD_READ:
                self._read(request, replies)
            elif request.command == wire.CMD_FLUSH:
                self._flush([request], replies)
            elif request.command == wire.CMD_BLOCK_STATUS:
                self._nursery.start_soon(self._status, request, replies)
            else:
                self._mutate(request, batch.buffer, replies)

    async def _write(
        self, writes: list[Request], buffer: ReceiveBuffer, replies: ReplySink
    ) -> None:
        disk, gate = self.disk, self.disk.gate
        if disk.pwrites.throttled:
            self._one_by_one(writes, buffer, replies)
            return
        regions = regions_touched(writes)
        size = entry_size(writes)
        try:
            journal = await gate.admit(disk.number, regions, size)
        except BackstayError as error:
            _fail_all(writes, error, replies)
            return
        # No await from here to the push (R4).
        if disk.locks.busy and any(self._taken(write) for write in writes):
            if journal:
                gate.stream.release(size)
            self._one_by_one(writes, buffer, replies)
            return
        gate.touch(disk.number, regions)
        self._answer(self._carry_out(writes, buffer, size, replies, journal=journal), replies)

    def _carry_out(
        self,
        writes: list[Request],
        buffer: ReceiveBuffer,
        size: int,
        replies: ReplySink,
        *,
        journal: bool,
        held: bool = True,
    ) -> list[Request]:
        """Write what was admitted with ``size`` bytes of credit, and enqueue it; what failed is
        answered, and the rest returned. ``held``: as the session counts their memory."""
        disk, stream = self.disk, self.disk.gate.stream
        if disk.windows.active:
            mark_windows(disk, writes)
        began = disk.machine.clock.monotonic()
        failed = write_all(disk, writes)
        disk.pwrites.took(began)
        done = writes if not failed else _without(writes, failed)
        if journal and done:
            enqueue(disk, done, buffer, disk.machine.clock.wall_us(), size)
        elif journal:
            stream.release(size)
        for write, why in failed:
            told = write if held else write._replace(length=0)
            replies.fail(told, error_code(why), _reason(why))
            if journal:
                self._read_back(write)
        return done

    def _read_back(self, write: Request) -> None:
        """What a failed write has left on the source follows in the stream (R4)."""
        disk = self.disk
        first, stop = write.offset // BLOCK, (write.offset + write.length) // BLOCK
        try:
            content = disk.read_block_range(first, stop)
        except OSError as error:
            disk.on_unread(disk, first, stop, error)
            return
        entry = Entry(
            Kind.WRITE,
            disk.number,
            disk.machine.clock.wall_us(),
            ROW.pack(first, stop - first, 0),
            payload=(content,),
            payload_bytes=len(content),
        )
        disk.gate.stream.push(entry, 0)

    def _answer(self, writes: Sequence[Request], replies: ReplySink) -> None:
        """Success, at once or, for those that ask for it, when durable."""
        forced = [write for write in writes if write.flags & wire.FLAG_FUA]
        if not forced:
            if writes:
                replies.done_all(writes)
            return
        plain = [write for write in writes if not write.flags & wire.FLAG_FUA]
        if plain:
            replies.done_all(plain)
        self._flush(forced, replies)

    def _taken(self, write: Request) -> bool:
        first = write.offset // BLOCK
        return self.disk.locks.taken(first, first + write.length // BLOCK)

    def _one_by_one(
        self, writes: Sequence[Request], buffer: ReceiveBuffer, replies: ReplySink
    ) -> None:
        for write in writes:
            self._mutate(write, buffer, replies)

    def _mutate(self, request: Request, buffer: ReceiveBuffer, replies: ReplySink) -> None:
        if request.command == wire.CMD_WRITE:
            buffer.hold()
            self._nursery.start_soon(self._mutation, request, replies, buffer)
        else:
            self._nursery.start_soon(self._mutation, request, replies, None)

    async def _mutation(
        self, request: Request, replies: ReplySink, buffer: ReceiveBuffer | None
    ) -> None:
        try:
            await Mutation(self.disk, request).run()
        except (OSError, BackstayError) as error:
            replies.fail(request, error_code(error), _reason(error))
            return
        finally:
            if buffer is not None:
                buffer.release()
        if request.flags & wire.FLAG_FUA:
            self._flush([request], replies)
        else:
            replies.done(request)

    def _flush(self, requests: Sequence[Request], replies: ReplySink) -> None:
        def tell(error: OSError | None) -> None:
            if error is None:
                replies.done_now(requests)
            else:
                _fail_all(requests, error, replies)

        self._flusher.then(tell)

    def _read(self, request: Request, replies: ReplySink) -> None:
        """From the page cache now; else by a thread."""
        file, offset, length = self.disk.source.file, request.offset, request.length
        try:
            if length <= LARGEST:
                data = file.pread_now(offset, length)
                if data is not None:
                    replies.data(request, [data])
                    return
            elif file.pread_now(offset, 1) and file.pread_now(offset + length - 1, 1):
                replies.data(request, [FileRange(file, offset, length)])
                return
        except OSError:  # the thread finds out, and says so
            pass
        self._nursery.start_soon(self._read_cold, request, replies)

    async def _read_cold(self, request: Request, replies: ReplySink) -> None:
        file = self.disk.source.file
        try:
            data = await self._hops.run(lambda: file.pread(request.offset, request.length))
        except (OSError, MemoryError) as error:
            replies.fail(request, error_code(error), _reason(error))
        else:
            replies.data(request, [data])

    async def _status(self, request: Request, replies: ReplySink) -> None:
        try:
            found = await self._hops.run(lambda: self._extents(request.offset, request.length))
        except OSError as error:
            replies.fail(request, error_code(error), _reason(error))
            return
        one = bool(request.flags & wire.FLAG_REQ_ONE)
        replies.extents(request, clip(found, request.length, one=one))

    def _extents(self, offset: int, length: int) -> list[Extent]:
        file, end = self.disk.source.file, offset + length
        found: list[Extent] = []
        while offset < end and len(found) < _EXTENTS:
            data = file.next_data(offset)
            start = end if data is None else min(data, end)
            if start > offset:
                found.append(Extent(start - offset, wire.STATE_HOLE | wire.STATE_ZERO))
                offset = start
            if offset < end:
                stop = min(max(file.next_hole(offset), offset + 1), end)
                found.append(Extent(stop - offset, 0))
                offset = stop
        return found


_EXTENTS = 4096  # of one answer; the client asks again for what is behind


def _without(writes: Sequence[Request], failed: Failed) -> list[Request]:
    gone = {id(write) for write, _ in failed}
    return [write for write in writes if id(write) not in gone]


def _fail_all(
    requests: Sequence[Request], error: OSError | BackstayError, replies: ReplySink
) -> None:
    for request in requests:
        replies.fail(request, error_code(error), _reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, BackstayError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or "input/output error"
    return "out of memory"
