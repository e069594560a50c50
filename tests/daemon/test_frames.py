"""Messages: what is sent arrives, however it is cut; what is none ends in ``ProtocolError``."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipeline.daemon.frames import MAX_FRAME, Frames, connect
from pipeline.reach import reachable
from stages.errors import ProtocolError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(st.lists(VALUES, min_size=1, max_size=5), max_size=5)


class Cut(trio.abc.Stream):
    """Gives what it holds in pieces of the sizes given, then the end."""

    def __init__(self, data: bytes, sizes: list[int]):
        self.data = data
        self._sizes = sizes
        self.sent = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        size = min(self._sizes.pop(0) if self._sizes else 1 << 20, max_bytes or 1 << 20)
        found, self.data = self.data[:size], self.data[size:]
        return found

    async def send_all(self, data: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def received(data: bytes, sizes: list[int]) -> list[Any]:
    async def all_of() -> list[Any]:
        frames = Frames(Cut(data, sizes))
        found = []
        while (message := await frames.receive()) is not None:
            found.append(message)
        return found

    return trio.run(all_of)


@given(MESSAGES, st.lists(st.integers(1, 40), max_size=60))
def test_messages_survive_any_cutting(messages: list[list[Any]], sizes: list[int]) -> None:
    async def packed() -> bytes:
        stream = Cut(b"", [])
        frames = Frames(stream)
        for message in messages:
            await frames.send(*message)
        return stream.sent

    assert received(trio.run(packed), sizes) == messages


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
def test_noise_is_refused_and_nothing_worse(noise: bytes, sizes: list[int]) -> None:
    for data in (noise, struct.pack("<I", len(noise)) + noise):
        try:
            found = received(data, list(sizes))
        except ProtocolError:
            continue
        assert all(isinstance(message, list) and message for message in found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgpack.packb([]),
        msgpack.packb("text"),
        msgpack.packb({"a": 1}),
        b"\x91",  # a list without its element
        b"\x91\x01\x01",  # more behind it
        b"\x91\x81\x90\x01",  # a list as the key of a mapping
        b"\x91\x81\x01\x01",  # a number as the key of a mapping
        b"\x91\xa1\xff",  # text that is not UTF-8
        b"\x91" * 100_000 + b"\x01",  # too deep
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements
        b"\x91\xc1",  # never used
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        received(struct.pack("<I", len(body)) + body, [])


def test_a_message_has_a_bound_and_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError):
        received(struct.pack("<I", MAX_FRAME + 1), [])


async def test_too_large_a_message_is_not_sent() -> None:
    stream = Cut(b"", [])
    with pytest.raises(ValueError, match="a message of"):
        await Frames(stream).send(bytes(MAX_FRAME))
    assert not stream.sent


async def test_a_peer_that_does_not_read_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()  # sends wait for the other side
    frames = Frames(ours)
    with pytest.raises(trio.BrokenResourceError):
        await frames.send("hello")
    with pytest.raises(trio.ClosedResourceError):
        await frames.send("half a message must not follow")
    await theirs.aclose()


async def test_a_cancelled_sender_leaves_no_half_message() -> None:
    ours, theirs = trio.socket.socketpair()
    async with trio.open_nursery() as nursery:
        sender, receiver = Frames(trio.SocketStream(ours)), Frames(trio.SocketStream(theirs))
        large = bytes(8 << 20)  # more than the socket holds

        async def send() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                await sender.send("first", large)
            await sender.send("second")

        async def cancel(scope: trio.CancelScope) -> None:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            assert await receiver.receive() == ["first", large]
            assert await receiver.receive() == ["second"]
            nursery.cancel_scope.cancel()

        nursery.start_soon(send)
    await sender.aclose()
    await receiver.aclose()


@pytest.mark.parametrize("depth", [0, 3])
async def test_sockets_in_deep_folders_are_reached(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["long" * 20] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "s.sock")
    with reachable(path) as short:
        assert len(os.fsencode(short)) <= 107
        server = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        with server:
            await server.bind(short)
            server.listen(1)
            assert await trio.Path(path).is_socket()
            frames = await connect(path)
            await frames.aclose()


async def test_nobody_listens(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("x" * 200)):
        with pytest.raises(OSError):
            await connect(str(folder / "none.sock"))
