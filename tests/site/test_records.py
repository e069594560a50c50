"""TLS records come together, in order and whole, however the network cuts them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from stages.store.site.records import WIDTH, Wide, receive

RECORD = 16 << 10
_AUTHORITY = trustme.CA()


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _AUTHORITY.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    _AUTHORITY.configure_trust(client)
    return client, server


@asynccontextmanager
async def _ends(
    near: trio.abc.Stream, far: trio.abc.Stream
) -> AsyncIterator[tuple[trio.SSLStream[trio.abc.Stream], trio.SSLStream[trio.abc.Stream]]]:
    for_client, for_server = _contexts()
    client = trio.SSLStream(near, for_client, server_hostname="localhost", https_compatible=True)
    server = trio.SSLStream(far, for_server, server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await server.do_handshake()
    yield client, server
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@asynccontextmanager
async def _sockets() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
    far = await listener.accept()
    await listener.aclose()
    yield near, far


class _Odd(trio.abc.Stream):
    """Gives ``cut`` bytes at a time; the byte after ``spoiled`` more is another one."""

    def __init__(self, inner: trio.abc.Stream, *, cut: int = 1 << 20):
        self._inner = inner
        self._cut = cut
        self.spoiled = -1

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytearray(await self._inner.receive_some(min(self._cut, max_bytes or self._cut)))
        if 0 <= self.spoiled < len(data):
            data[self.spoiled] ^= 1
            self.spoiled = -1
        elif self.spoiled >= 0:
            self.spoiled -= len(data)
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_many_records_in_one_turn() -> None:
    """What the speed of a site rests on: trio keeps them where ``receive`` looks for them."""
    sent = bytes(range(256)) * (1 << 12)
    async with _sockets() as (near, far), _ends(near, Wide(far)) as (client, server):
        turns, got = 0, bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, sent)
            while len(got) < len(sent):
                got += await receive(server)
                turns += 1
        assert bytes(got) == sent
        assert turns < len(sent) / RECORD / 2
        await client.send_all(b"a word")
        assert await receive(server) == b"a word"  # it waits for no more than has come


@pytest.mark.parametrize("cut", [1, 5, 1000, RECORD, 3 * RECORD + 7])
async def test_records_that_come_in_pieces(cut: int) -> None:
    near, far = memory_stream_pair()
    sent = bytes(range(251)) * (400 if cut > 5 else 80)
    async with _ends(near, _Odd(far, cut=cut)) as (client, server):
        await client.send_all(sent)
        got = bytearray()
        while len(got) < len(sent):
            got += await receive(server)
        assert bytes(got) == sent


async def test_a_plain_stream_and_the_end() -> None:
    near, far = memory_stream_pair()
    await near.send_all(b"x" * 100)
    assert await receive(far) == b"x" * 100
    await near.send_eof()
    assert await receive(far) == b""


async def test_what_was_changed_on_its_way_is_never_given_out() -> None:
    sent = bytes(range(256)) * (WIDTH // 256)
    for spoiled in (0, RECORD, 3 * RECORD, 5 * RECORD + 100):
        near, far = memory_stream_pair()
        odd = _Odd(far)
        async with _ends(near, odd) as (client, server):
            odd.spoiled = spoiled
            await client.send_all(sent)
            got = bytearray()
            with pytest.raises(trio.BrokenResourceError):
                while len(got) < len(sent):
                    got += await receive(server)
            assert sent.startswith(bytes(got))
