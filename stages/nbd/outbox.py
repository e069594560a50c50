"""Replies on their way out: collected while one send runs, sent together by the next.

Memory is bounded by the requests a session lets in; ``on_sent`` tells it what left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import trio

from stages.errors import ProtocolError
from stages.nbd import replies, wire
from stages.nbd.device import Extent, FileRange, Part
from stages.nbd.quick import Wire
from stages.nbd.rooms import Room, Rooms
from stages.nbd.transmission import Refusal, Request
from stages.ports import Buffer

_IOV_MAX = 1024
_JOIN = 64 << 10  # up to here one copy is cheaper than a vector
_INLINE = 16 << 10
_PIECE = 1 << 20
_MOST_ROOMS = 4  # of one connection, that are not sent yet


class Sent(Protocol):
    """Told about replies that left: how many, the bytes they held, and those of reads."""

    def __call__(self, count: int, held: int, read: int) -> None:
        """Never waits."""


class Outbox:
    """The ``ReplySink`` of one connection."""

    def __init__(
        self,
        connection: Wire,
        rooms: Rooms,
        *,
        structured: bool,
        on_sent: Sent,
    ):
        self.sending = False
        self.progress = 0
        self.corked = False  # whoever fills it will flush: do not wake the sender
        self._idle = False  # the sender sleeps
        self._connection = connection
        self._rooms = rooms
        self._room: Room | None = None  # answers of reads are made in it, until ``uncork``
        self._structured = structured
        self._on_sent = on_sent
        self._wake = trio.lowlevel.ParkingLot()
        self._reset()

    def _reset(self) -> None:
        self._parts: list[Part] = []
        self._left: list[Room] = []  # whose content is among them
        self._bytes = self._count = self._held = self._read = 0
        self._files = False

    def done(self, request: Request) -> None:
        """Queue a success."""
        if request.command == wire.CMD_WRITE:
            self._held += request.length
        self._add(replies.success(request.cookie))

    def done_all(self, requests: Sequence[Request]) -> None:
        """Queue many successes as one piece."""
        self._held += sum([r.length for r in requests if r.command == wire.CMD_WRITE])
        self._count += len(requests) - 1
        self._add(replies.successes([request.cookie for request in requests]))

    def done_now(self, requests: Sequence[Request]) -> None:
        """Queue many successes, and send them without waking the sender first."""
        corked, self.corked = self.corked, True
        self.done_all(requests)
        self.corked = corked
        if not corked:
            self._hasten()

    def done_swiftly(self, cookies: Sequence[int]) -> None:
        """Queue successes of requests that hold no memory any more."""
        self._count += len(cookies) - 1
        self._add(replies.successes(cookies))

    def place(self, length: int) -> memoryview | None:
        """Where a read's content goes that is there at once; only while it is corked."""
        if self._room is None or (found := self._room.place(length)) is None:
            if not self._next_room():
                return None
            found = self._room.place(length) if self._room else None
        return found

    def keep(self, cookie: int, offset: int, length: int) -> None:
        """Queue the content of the newest ``place``."""
        if self._room is not None:
            self._room.keep(cookie, offset, length)

    def _next_room(self) -> bool:
        self._leave_room()
        if len(self._left) < _MOST_ROOMS:
            self._room = self._rooms.take(structured=self._structured)
        return self._room is not None

    def _leave_room(self) -> None:
        """What was made in it is sent next."""
        room, self._room = self._room, None
        if room is not None and not room.count:
            self._rooms.give(room)  # what it was taken for was not there
        elif room is not None:
            self._left.append(room)
            self._parts.append(room.content)
            self._bytes += room.filled
            self._count += room.count

    def data(self, request: Request, parts: Sequence[Part]) -> None:
        """Queue a read's content; a device that returned too little or too much failed."""
        files, size = False, 0
        for part in parts:
            size += part.nbytes if isinstance(part, memoryview) else len(part)
            files = files or isinstance(part, FileRange)
        if size != request.length:
            self.fail(request, wire.EIO, "the device returned another length")
            return
        self._held += size
        self._read += size
        self._bytes += size
        self._files = self._files or files
        self._add(replies.read_head(request, structured=self._structured))
        self._parts += map(_flat, parts)

    def extents(self, request: Request, extents: Sequence[Extent]) -> None:
        """Queue a block status."""
        self._add(replies.block_status(request.cookie, extents))

    def fail(self, request: Request, error: int, reason: str) -> None:
        """Queue an error."""
        if request.command <= wire.CMD_WRITE:
            self._held += request.length
            self._read += request.length if request.command == wire.CMD_READ else 0
        self._add(replies.failure(request.cookie, error, reason, structured=self._structured))

    def refuse(self, refusal: Refusal) -> None:
        """Queue the error of a request that was never executed."""
        self._add(replies.failure(*refusal, structured=self._structured))

    def _add(self, head: bytes) -> None:
        self._parts.append(head)
        self._bytes += len(head)
        self._count += 1
        if self._idle and not self.corked:
            self._rouse()

    def _rouse(self) -> None:
        self._idle = False
        self._wake.unpark()

    def _hasten(self) -> None:
        try:
            sent = self._bytes <= _INLINE and self._sent_at_once()
        except OSError:  # the sender meets it as well, and ends the connection
            sent = False
        if not sent and self._idle:
            self._rouse()

    async def uncork(self) -> None:
        """Send what was collected: a little at once, and what lies in rooms, as far as the socket
        takes it; much by the sender beside what comes next."""
        self.corked = False
        self._leave_room()
        if self._bytes <= _INLINE:
            if not self._sent_at_once():
                await self.flush()
        elif not (self._left and self._sent_at_once()) and self._idle:
            self._rouse()

    def _sent_at_once(self) -> bool:
        """All there is went into the socket: the usual case, without a coroutine."""
        if self.sending or self._files:
            return False
        parts = cast("list[Buffer]", self._parts)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        sent = self._connection.send_now(data)
        if sent < self._bytes:
            self._parts = [memoryview(data)[sent:]]
            self._bytes -= sent
            return False
        count, held, read = self._count, self._held, self._read
        self._give(self._left)
        self._reset()
        self.progress += 1
        self._on_sent(count, held, read)
        return True

    def _give(self, rooms: list[Room]) -> None:
        while rooms:
            self._rooms.give(rooms.pop())

    def close(self) -> None:
        """Nothing is sent any more."""
        self._leave_room()
        self._give(self._left)

    async def run(self) -> None:
        """Send what comes, for ever; its owner cancels it."""
        while True:
            if self.sending or not self._parts:
                self._idle = True
                await self._wake.park()
            await self.flush()

    async def flush(self) -> None:
        """Send all there is, unless someone is at it: that one will send it."""
        if self.sending:
            return
        self.sending = True
        try:
            while self._parts:
                parts, size, files = self._parts, self._bytes, self._files
                count, held, read = self._count, self._held, self._read
                rooms = self._left
                self._reset()
                try:
                    if files:
                        await self._send_with_files(parts)
                    else:
                        await self._send(cast("list[Buffer]", parts), size)
                finally:
                    self._give(rooms)
                self._on_sent(count, held, read)
        finally:
            self.sending = False

    async def _send(self, buffers: list[Buffer], size: int) -> None:
        if size <= _JOIN and len(buffers) > 1:
            buffers = [b"".join(buffers)]
        at = 0
        while at < len(buffers):
            sent = await self._connection.send(buffers[at : at + _IOV_MAX])
            self.progress += 1
            while at < len(buffers) and sent >= len(buffers[at]):
                sent -= len(buffers[at])
                at += 1
            if sent:
                buffers[at] = memoryview(buffers[at])[sent:]

    async def _send_with_files(self, parts: Sequence[Part]) -> None:
        buffers: list[Buffer] = []
        for part in parts:
            if isinstance(part, FileRange):
                await self._send(buffers, _JOIN + 1)
                buffers = []
                await self._send_range(part)
            else:
                buffers.append(part)
        await self._send(buffers, _JOIN + 1)

    async def _send_range(self, part: FileRange) -> None:
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            want = min(end - offset, _PIECE)
            count = await self._connection.send_file(part.file.fileno(), offset, want)
            if count is None:
                data = part.file.pread(offset, want)
                await self._send([data], _JOIN + 1)
                count = len(data)
            self.progress += 1
            if not count:
                # The head promised more: nothing can be said any more on this connection.
                raise ProtocolError("the file ended early", operation="NBD read")
            offset += count


def _flat(part: Part) -> Part:
    if isinstance(part, memoryview) and (part.ndim != 1 or part.itemsize != 1):
        return part.cast("B")
    return part
