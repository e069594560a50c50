"""One connection: negotiation, then requests in and replies out.

The receiving task takes what the socket holds and hands it over in one batch; the outbox collects
answers and sends them together. What is in flight is bounded in requests and bytes: at the limit
nothing is received, so a client that does not read its replies blocks only itself.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import trio

from stages.errors import ProtocolError
from stages.nbd import wire
from stages.nbd.buffers import Budget, BufferPool
from stages.nbd.handler import BatchHandler
from stages.nbd.handshake import Aborted, Handshake, Selected
from stages.nbd.outbox import Outbox
from stages.nbd.quick import QuickCalls, Wire
from stages.nbd.rooms import Rooms
from stages.nbd.transmission import Batch, RequestParser, Rules

_HANDSHAKE_READ = 16 << 10
_SOME = 16  # requests answered together: a client at depth 32 has something to do meanwhile


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; sizes in bytes, times in seconds.

    A connection holds at most ``buffers`` times ``buffer_bytes`` for requests; replies of reads
    and larger payloads come out of ``shared_bytes``, which all connections share.
    ``stall_seconds``: a client that stops inside a request, or accepts none of its replies, is
    dropped after this long, because it holds memory that others need.
    """

    connections: int = 256
    requests: int = 128  # in flight, per connection
    request_bytes: int = 64 << 20  # in flight, per connection
    buffer_bytes: int = (2 << 20) + 4096  # the largest writes of common clients, and a header
    buffers: int = 2
    shared_bytes: int = 256 << 20
    handshake_seconds: float = 10.0
    stall_seconds: float = 60.0
    drain_seconds: float = 10.0
    flush_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.buffer_bytes < 64 << 10 or self.buffers < 2 or self.requests < 1:
            raise ValueError("at least two buffers of 64 KiB and one request")
        if min(self.request_bytes, self.shared_bytes) < wire.MAX_PAYLOAD + wire.REQUEST.size:
            raise ValueError(f"one request of {wire.MAX_PAYLOAD} bytes must fit")


class Session:
    """Serves one client until it leaves, breaks the protocol, or ``stop`` is called."""

    def __init__(
        self,
        sock: trio.socket.SocketType,
        exports: Mapping[str, BatchHandler],
        default: str | None,
        *,
        limits: Limits,
        budget: Budget,
        rooms: Rooms,
        quick: QuickCalls | None = None,
    ):
        self.export = ""
        self._socket = sock
        self._exports = exports
        self._default = default
        self._limits = limits
        self._budget = budget
        self._rooms = rooms
        self._connection = Wire(sock, quick)
        self._outbox: Outbox | None = None
        self._parser: RequestParser | None = None
        self._stopping = self._receiving = False
        self._received = 0
        self._in_flight = self._held = self._read_held = 0
        self._drained = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """The whole conversation. Raises ``ProtocolError`` and ``OSError`` where it breaks off;
        ``trio.TooSlowError`` if the negotiation takes too long."""
        with trio.fail_after(self._limits.handshake_seconds):
            handshake = await self._negotiate()
        if isinstance(handshake.outcome, Selected):
            await self._serve(handshake.outcome, handshake.unread)

    def stop(self) -> None:
        """Receive nothing more; what is in flight is finished and answered."""
        self._stopping = True
        with suppress(OSError):  # the client has gone already: receiving finds out by itself
            self._socket.shutdown(trio.socket.SHUT_RD)

    def progress(self) -> tuple[bool, int]:
        """Whether the server waits for the client to go on with what it began, and a count that
        changes whenever bytes move."""
        sent = self._outbox.progress if self._outbox else 0
        sending = self._outbox is not None and self._outbox.sending
        inside = self._receiving and self._parser is not None and self._parser.inside
        return sending or inside, self._received + sent

    async def _negotiate(self) -> Handshake:
        infos = {name: handler.info for name, handler in self._exports.items()}
        handshake = Handshake(infos, self._default)
        await self._send_all(handshake.greeting())
        while handshake.outcome is None:
            data = await self._socket.recv(_HANDSHAKE_READ)
            if not data:
                break
            handshake.feed(data)
            await self._reply(handshake)
        return handshake

    async def _reply(self, handshake: Handshake) -> None:
        for reply in handshake.replies():
            try:
                await self._send_all(reply)
            except OSError:
                if not isinstance(handshake.outcome, Aborted):
                    raise  # who aborts need not wait for the answer

    async def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._socket.send(view) :]

    async def _serve(self, chosen: Selected, unread: bytes) -> None:
        self.export = chosen.info.name
        handler = self._exports.get(self.export)
        if handler is None:  # withdrawn while its client was negotiating
            raise ProtocolError("the export is gone", operation="NBD", subject=self.export)
        rules = Rules(chosen.info, structured=chosen.structured, allocation=chosen.allocation)
        parser = self._parser = RequestParser(rules)
        outbox = self._outbox = Outbox(
            self._connection, self._rooms, structured=chosen.structured, on_sent=self._sent
        )
        limits = self._limits
        pool = BufferPool(limits.buffer_bytes, limits.buffers, self._budget)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                turn = _Turn(self, handler, outbox, nursery)
                await self._receive(parser, pool, unread, turn)
                while self._in_flight:
                    await self._drained.park()
                if parser.inside and not self._stopping:
                    raise ConnectionResetError(errno.ECONNRESET, "hung up inside a request")
                nursery.cancel_scope.cancel()
        finally:
            parser.detach()
            outbox.close()
            self._budget.release(self._read_held)

    async def _receive(
        self, parser: RequestParser, pool: BufferPool, unread: bytes, turn: _Turn
    ) -> None:
        if unread:
            parser.attach(await pool.take(parser.wants(pool.size)))
            parser.room()[: len(unread)] = unread
            parser.filled(len(unread))
            await self._hand_over(parser, turn)
        while not (self._stopping or parser.disconnected):
            wanted = parser.wants(pool.size)
            if wanted:
                parser.attach(await pool.take(wanted))
            self._receiving = True
            count = await self._connection.receive(parser.room(), answered=not self._in_flight)
            self._receiving = False
            if not count:
                return
            self._received += 1
            parser.filled(count)
            await self._hand_over(parser, turn)

    async def _hand_over(self, parser: RequestParser, turn: _Turn) -> None:
        most = self._limits.requests
        most_bytes = min(self._limits.request_bytes, self._limits.shared_bytes)
        while True:
            while self._in_flight >= most:
                await self._drained.park()
            if turn.is_swift:
                await turn.swiftly(parser, most - self._in_flight)
                if parser.drained:
                    return
            batch = parser.take(most - self._in_flight, most_bytes - self._held)
            if batch is not None:
                await turn.run(batch)
                if parser.drained:
                    return
            elif parser.blocked:
                await self._drained.park()
            else:
                return

    def answering(self, count: int) -> None:
        """Requests that hold nothing but their answers."""
        self._in_flight += count

    async def admit(self, batch: Batch) -> None:
        """Count a batch as in flight; waits for memory for its replies."""
        self._in_flight += len(batch.requests) + len(batch.refusals)
        self._held += batch.held_bytes
        if batch.read_bytes:
            await self._budget.acquire(batch.read_bytes)
            self._read_held += batch.read_bytes

    def _sent(self, count: int, held: int, read: int) -> None:
        self._in_flight -= count
        self._held -= held
        if read:
            self._read_held -= read
            self._budget.release(read)
        self._drained.unpark_all()


class _Turn:
    """What happens to one batch: admitted, refusals answered, requests handed to the handler."""

    def __init__(
        self, session: Session, handler: BatchHandler, outbox: Outbox, nursery: trio.Nursery
    ):
        self._session = session
        self._handler = handler
        self._outbox = outbox
        self._nursery = nursery
        self.is_swift = not handler.concurrent

    async def swiftly(self, parser: RequestParser, most: int) -> None:
        """Answer what can be answered at once, some at a time: a client makes its next requests
        while the rest of these are carried out."""
        outbox = self._outbox
        while most > 0:
            found = parser.unparsed()
            if found is None:
                return
            buffer, at, end = found
            some = min(most, _SOME)
            outbox.corked = True
            at, count = self._handler.swift(buffer, at, end, some, outbox)
            outbox.corked = False
            if not count:
                return
            parser.advance(at)
            self._session.answering(count)
            await outbox.uncork()
            if at == end:
                return
            most -= count

    async def run(self, batch: Batch) -> None:
        """Start it, or run it to its end if the handler wants one at a time."""
        admitted = False
        try:
            await self._session.admit(batch)
            admitted = True
        finally:
            if not admitted:
                batch.buffer.release()
        for refusal in batch.refusals:
            self._outbox.refuse(refusal)
        if self._handler.concurrent:
            self._nursery.start_soon(self._execute, batch)
            return
        self._outbox.corked = True
        await self._execute(batch)
        await self._outbox.uncork()

    async def _execute(self, batch: Batch) -> None:
        try:
            if batch.requests:
                await self._handler.execute(batch, self._outbox)
        finally:
            batch.buffer.release()
