"""A proxy that spoils what passes through it, and a server that always says the same.

Both are trio tasks on the loopback; what goes wrong is decided for each connection or request.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

_CHUNK = 1 << 16
_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Spoil:
    """What happens to one connection.

    ``refuse``: closed at once. ``answer``: this is the answer to every request, which the server
    never sees. ``silent``: requests are taken and nothing comes back. ``cut``: after so many bytes
    of the server's answers the connection is closed. ``deaf``: requests reach the server, the
    answers are thrown away and the connection is closed.
    """

    refuse: bool = False
    answer: bytes = b""
    silent: bool = False
    cut: int | None = None
    deaf: bool = False


WELL = Spoil()


@dataclass
class Proxy:
    """``spoil`` gives the fate of the connection with a number, from 0; it may be replaced.
    ``open``: connections that nobody has closed yet."""

    port: int
    spoil: Callable[[int], Spoil] = lambda _number: WELL
    connections: int = 0
    open: int = 0


@asynccontextmanager
async def proxied(
    target: int,
    spoil: Callable[[int], Spoil] = lambda _number: WELL,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Proxy]:
    """A proxy before the loopback's port ``target``; ``tls``: it speaks TLS to its clients."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = Proxy(listener.socket.getsockname()[1], spoil)

    async def handle(client: trio.SocketStream) -> None:
        fate, proxy.connections = proxy.spoil(proxy.connections), proxy.connections + 1
        stream: trio.abc.Stream = client
        if tls is not None:
            stream = trio.SSLStream(client, tls, server_side=True, https_compatible=True)
        proxy.open += 1
        try:
            async with stream:
                await _pass(stream, target, fate)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass  # a client that does not trust us, or has gone
        finally:
            proxy.open -= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()


async def _pass(client: trio.abc.Stream, target: int, fate: Spoil) -> None:
    if fate.refuse:
        return
    if fate.answer:
        await _answer(client, fate.answer)
        return
    if fate.silent:
        while await client.receive_some(_CHUNK):
            pass
        return
    server = await trio.open_tcp_stream("127.0.0.1", target)
    async with server, trio.open_nursery() as nursery:

        async def there() -> None:
            async for data in client:
                await server.send_all(data)
            await server.send_eof()

        async def back() -> None:
            left = fate.cut
            async for data in server:
                if fate.deaf:
                    break
                if left is not None and len(data) >= left:
                    await client.send_all(data[:left])
                    break
                left = None if left is None else left - len(data)
                await client.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(there)
        nursery.start_soon(back)


async def _answer(client: trio.abc.Stream, answer: bytes) -> None:
    """Take whole requests, one after the other, and answer each in the same way."""
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            more = await client.receive_some(_CHUNK)
            if not more or len(waiting) > _HEAD:
                return
            waiting += more
        head, _, waiting = waiting.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(waiting) < length:
            more = await client.receive_some(_CHUNK)
            if not more:
                return
            waiting += more
        waiting = waiting[length:]
        await client.send_all(answer)
        if b"Connection: close" in answer:
            return


def says(status: int, code: str = "", more: str = "", headers: str = "") -> bytes:
    """An answer as these servers give it when something is wrong."""
    body = f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>" if code else ""
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@asynccontextmanager
async def connecting(target: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy of HTTP CONNECT, which always leads to ``target``; what it was asked for."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    asked: list[bytes] = []

    async def handle(client: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD:
            head += await client.receive_some(_CHUNK)
        asked.append(head)
        await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            async with client:
                await _pass(client, target, WELL)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()
