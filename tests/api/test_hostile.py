"""Bytes that are no request, half of one, or another protocol: an answer or an end, no defect."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.api.settings import Limits
from pipeline.cli.client import Client, DaemonGone, Where
from tests.api.operator import Operator
from tests.api.serving import Serving, served

_UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
_SAID = (
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/machines/%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /v1/daemon/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/daemon/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
    b"POST /v1/daemon/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\n" + _UPGRADE + b"websocket\r\n" + _KEY + b"\r\n",
    b"GET /v1/machines HTTP/1.1\r\nHost: x\r\n"
    + _UPGRADE
    + b"h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 50,
    b"GET /v1/jobs?limit=%00&before=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


async def _say(serving: Serving, data: bytes) -> bytes:
    """Say it, hang up the own side, and read what comes."""
    heard = b""
    with trio.fail_after(30):
        async with await trio.open_unix_socket(serving.unix) as stream:
            try:
                await stream.send_all(data)
                await stream.send_eof()
                while chunk := await stream.receive_some(65536):
                    heard += chunk
            except trio.BrokenResourceError:
                pass
    return heard


async def _lives(serving: Serving) -> None:
    answer = await _say(serving, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer


@pytest.mark.parametrize("said", _SAID, ids=range(len(_SAID)))
async def test_what_is_no_request(
    tmp_path: Path, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    control = Operator()
    limits = Limits(idle_seconds=0.5, request_seconds=0.5)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        answer = await _say(serving, said)
        assert b" 200 " not in answer.partition(b"\r\n")[0]
        assert b" 500 " not in answer.partition(b"\r\n")[0]
        await _lives(serving)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR], caplog.text


async def test_who_has_hung_up_takes_no_place(tmp_path: Path) -> None:
    """However long a connection may be idle, and however few there may be. In a thread: a client
    that hangs up as soon as it has its answer, while the server still ends it."""
    control = Operator()
    limits = Limits(idle_seconds=3600, connections=4)

    def ask(client: Client) -> None:
        for _ in range(100):
            with suppress(DaemonGone):
                client.get("/v1/machines")

    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        client = Client(Where(f"unix:{serving.unix}"))
        await trio.to_thread.run_sync(ask, client)
        with trio.fail_after(30):
            while True:
                with suppress(DaemonGone):
                    await trio.to_thread.run_sync(client.get, "/v1/machines")
                    break


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([each[:200] for each in _SAID]), max_size=5)
)
async def test_any_bytes(tmp_path: Path, said: list[bytes]) -> None:
    control = Operator()
    limits = Limits(idle_seconds=0.2, request_seconds=0.2)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        await _say(serving, b"".join(said))
        await _lives(serving)
