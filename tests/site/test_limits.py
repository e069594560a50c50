"""What nobody outside can make larger: strangers, pauses, sizes, memory."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.https.connection import tls_context
from pipeline.https.drain import Drained
from pipeline.https.serve import Bounds, Door, serve
from pipeline.site.app import Site, build_app
from pipeline.site.body import Budget
from pipeline.site.config import load_site
from pipeline.site.problems import Busy, answer_to, refuse
from stages.errors import StoreUnreachable
from stages.store.file import FileStore
from stages.store.open import open_store
from stages.store.port import Put
from stages.store.site.address import parse_site
from stages.system import this_machine
from tests.site.serving import Served

_LOG = logging.getLogger("tests")


class Running:
    """A site in this process, with bounds of its own."""

    def __init__(self, served: Served, vault: Path, bounds: Bounds):
        self.config = load_site(str(served.place / "site.yaml"))
        self.store = FileStore(str(vault), this_machine())
        self.site = Site(self.config, {"standby": self.store}, Budget(4 << 20))
        self._bounds = bounds
        self._served = served
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await self.store.create_root()
        tls = self.config.site.tls
        context = tls_context(tls.cert, tls.key, tls.client_ca, required=True)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        app = Drained(build_app(self.site), lambda: answer_to(refuse(413, "no body")))
        door = Door(listeners[0], lambda: context)
        await serve(
            app, [door], self._bounds, _LOG, started=task_status.started, ending=lambda: None
        )

    def url(self, client: str = "web1") -> str:
        return self._served.url(client).replace(f":{self._served.port}/", f":{self.port}/")


@pytest.fixture
async def running(
    site_process: Served, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Running:
    monkeypatch.setattr("pipeline.https.drain._LINGER_SECONDS", 0.1)
    bounds = Bounds(4, 0.5, 0.5, strangers=3, handshake=60.0)
    found = Running(site_process, tmp_path / "v", bounds)
    await nursery.start(found.run)
    return found


async def test_strangers_who_say_nothing(running: Running) -> None:
    """Slow loris: the oldest of too many goes, and who is known comes in at once."""
    store = open_store(running.url(), this_machine())
    mute = [await trio.open_tcp_stream("127.0.0.1", running.port) for _ in range(12)]
    with trio.fail_after(30):
        for stream in mute[:9]:
            with pytest.raises(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
                raise trio.BrokenResourceError
        assert await store.put("k", [b"x"]) is Put.CREATED
    await store.aclose()
    for stream in mute:
        await trio.aclose_forcefully(stream)


async def test_requests_that_do_not_end(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that stops halfway is cut off; a body that does is told so. Nothing is stored."""
    monkeypatch.setattr("pipeline.site.body.PAUSE_SECONDS", 0.2)
    head = b"PUT /v1/vaults/standby/objects/k HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n"
    for said, answer in ((head, b""), (head + b"Content-Length: 10\r\n\r\nabc", b"HTTP/1.1 408")):
        stream = await _connected(running)
        await stream.send_all(said)
        heard = b""
        with trio.fail_after(30):
            while chunk := await stream.receive_some():
                heard += chunk
        assert heard.startswith(answer)
        assert bool(heard) is bool(answer)
        await trio.aclose_forcefully(stream)
    assert await running.store.page("") == []


async def test_too_many_connections(running: Running) -> None:
    held = [await _connected(running) for _ in range(4)]
    with trio.fail_after(30):
        more = await _connected(running)
        with pytest.raises(trio.BrokenResourceError):
            if not await more.receive_some():
                raise trio.BrokenResourceError
        for stream in (*held, more):
            await trio.aclose_forcefully(stream)
        store = open_store(running.url(), this_machine())
        while True:  # until the site has noticed that they are gone
            try:
                assert await store.info("k") is None
                break
            except StoreUnreachable:
                await trio.sleep(0.01)
        await store.aclose()


async def test_an_object_that_is_too_large(running: Running) -> None:
    most = running.config.site.max_object
    stream = await _connected(running)
    head = b"PUT /v1/vaults/standby/objects/k HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n"
    await stream.send_all(head + b"Content-Length: %d\r\n\r\n" % (most + 1))
    with trio.fail_after(30):
        heard = bytes(await stream.receive_some())
    assert heard.startswith(b"HTTP/1.1 413")
    await trio.aclose_forcefully(stream)


async def _connected(running: Running) -> trio.SSLStream[trio.SocketStream]:
    site = parse_site(running.url())
    context = ssl.create_default_context(cafile=site.ca)
    context.load_cert_chain(site.cert, site.key)
    stream = await trio.open_ssl_over_tcp_stream(
        "localhost", running.port, ssl_context=context, https_compatible=True
    )
    await stream.do_handshake()
    return stream


async def test_memory_is_shared_in_order() -> None:
    budget = Budget(100)
    inside: list[int] = []
    out = {size: trio.Event() for size in (60, 50, 30, 100, 1)}

    async def take(size: int) -> None:
        async with budget.room(size):
            inside.append(size)
            assert sum(inside) <= 100
            await out[size].wait()
            inside.remove(size)

    async with trio.open_nursery() as nursery:
        for size in out:
            nursery.start_soon(take, size)
            await wait_all_tasks_blocked()
        # The 30 would fit, but the 50 came before it.
        for size, within in ((60, [30, 50]), (50, [30]), (30, [100]), (100, [1]), (1, [])):
            out[size].set()
            await wait_all_tasks_blocked()
            assert sorted(inside) == within


async def test_room_is_waited_for_a_while(autojump_clock: MockClock) -> None:
    budget = Budget(100)
    async with budget.room(100):
        with pytest.raises(Busy):
            async with budget.room(1):
                raise AssertionError
        with trio.move_on_after(1) as scope:
            async with budget.room(1):
                raise AssertionError
        assert scope.cancelled_caught
    async with budget.room(100):  # nothing of it is lost
        pass
