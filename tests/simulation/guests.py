"""Guests that write through the splitter, and the server that stands for its sockets."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import trio

from stages.capture.splitter.handler import SplitHandler
from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.transmission import Batch, Request
from stages.stream import REGION
from tests.simulation.knobs import Knobs
from tests.simulation.model import Flush, Op

CHANGES = (wire.CMD_WRITE, wire.CMD_TRIM, wire.CMD_WRITE_ZEROES)
DRAIN_SECONDS = 10.0
_BUFFER = 1 << 18
_MOST = 1 << 17  # bytes of one batch, at most


class Wrong(AssertionError):
    """A rule is broken."""


@dataclass(slots=True)
class Sent:
    """A request under way, and what was done to the source for it."""

    request: Request
    disk: str
    started: float
    ops: list[Op] = field(default_factory=list)
    answered: bool = False

    def covers(self, offset: int, data: bytes) -> bool:
        """Is this change what was asked for?"""
        request = self.request
        if self.answered or request.command not in CHANGES:
            return False
        at = offset - request.offset
        if at < 0 or at + len(data) > request.length:
            return False
        if request.command == wire.CMD_WRITE:
            return data == bytes(request.payload[at : at + len(data)])
        return data == bytes(len(data))


class Witness:
    """Who hears what guests ask and what they are told."""

    def asked(self, sent: Sent) -> Flush | None: ...

    def told(self, sent: Sent, flush: Flush | None, error: str) -> None: ...


PRESENT: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


class Exchange:
    """A batch under way: a ``ReplySink``. Its requests' order is their cookie."""

    def __init__(self, disk: str, requests: Sequence[Request], witness: Witness):
        now = trio.current_time()
        self.sent = [Sent(request, disk, now) for request in requests]
        self._witness = witness
        self._flushes = [witness.asked(sent) for sent in self.sent]
        self.over = trio.Event()
        self.gone = False  # the guest has left: an error is told to nobody
        self._left = len(self.sent)

    def done(self, request: Request) -> None:
        self._answer(request, "")

    def done_all(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._answer(request, "")

    def done_now(self, requests: Sequence[Request]) -> None:
        self.done_all(requests)

    def done_swiftly(self, cookies: Sequence[int]) -> None:
        for cookie in cookies:
            self._answer(self.sent[cookie].request, "")

    def place(self, length: int) -> memoryview | None:
        return memoryview(bytearray(length))

    def keep(self, cookie: int, offset: int, length: int) -> None:
        self._answer(self.sent[cookie].request, "")

    def data(self, request: Request, parts: Any) -> None:
        self._answer(request, "")

    def extents(self, request: Request, extents: Any) -> None:
        self._answer(request, "")

    def fail(self, request: Request, error: int, reason: str) -> None:
        self._answer(request, reason or "failed")

    async def carried_out(self, handler: SplitHandler, batch: Batch, begin: int) -> None:
        """As a session does it: what can be done at once, and then the rest."""
        requests = batch.requests
        end = requests[-1].at + len(requests[-1].payload)
        _, count = handler.swift(batch.buffer, begin, end, len(requests), self)
        if count < len(requests):
            await handler.execute(batch._replace(requests=requests[count:]), self)

    def _answer(self, request: Request, error: str) -> None:
        sent = self.sent[request.cookie]
        if sent.answered:
            raise Wrong(f"{request} was answered twice")
        sent.answered = True
        if not (self.gone and error):
            self._witness.told(sent, self._flushes[request.cookie], error)
        self._left -= 1
        if not self._left:
            self.over.set()


class SimServer:
    """Stands for ``NbdServer``: serves guests instead of sockets, and ends as that does."""

    def __init__(self, exports: Sequence[SplitHandler], guest: Callable[..., Any]):
        self._exports = list(exports)
        self._guest = guest
        self._connections: trio.Nursery
        self.stopped = trio.Event()

    async def run(self, address: object, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with trio.open_nursery() as self._connections:
                task_status.started(self)
                await self.stopped.wait()
                self._connections.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                for export in self._exports:
                    await self._flush(export)

    def offer(self, export: SplitHandler) -> None:
        self._exports.append(export)
        for _ in range(2):
            self._connections.start_soon(self._guest, export, self.stopped)

    @staticmethod
    async def _flush(export: SplitHandler) -> None:
        with suppress(OSError):  # told to nobody but the log
            await export.flush()

    def stop(self) -> None:
        self.stopped.set()

    def uri(self, name: str) -> str:
        return name

    def statistics(self) -> Any:
        raise NotImplementedError


class Guest:
    """Makes requests of one disk, as one connection: they stand one behind the other in a buffer
    as they would come from a socket, and the buffer is used again once nobody holds it."""

    def __init__(self, knobs: Knobs, dice: random.Random):
        self._knobs = knobs
        self._dice = dice
        self._buffer = ReceiveBuffer(_BUFFER, lambda _: None)
        self._at = 0

    def batch(self, size: int, most: int) -> tuple[Batch, int, int]:
        """Up to ``most`` requests, how many of them change something, and where they begin in the
        buffer; the batch holds it."""
        if self._buffer.holders == 1:
            self._at = 0  # all that was in it is journalled
        elif self._at > _BUFFER - _MOST:
            self._buffer.release()
            self._buffer, self._at = ReceiveBuffer(_BUFFER, lambda _: None), 0
        self._buffer.hold()
        requests: list[Request] = []
        begin, changes = self._at, 0
        for cookie in range(self._dice.choice((1, 1, 2, 3, 5))):
            if changes >= most:
                break
            request = self._request(cookie, size)
            requests.append(request)
            changes += request.command in CHANGES
        return Batch(requests, [], self._buffer, 0, 0), changes, begin

    def _request(self, cookie: int, size: int) -> Request:
        command, flags, offset, length = self._command(), 0, 0, 0
        if command == wire.CMD_READ:
            length = BLOCK
        elif command != wire.CMD_FLUSH:
            offset, length = self._place(size)
            flags = wire.FLAG_FUA if self._dice.random() < self._knobs.fua else 0
        view, at = self._buffer.view, self._at
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, command, cookie, offset, length)
        view[at : at + len(head)] = head
        at += len(head)
        if command != wire.CMD_WRITE:
            self._at = at
            return Request(command, flags, cookie, offset, length, memoryview(b""), at)
        self._at = at + length
        view[at : self._at] = self._dice.randbytes(length)
        return Request(command, flags, cookie, offset, length, view[at : self._at], at)

    def _command(self) -> int:
        knobs, luck = self._knobs, self._dice.random()
        for share, command in (
            (knobs.flush, wire.CMD_FLUSH),
            (knobs.trim, wire.CMD_TRIM),
            (knobs.zero, wire.CMD_WRITE_ZEROES),
            (0.02, wire.CMD_READ),
        ):
            if luck < share:
                return command
            luck -= share
        return wire.CMD_WRITE

    def _place(self, size: int) -> tuple[int, int]:
        """Some blocks at the start, or around a region's border, or at the disk's end."""
        dice = self._dice
        border = max(0, min(size, REGION) - self._knobs.hot // 2 * BLOCK) // BLOCK * BLOCK
        base = dice.choice((0, 0, border, max(0, size // BLOCK - 12) * BLOCK))
        offset = base + dice.randrange(self._knobs.hot) * BLOCK
        length = dice.choice((1, 1, 1, 2, 4)) * BLOCK
        if dice.random() < self._knobs.odd:
            offset += dice.choice((0, 512, 700))
            length = dice.choice((1, 512, 700, 5000))
        offset = min(offset, (size - 1) // 512 * 512)
        return offset, min(length, size - offset)
