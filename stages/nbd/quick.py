"""One connection's socket: what it does at once, and what it waits for.

trio's own socket methods yield to the scheduler at each success, so that a turn of one request
costs two rounds of the event loop. Here a turn yields once, before it receives: to the scheduler
only, if the last turn found so much that there is likely more by now; else to wait for the client,
which has first to hear what became of its request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from stages.ports import Buffer

_BUSY = 16 << 10  # bytes of one receive: more than a client sends that waits for each answer


class QuickCalls(Protocol):
    """Calls on a socket's descriptor that never wait: ``BlockingIOError`` instead. Handed in by the
    composition root."""

    def receive(self, fd: int, target: memoryview) -> int:
        """Into ``target``; 0 at the end of the stream."""

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        """As much as the socket takes of ``parts``, at most 1024 of them."""

    def send_file(self, fd: int, file: int, offset: int, count: int) -> int:
        """As much as the socket takes of ``count`` bytes of another descriptor; 0 at its end."""


class Wire:
    """``sock``, through ``quick`` where that is given."""

    def __init__(self, sock: trio.socket.SocketType, quick: QuickCalls | None):
        self._socket = sock
        self._quick = quick
        self._busy = True  # something may have come already

    async def receive(self, target: memoryview) -> int:
        """Wait for something and put it into ``target``; 0 at the end of the stream."""
        if self._quick is None:
            return await self._socket.recv_into(target)
        if self._busy:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._socket.fileno())
        while True:
            try:
                count = self._quick.receive(self._socket.fileno(), target)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket.fileno())
            else:
                self._busy = count >= _BUSY
                return count

    def send_now(self, data: bytes) -> int:
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
