"""One connection's socket: what it does at once, and what it waits for.

trio's own socket methods yield to the scheduler at each success, so that a turn of one request
costs two rounds of the event loop. Here a turn yields once, before it receives: to the scheduler
only, if the last turn found so much that there is likely more by now; else to wait for the client,
which has first to hear what became of its request.

A client that waits for each answer, and then asks again at once, is looked for a little before its
connection goes to sleep: waking up takes the event loop longer than the client takes to ask. That
is how QEMU polls for its own devices (``poll-max-ns`` of an iothread, 32 µs there). It is done for
one connection at a time, and left off for clients that take longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from stages.ports import Buffer

_BUSY = 16 << 10  # bytes of one receive: more than a client sends that waits for each answer
_LOOK = 50e-6  # seconds: a client at depth 1 comes within 20 to 40 µs
_SOON = 200e-6  # seconds of sleep, waking up included, after which looking might have found it
_TURNS = 8  # without giving way to other tasks
_MOST_DOUBT = 1024


class QuickCalls(Protocol):
    """Calls on a socket's descriptor that never wait: ``BlockingIOError`` instead. Handed in by the
    composition root. ``newest``: the connection that received last."""

    newest: object

    def now(self) -> float:
        """Seconds of a monotonic clock."""

    def receive(self, fd: int, target: memoryview) -> int:
        """Into ``target``; 0 at the end of the stream."""

    def look(self, fd: int, target: memoryview, seconds: float) -> int | None:
        """Receive what comes within so short a time; None if nothing does."""

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        """As much as the socket takes of ``parts``, at most 1024 of them."""

    def send_file(self, fd: int, file: int, offset: int, count: int) -> int:
        """As much as the socket takes of ``count`` bytes of another descriptor; 0 at its end."""


class Patience:
    """Whether to look for a client's next request before going to sleep: it has come soon after
    sleep began, and looking has not failed lately. Each failure doubles how often the client has to
    come soon before it is looked for again."""

    def __init__(self) -> None:
        self.eager = False
        self._doubt = 1
        self._wanted = 1

    def slept(self, seconds: float) -> None:
        """It came after so long a sleep."""
        if seconds > _SOON:
            self._wanted = self._doubt
            return
        self._wanted -= 1
        self.eager = self._wanted <= 0

    def found(self) -> None:
        """Looking was worth it."""
        self._doubt = 1

    def failed(self) -> None:
        """It was not."""
        self.eager = False
        self._doubt = self._wanted = min(2 * self._doubt, _MOST_DOUBT)


class Wire:
    """``sock``, through ``quick`` where that is given."""

    def __init__(self, sock: trio.socket.SocketType, quick: QuickCalls | None):
        self._socket = sock
        self._quick = quick
        self._busy = True  # something may have come already
        self._patience = Patience()
        self._turns = 0

    async def receive(self, target: memoryview, *, answered: bool = False) -> int:
        """Wait for something and put it into ``target``; 0 at the end of the stream. ``answered``:
        the client knows of all that it has asked for."""
        quick = self._quick
        if quick is None:
            return await self._socket.recv_into(target)
        if self._busy:
            await trio.lowlevel.checkpoint()
        elif answered and self._patience.eager and quick.newest is self:
            count = await self._look(quick, target)
            if count is not None:
                return self._received(quick, count)
            await trio.lowlevel.wait_readable(self._socket.fileno())
        else:
            began = quick.now()
            await trio.lowlevel.wait_readable(self._socket.fileno())
            self._patience.slept(quick.now() - began)
        while True:
            try:
                count = quick.receive(self._socket.fileno(), target)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket.fileno())
            else:
                return self._received(quick, count)

    async def _look(self, quick: QuickCalls, target: memoryview) -> int | None:
        self._turns += 1
        if self._turns >= _TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()
        count = quick.look(self._socket.fileno(), target, _LOOK)
        if count is None:
            self._patience.failed()
        else:
            self._patience.found()
        return count

    def _received(self, quick: QuickCalls, count: int) -> int:
        quick.newest = self
        self._busy = count >= _BUSY
        return count

    def send_now(self, data: Buffer) -> int:
        """How much of ``data`` the socket takes without waiting."""
        if self._quick is None:
            return 0
        try:
            return self._quick.send(self._socket.fileno(), (data,))
        except BlockingIOError:
            return 0

    async def send(self, parts: Sequence[Buffer]) -> int:
        """Some of ``parts``, at least a byte. Yields only if it has to wait."""
        if self._quick is None:
            return await self._socket.sendmsg(parts)
        while True:
            try:
                return self._quick.send(self._socket.fileno(), parts)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket.fileno())

    async def send_file(self, file: int, offset: int, count: int) -> int | None:
        """Some of ``count`` bytes of a descriptor, 0 at its end; None if it cannot be done so."""
        if self._quick is None:
            return None
        while True:
            try:
                return self._quick.send_file(self._socket.fileno(), file, offset, count)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket.fileno())
