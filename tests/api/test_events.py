"""Server-sent events over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
import trio

from pipeline.api.settings import Limits
from tests.api.operator import Operator
from tests.api.serving import Serving, served

PATIENCE = 30.0


@dataclass
class Said:
    """A message, or a comment."""

    fields: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        return str(json.loads(self.fields["data"])["message"])


class Follower:
    """Reads a stream of events as a browser does."""

    def __init__(self, stream: trio.SocketStream):
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self._http = h11.Connection(h11.CLIENT)
        self._text = ""

    async def ask(self, query: str, headers: dict[str, str]) -> None:
        fields = [("Host", "x"), *headers.items()]
        where = f"/v1/events/stream{query}"
        await self.stream.send_all(
            self._http.send(h11.Request(method="GET", target=where, headers=fields)) or b""
        )
        await self.stream.send_all(self._http.send(h11.EndOfMessage()) or b"")
        answer = await self._next()
        assert isinstance(answer, h11.Response)
        self.status = answer.status_code
        self.headers = {name.decode(): value.decode() for name, value in answer.headers}

    async def said(self) -> Said | None:
        """The next message or comment; None at the end."""
        while "\n\n" not in self._text:
            found = await self._next()
            if not isinstance(found, h11.Data):
                return None
            self._text += found.data.decode()
        block, _, self._text = self._text.partition("\n\n")
        lines = (line.partition(": ") for line in block.split("\n"))
        return Said({name: value for name, _, value in lines})

    async def event(self) -> Said | None:
        """The next that is one."""
        while (found := await self.said()) is not None:
            if "id" in found.fields:
                return found
        return None

    async def _next(self) -> object:
        while (found := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.stream.receive_some(65536))
        return found


@asynccontextmanager
async def following(
    serving: Serving, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Follower]:
    with trio.fail_after(PATIENCE):
        async with await trio.open_unix_socket(serving.unix) as stream:
            found = Follower(stream)
            await found.ask(query, headers or {})
            yield found


async def _read(
    serving: Serving, count: int, headers: dict[str, str] | None = None, query: str = ""
) -> list[Said]:
    """The first events that a follower hears."""
    found: list[Said] = []
    async with following(serving, query, headers) as follower:
        assert follower.headers["content-type"] == "text/event-stream"
        while len(found) < count:
            each = await follower.event()
            assert each is not None
            found.append(each)
    return found


@pytest.fixture
def control() -> Operator:
    found = Operator()
    for number in range(5):
        found.happen("state", f"web{number % 2}", f"{number}")
    return found


async def test_a_follower_goes_on_where_it_was(control: Operator, tmp_path: Path) -> None:
    async with served(control, control.refused, tmp_path) as serving:
        (first, second) = await _read(serving, 2, query="?after=0")
        assert (first.fields["id"], first.fields["event"], first.message) == ("1", "state", "0")
        rest = await _read(serving, 3, {"Last-Event-ID": second.fields["id"]}, "?after=0")
        assert [each.message for each in rest] == ["2", "3", "4"]
        some = await _read(serving, 2, query="?after=0&machine=web1")
        assert [each.message for each in some] == ["1", "3"]
        async with serving.client() as client:
            for wrong in ("x", "-1", "9" * 30):
                found = await client.get("/v1/events/stream", headers={"Last-Event-ID": wrong})
                assert found.status_code == 422
                assert found.json()["errors"][0]["field"] == "Last-Event-ID"
            page = (await client.get("/v1/events?after=3")).json()["events"]
            assert [each["message"] for each in page] == ["3", "4"]


async def test_what_comes_is_heard_and_silence_too(control: Operator, tmp_path: Path) -> None:
    limits = Limits(heartbeat_seconds=0.02)
    async with (
        served(control, control.refused, tmp_path, limits=limits) as serving,
        following(serving) as follower,
    ):
        assert await follower.said() == Said({"retry": "2000"})
        assert await follower.said() == Said({"": "still here"})
        control.happen("job", "web1", "new")
        found = await follower.event()
        assert found is not None
        assert (found.fields["id"], found.message) == ("6", "new")
        assert await follower.said() == Said({"": "still here"})


async def test_the_end_of_the_daemon_is_the_end_of_a_stream(
    control: Operator, tmp_path: Path
) -> None:
    async with (
        served(control, control.refused, tmp_path) as serving,
        following(serving, "?after=0") as follower,
    ):
        assert await follower.event()
        serving.stop()
        with trio.CancelScope(shield=True):
            while await follower.event():
                pass


async def test_followers_are_not_too_many(control: Operator, tmp_path: Path) -> None:
    limits = Limits(followers=2)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        async with following(serving) as one, following(serving) as two:
            assert (one.status, two.status) == (200, 200)
            async with following(serving) as three:
                assert three.status == 503
        again = 503
        while again == 503:  # the places are free when the server knows
            async with following(serving) as four:
                again = four.status
        assert again == 200


async def test_one_that_does_not_read_is_cut_off(control: Operator, tmp_path: Path) -> None:
    limits = Limits(send_seconds=0.2)
    async with served(control, control.refused, tmp_path, limits=limits) as serving:
        stalled = await trio.open_unix_socket(serving.unix)
        await stalled.send_all(b"GET /v1/events/stream?after=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        control.lag = 10**9
        for _ in range(3000):  # more than the kernel holds for it
            control.happen("state", "web1", "x" * 1000)
        with trio.fail_after(PATIENCE):
            assert (await _read(serving, 1, query="?after=3"))[0].message == "3"
            received = 0
            try:
                while chunk := await stalled.receive_some(65536):
                    received += len(chunk)
                    await trio.sleep(0.3 if received < 100_000 else 0)
            except trio.BrokenResourceError:
                pass
        assert 0 < received < 3_000_000
        await stalled.aclose()


async def test_one_too_far_behind_hears_that_it_is_over(control: Operator, tmp_path: Path) -> None:
    control.lag = 2
    async with (
        served(control, control.refused, tmp_path) as serving,
        following(serving, "?after=0") as follower,
    ):
        assert await follower.event()
        assert await follower.event() is None
