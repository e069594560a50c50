"""Whatever a peer says ends its own connection; intake and the others go on."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from pipeline.daemon.frames import VERSION, Frames, connect
from pipeline.daemon.link_client import IntakeGone, command, upstream
from pipeline.daemon.link_server import LinkServer
from stages.errors import BackstayError, IllegalOperation, NotFound
from stages.joint import Joint
from stages.stage import crew
from stages.stream import DeliveryGone, Position

DELIVERY = ["delivery", VERSION, "web1"]
CONTROL = ["control", VERSION]


class Served:
    """A server with one machine, and commands that wait."""

    def __init__(self, path: str):
        self.path = path
        self.joint = Joint()
        self.joint.publish(Position(1, 0))
        self.waiting = 0
        self.waits = trio.Event()
        self.cancelled = trio.Event()

    async def control(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "echo":
            return arguments
        if name == "wait":
            self.waiting += 1
            self.waits.set()
            try:
                await trio.sleep_forever()
            finally:
                self.waiting -= 1
                self.cancelled.set()
        if name == "refuse":
            raise IllegalOperation("not now", operation="refuse", subject="x", hint="later")
        raise NotFound("no such command")

    async def is_well(self) -> None:
        """It still answers, and delivers."""
        assert await command(self.path, "echo", a=1) == {"a": 1}
        async with upstream(self.path, "web1") as remote:
            assert remote.durable == Position(1, 0)


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Served]:
    found = Served(str(tmp_path / "s.sock"))
    async with crew() as nursery:
        server = LinkServer(found.path, {"web1": found.joint}, found.control)
        await nursery.start(server.run)
        yield found
        nursery.cancel_scope.cancel()


async def hung_up(frames: Frames) -> None:
    """Read until the other side has gone."""
    try:
        while await frames.receive() is not None:
            pass
    except (OSError, trio.BrokenResourceError):
        pass
    await frames.aclose()


HELLOS: list[list[Any]] = [
    ["hello"],
    [None],
    [[1, 2]],
    ["delivery"],
    ["delivery", VERSION],
    ["delivery", VERSION + 1, "web1"],
    ["delivery", VERSION, "web2"],
    ["delivery", VERSION, []],
    ["delivery", VERSION, {}],
    ["delivery", [], "web1"],
    ["control"],
    ["control", VERSION + 1],
    ["control", VERSION, 1],
]
WORDS: list[list[Any]] = [
    ["nonsense"],
    [7],
    [{}],
    ["committed"],
    ["committed", "1", 2],
    ["committed", 1, None],
    ["settled", 1, [2]],
    ["marked", 1, 2, 3],
    ["marked", "1", 2, 3, "crash", ""],
    ["lost", 5],
    ["answer", 1],
    ["answer", 1, 5],
    ["answer", 1, "text"],
    ["answer", [], b""],
    ["attach", 1],
]


@pytest.mark.parametrize("hello", HELLOS, ids=str)
async def test_strange_greetings(hello: list[Any], tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        frames = await connect(served.path)
        await frames.send(*hello)
        await hung_up(frames)
        await served.is_well()


@pytest.mark.parametrize("words", WORDS, ids=str)
async def test_strange_deliveries(words: list[Any], tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        frames = await connect(served.path)
        await frames.send(*DELIVERY)
        await frames.send(*words)
        await hung_up(frames)
        await served.is_well()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        struct.pack("<I", 3) + b"\x91\x90\xc1",
        struct.pack("<I", 4) + b"\x91\x81\x90\x01",
        struct.pack("<I", 100) + b"cut",
        b"\x01",
    ],
)
@pytest.mark.parametrize("hello", [None, DELIVERY, CONTROL], ids=str)
async def test_noise(data: bytes, hello: list[Any] | None, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.connect(served.path)
        stream = trio.SocketStream(sock)
        if hello is not None:
            packed = msgpack.packb(hello)
            await stream.send_all(struct.pack("<I", len(packed)) + packed)
        await stream.send_all(data)
        await stream.send_eof()
        await hung_up(Frames(stream))
        await served.is_well()


@pytest.mark.parametrize(
    ("what", "value"),
    [("key", b"short"), ("chunks", b""), ("chunks", b"x" * 31), ("blocks", b"x" * 48)],
)
async def test_wrong_answers_are_no_answers(what: str, value: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path) as served, trio.open_nursery() as nursery:
        frames = await connect(served.path)
        await frames.send(*DELIVERY)
        await frames.send("attach")
        await served.joint.wait_present()

        async def answer() -> None:
            while (message := await frames.receive()) is not None:
                if message[0] == "ask":
                    assert message[2] == what
                    await frames.send("answer", message[1] + 5, value)  # nobody asked that
                    await frames.send("answer", message[1], value)
                    return

        nursery.start_soon(answer)
        with pytest.raises(DeliveryGone):
            if what == "key":
                await served.joint.key()
            elif what == "chunks":
                await served.joint.chunks(0, 0, 2)
            else:
                await served.joint.blocks(0, 0, 2)
        await served.is_well()
        await frames.aclose()


async def test_who_says_nothing_is_hung_up_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(tmp_path) as served:
        await hung_up(await connect(served.path))


async def test_connections_have_a_limit(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        held = []
        for _ in range(65):  # one more than is left beside each machine's delivery
            frames = await connect(served.path)
            await frames.send(*CONTROL)
            await frames.send(1, "echo", {})
            assert await frames.receive() == ["done", 1, {}]
            held.append(frames)
        with pytest.raises(IntakeGone):
            await command(served.path, "echo")
        for frames in held:
            await frames.aclose()
        with trio.fail_after(30):
            while True:  # it sees that they have gone, and has room again
                try:
                    await served.is_well()
                except IntakeGone:
                    continue
                break


async def test_commands_side_by_side_by_number(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        frames = await connect(served.path)
        await frames.send(*CONTROL)
        await frames.send(5, "wait", {})
        await frames.send(6, "echo", {"b": [2]})
        assert await frames.receive() == ["done", 6, {"b": [2]}]
        await frames.send(7, "refuse", {})
        assert await frames.receive() == [
            *("failed", 7, "IllegalOperation", "not now", "refuse", "x", "later")
        ]
        assert served.waiting == 1
        with suppress(trio.BrokenResourceError):
            for number in range(20):
                await frames.send(number, "wait", {})
        await hung_up(frames)  # too many at a time
        await served.is_well()
        assert served.waiting == 0


async def test_who_hangs_up_waits_for_nothing_any_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        frames = await connect(served.path)
        await frames.send(*CONTROL)
        await frames.send(1, "wait", {})
        await served.waits.wait()
        await frames.aclose()
        await served.cancelled.wait()
        assert served.waiting == 0


async def test_errors_come_back_as_they_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(IllegalOperation) as caught:
            await command(served.path, "refuse")
        error = caught.value
        assert (error.message, error.operation, error.subject, error.hint) == (
            *("not now", "refuse", "x", "later"),
        )
        with pytest.raises(NotFound):
            await command(served.path, "nonsense")
    with pytest.raises(BackstayError) as gone:
        await command(served.path, "echo")
    assert gone.value.hint == "start it with: backstay run CONFIG"
