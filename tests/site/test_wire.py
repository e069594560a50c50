"""Answers that are cut, late, odd or not a site's: heard through streams in memory, no clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from stages.errors import (
    BackstayError,
    NoSpace,
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.store.port import Put
from stages.store.site import protocol
from stages.store.site.address import parse_site
from stages.store.site.connection import Connection
from stages.store.site.store import SiteStore
from stages.system import this_machine
from tests.ports.watched import machine as inline

Peer = Callable[[trio.StapledStream[Any, Any]], Awaitable[None]]
BODY = b"0123456789"
HEAD = (
    b"HTTP/1.1 %s\r\nBackstay-Site: 1\r\nBackstay-Modified: 1.5\r\n"
    b"Content-Length: %d\r\nBackstay-Error: %s\r\n\r\n"
)


def response(status: bytes = b"200 OK", body: bytes = BODY, error: bytes = b"none") -> bytes:
    return HEAD % (status, len(body), error) + body


class Opened:
    """A store whose every connection is answered by a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, peer: Peer):
        self.connections = 0

        async def open_(site: Any, _context: Any) -> Connection:
            self.connections += 1
            ours, theirs = memory_stream_pair()
            nursery.start_soon(peer, theirs)
            return Connection(ours, site)

        async def no_context(_: Any) -> None:
            return None

        monkeypatch.setattr(Connection, "open", open_)
        monkeypatch.setattr("stages.store.site.pool.Credentials.context", no_context)
        ports = inline(this_machine().files)
        self.store = SiteStore(parse_site("site://host/vault?timeout=5s"), ports)


def says(*answers: bytes) -> Peer:
    """Hears a request, says the next answer, closes after the last one."""

    async def peer(stream: trio.StapledStream[Any, Any]) -> None:
        for answer in answers:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += await stream.receive_some()
            await stream.send_all(answer)
        await stream.aclose()

    return peer


async def _silent(stream: trio.StapledStream[Any, Any]) -> None:
    await trio.sleep_forever()


async def _trickling(stream: trio.StapledStream[Any, Any]) -> None:
    """A byte before each pause that would be too long."""
    await stream.receive_some()
    with suppress(trio.BrokenResourceError):
        for byte in response() + bytes(1000):
            await stream.send_all(bytes([byte]))
            await trio.sleep(4.9)


_OPERATIONS: tuple[Callable[[SiteStore], Awaitable[object]], ...] = (
    lambda store: store.put("k", [b"abc"]),
    lambda store: store.get("k"),
    lambda store: store.info("k"),
    lambda store: store.page(""),
    lambda store: store.delete("k"),
)


@pytest.mark.parametrize("peer", [_silent, _trickling])
async def test_silence_ends(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, peer: Peer
) -> None:
    async with trio.open_nursery() as nursery:
        store = Opened(monkeypatch, nursery, peer).store
        for number, call in enumerate(_OPERATIONS):
            begun = trio.current_time()
            with pytest.raises(StoreUnreachable) as caught:
                await call(store)
            assert isinstance(caught.value, OutcomeUnknown) is (number == 0)
            assert trio.current_time() - begun <= 12
        nursery.cancel_scope.cancel()


async def test_an_answer_cut_at_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = response()
    for end in range(len(whole)):
        async with trio.open_nursery() as nursery:
            store = Opened(monkeypatch, nursery, says(whole[:end])).store
            with pytest.raises(StoreUnreachable):
                await store.get("k")
    async with trio.open_nursery() as nursery:
        assert await Opened(monkeypatch, nursery, says(whole)).store.get("k") == BODY
    created = response(b"201 Created", b"")
    for end in range(len(created)):
        async with trio.open_nursery() as nursery:
            store = Opened(monkeypatch, nursery, says(created[:end])).store
            with pytest.raises(OutcomeUnknown):
                await store.put("k", [b"abc"])
    async with trio.open_nursery() as nursery:
        store = Opened(monkeypatch, nursery, says(created)).store
        assert await store.put("k", [b"abc"]) is Put.CREATED


async def test_a_kept_connection_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads asks again on another; a put does not, because it may have arrived."""
    async with trio.open_nursery() as nursery:
        opened = Opened(monkeypatch, nursery, says(response()))
        for _ in range(3):
            assert await opened.store.get("k") == BODY
        assert opened.connections == 3
        with pytest.raises(OutcomeUnknown):
            await opened.store.put("k", [b"abc"])
        await opened.store.aclose()


async def test_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        opened = Opened(monkeypatch, nursery, says(*[response()] * 20))
        for _ in range(10):
            assert await opened.store.get("k") == BODY
        assert opened.connections == 1
        await opened.store.aclose()
        nursery.cancel_scope.cancel()


_PROBLEM = json.dumps({"detail": "it\x00 is so", "hint": "do that"}).encode()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (b"400 x", b"SiteRefused", StoreError),
        (b"403 x", b"Forbidden", StoreDenied),
        (b"404 x", b"ObjectMissing", ObjectMissing),
        (b"404 x", b"SiteRefused", StoreError),
        (b"408 x", b"Busy", StoreUnreachable),
        (b"409 x", b"SiteRefused", ValueError),
        (b"413 x", b"SiteRefused", StoreError),
        (b"422 x", b"SiteRefused", StoreUnreachable),
        (b"500 x", b"OutcomeUnknown", OutcomeUnknown),
        (b"500 x", b"StoreDenied", OutcomeUnknown),
        (b"503 x", b"StoreUnreachable", StoreUnreachable),
        (b"507 x", b"NoSpace", NoSpace),
        (b"302 x", b"none", StoreError),
    ],
)
async def test_what_answers_mean(
    monkeypatch: pytest.MonkeyPatch, status: bytes, error: bytes, kind: type[Exception]
) -> None:
    async with trio.open_nursery() as nursery:
        store = Opened(monkeypatch, nursery, says(response(status, _PROBLEM, error))).store
        with pytest.raises(kind) as caught:
            await store.put("k", [b"abc"])
        assert type(caught.value) is kind
        if isinstance(caught.value, BackstayError):
            assert caught.value.message == "the site says: it is so"
            assert caught.value.hint == "do that"


_NO_SITE = b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize("status", [b"200 OK", b"404 x", b"403 x", b"412 x", b"502 x", b"204 x"])
async def test_what_is_no_site(monkeypatch: pytest.MonkeyPatch, status: bytes) -> None:
    """A proxy's 404 does not mean that an object is missing, its 412 not that one is there."""
    for call in _OPERATIONS:
        async with trio.open_nursery() as nursery:
            answer = _NO_SITE % status
            store = Opened(monkeypatch, nursery, says(answer, answer)).store
            with pytest.raises(StoreUnreachable):
                await call(store)
            await store.aclose()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"objects": [["A", 1, 1]], "more": false}', b"[" * 100_000,
     b'{"objects": [["a", "x", 1]], "more": 0}', b'{"objects": [["a"]], "more": 0}'],
)  # fmt: skip
async def test_a_list_that_is_none(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    async with trio.open_nursery() as nursery:
        store = Opened(monkeypatch, nursery, says(response(body=body))).store
        with pytest.raises(StoreUnreachable, match="no list"):
            await store.page("")


async def test_more_than_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        store = Opened(monkeypatch, nursery, says(response(b"206 x"))).store
        with pytest.raises(StoreUnreachable, match="longer"):
            await store.get("k", 0, 5)
        store = Opened(monkeypatch, nursery, says(response(body=bytes(3 << 20)))).store
        with pytest.raises(StoreUnreachable, match="longer"):
            await store.page("")
        store = Opened(monkeypatch, nursery, says(response())).store
        with pytest.raises(StoreError):  # the range was ignored
            await store.get("k", 5, 5)
        nursery.cancel_scope.cancel()


def test_targets() -> None:
    assert protocol.listing("v", "a b&", "é", 5) == (
        "/v1/vaults/v/objects?prefix=a+b%26&after=%C3%A9&limit=5"
    )
    assert protocol.byte_range(3, None) == "bytes=3-"
    assert protocol.byte_range(3, 2) == "bytes=3-4"
