"""What one connection may do, and what becomes of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.errors import DamagedObject, NoSpace
from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.device import DeviceInfo, Extent, FileRange, Part, error_code
from stages.nbd.quick import QuickCalls
from stages.nbd.replies import ReplySink
from stages.nbd.session import Limits
from stages.nbd.transmission import Batch
from stages.system import SocketCalls, SystemFiles
from tests.nbd.memory import MemoryDevice, info
from tests.nbd.serving import connected, serving
from tests.nbd.spoken import NEWSTYLE, option, request, write


@pytest.mark.parametrize("structured", [True, False])
async def test_write_read_and_everything_else(structured: bool) -> None:
    device = MemoryDevice(info(size=100_001))
    async with serving(device) as served, connected(served, structured=structured) as client:
        assert (await client.ask(write(99_990, b"hello world"))).error == 0
        assert await client.read(99_988, 13) == b"\0\0hello world"
        assert (await client.ask(write(0, b"abc", flags=wire.FLAG_FUA))).error == 0
        assert (await client.ask(request(wire.CMD_WRITE_ZEROES, 1, 1))).error == 0
        assert await client.read(0, 3) == b"a\0c"
        assert (await client.ask(request(wire.CMD_TRIM, 0, 3))).error == 0
        assert (await client.ask(request(wire.CMD_FLUSH))).error == 0
        assert device.flushes == 1
        await client.stream.send_all(request(wire.CMD_DISC))
        assert await client.at_end()
        await served.settled(1)
        assert served.ended[0].how == "left"


async def test_block_status() -> None:
    device = MemoryDevice(info(size=20_000), bytes(8192) + b"data")
    async with serving(device) as served, connected(served) as client:
        reply = await client.ask(request(wire.CMD_BLOCK_STATUS, 100, 19_900))
        hole, data = wire.STATE_HOLE | wire.STATE_ZERO, 0
        assert reply.data == _descriptors((8092, hole), (4096, data), (7712, hole))
        one = await client.ask(request(wire.CMD_BLOCK_STATUS, 0, 20_000, flags=wire.FLAG_REQ_ONE))
        assert one.data == _descriptors((8192, hole))


def _descriptors(*extents: tuple[int, int]) -> bytes:
    pairs = [length.to_bytes(4, "big") + flags.to_bytes(4, "big") for length, flags in extents]
    return b"".join([b"\0\0\0\1", *pairs])


@pytest.mark.parametrize("structured", [True, False])
async def test_many_requests_in_one_piece(structured: bool) -> None:
    device = MemoryDevice(info())
    said = b"".join(write(i * 512, bytes([i]) * 512, cookie=i) for i in range(200))
    async with serving(device) as served, connected(served, structured=structured) as client:
        await client.stream.send_all(said)
        answered = {(await client.reply()).cookie for _ in range(200)}
        assert answered == set(range(200))
        assert await client.read(0, 200 * 512) == b"".join(bytes([i]) * 512 for i in range(200))


async def test_requests_may_come_with_the_last_option() -> None:
    device = MemoryDevice(info(), b"content")
    async with serving(device) as served, connected(served, None) as client:
        await client.exactly(wire.GREETING.size)
        name = option(wire.OPT_EXPORT_NAME, b"disk")
        await client.stream.send_all(NEWSTYLE + name + request(wire.CMD_READ, 0, 7))
        await client.exactly(wire.EXPORT_NAME_REPLY.size)
        assert (await client.reply(7)).data == b"content"


@pytest.mark.parametrize("structured", [True, False])
async def test_errors_are_of_one_request(structured: bool) -> None:
    device = MemoryDevice(info(size=1 << 20))
    async with serving(device) as served, connected(served, structured=structured) as client:
        beyond = await client.ask(write((1 << 20) - 1, b"xy" * 5000))
        assert beyond.error == wire.ENOSPC
        assert (b"end" in beyond.data) == structured
        assert (await client.ask(request(wire.CMD_READ, 1 << 20, 1))).error == wire.EINVAL
        assert (await client.ask(request(77))).error == wire.EINVAL
        assert await client.read(0, 4) == bytes(4)


class Failing(MemoryDevice):
    """Raises what it is given."""

    def __init__(self, error: BaseException):
        super().__init__(info())
        self.error = error

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        raise self.error


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (OSError(errno.ENOSPC, "full"), wire.ENOSPC),
        (PermissionError(errno.EACCES, "no"), wire.EPERM),
        (OSError(errno.EBADF, "odd"), wire.EIO),
        (OSError("no number"), wire.EIO),
        (NoSpace("full"), wire.ENOSPC),
        (DamagedObject("broken", subject="key"), wire.EIO),
        (MemoryError(), wire.ENOMEM),
        (ExceptionGroup("two", [DamagedObject("broken"), OSError(errno.EIO, "x")]), wire.EIO),
    ],
)
async def test_what_a_device_raises_becomes_an_error(raised: BaseException, code: int) -> None:
    async with serving(Failing(raised)) as served, connected(served) as client:
        reply = await client.ask(request(wire.CMD_READ, 0, 10))
        assert reply.error == code
        assert (await client.ask(request(wire.CMD_FLUSH))).error == 0


def test_error_codes() -> None:
    assert error_code(OSError(errno.EROFS, "")) == wire.EPERM
    assert error_code(OSError(errno.EDQUOT, "")) == wire.ENOSPC
    assert error_code(OSError(errno.EOPNOTSUPP, "")) == wire.ENOTSUP


class Odd(MemoryDevice):
    """Returns parts of the wrong length, and no extents."""

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        return [bytes(length), b"more"]

    async def extents(self, offset: int, length: int) -> list[Extent]:
        return []


async def test_a_device_that_breaks_its_promise() -> None:
    async with serving(Odd(info())) as served, connected(served) as client:
        assert (await client.ask(request(wire.CMD_READ, 0, 10))).error == wire.EIO
        assert (await client.ask(request(wire.CMD_BLOCK_STATUS, 0, 10))).error == wire.EIO


class Gated(MemoryDevice):
    """Reads wait for a gate; counts how many do."""

    def __init__(self, about: DeviceInfo | None = None) -> None:
        super().__init__(about or info())
        self.gate = trio.Event()
        self.inside = self.most = 0

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return await super().read(offset, length)


async def test_a_slow_request_does_not_hold_up_others() -> None:
    device = Gated()
    async with serving(device) as served, connected(served) as client:
        said = [request(wire.CMD_READ, 0, 512, cookie=i) for i in range(50)]
        flush = request(wire.CMD_FLUSH, cookie=99)
        await client.stream.send_all(b"".join(said) + write(0, b"x", cookie=98) + flush)
        early = {(await client.reply()).cookie for _ in range(2)}
        assert early == {98, 99}
        assert device.inside == 50
        device.gate.set()
        assert {(await client.reply()).cookie for _ in range(50)} == set(range(50))


class Tardy(MemoryDevice):
    """Looks at what it writes only some turns later."""

    async def write(self, offset: int, data: memoryview, fua: bool) -> None:
        for _ in range(offset % 7):
            await trio.lowlevel.checkpoint()
        await super().write(offset, data, fua)


async def test_a_payload_stays_until_the_device_has_written_it() -> None:
    device = Tardy(info())
    limits = Limits(buffer_bytes=64 << 10)
    async with serving(device, limits=limits) as served, connected(served) as client:

        async def send() -> None:
            for i in range(250):
                await client.stream.send_all(write(i * 4000, bytes([i]) * 4000, cookie=i))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert {(await client.reply()).cookie for _ in range(250)} == set(range(250))
    expected = b"".join(bytes([i]) * 4000 for i in range(250))
    assert device.content[: len(expected)] == expected


async def test_requests_in_flight_are_bounded() -> None:
    device = Gated()
    limits = Limits(requests=7)
    async with serving(device, limits=limits) as served, connected(served) as client:
        said = [request(wire.CMD_READ, 0, 512, cookie=i) for i in range(40)]
        await client.stream.send_all(b"".join(said))
        await wait_all_tasks_blocked()
        assert device.most == 7
        device.gate.set()
        assert {(await client.reply()).cookie for _ in range(40)} == set(range(40))
        assert device.most == 7


async def test_bytes_in_flight_are_bounded() -> None:
    mib32 = 32 << 20
    device = Gated(info(size=mib32))
    async with serving(device) as served, connected(served) as client:
        said = [request(wire.CMD_READ, 0, mib32, cookie=i) for i in range(5)]
        await client.stream.send_all(b"".join(said))
        await wait_all_tasks_blocked()
        assert device.most == 2
        assert served.server.statistics().memory.held == 2 * mib32
        device.gate.set()
        for _ in range(5):
            assert len((await client.reply()).data) == mib32 + 8
        assert device.most == 2
        assert served.server.statistics().memory.held == 0


async def test_connections_share_the_memory_for_replies() -> None:
    device = Gated(info(size=32 << 20))
    limits = Limits(shared_bytes=(32 << 20) + 28)
    said = request(wire.CMD_READ, 0, 20 << 20)
    async with serving(device, limits=limits) as served:
        async with connected(served) as one, connected(served) as two:
            await one.stream.send_all(said)
            await two.stream.send_all(said)
            await wait_all_tasks_blocked()
            assert device.most == 1
            device.gate.set()
            assert not (await one.reply()).error
            assert not (await two.reply()).error
        await served.settled(2)
        assert served.server.statistics().memory.peak == 20 << 20
        assert served.server.statistics().memory.held == 0


async def test_what_is_in_flight_is_finished_after_a_disconnect() -> None:
    device = Gated()
    async with serving(device) as served, connected(served) as client:
        await client.stream.send_all(request(wire.CMD_READ, 0, 512) + request(wire.CMD_DISC))
        await wait_all_tasks_blocked()
        device.gate.set()
        assert not (await client.reply()).error
        assert await client.at_end()


class InOrder:
    """A handler that wants one batch at a time."""

    concurrent = False

    def __init__(self) -> None:
        self.info = info()
        self.batches: list[list[int]] = []
        self.running = 0

    def swift(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        return at, 0

    async def execute(self, batch: Batch, replies: ReplySink) -> None:
        assert not self.running
        self.running = 1
        self.batches.append([r.cookie for r in batch.requests])
        await trio.lowlevel.checkpoint()
        replies.done_all(batch.requests)
        self.running = 0

    async def flush(self) -> None:
        return


async def test_batches_in_order() -> None:
    handler = InOrder()
    async with serving(handlers=[handler]) as served, connected(served) as client:
        for first in range(0, 100, 10):
            said = [write(0, b"x" * 100, cookie=first + i) for i in range(10)]
            await client.stream.send_all(b"".join(said) + request(99, cookie=1000))
        cookies = [(await client.reply()).cookie for _ in range(110)]
        assert [cookie for cookie in cookies if cookie < 1000] == list(range(100))
        assert [cookie for batch in handler.batches for cookie in batch] == list(range(100))


class Swift(InOrder):
    """Answers whole writes at once; leaves every seventh request to a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.swift_ones: list[int] = []
        self.content: list[bytes] = []

    def swift(
        self, buffer: ReceiveBuffer, at: int, end: int, most: int, replies: ReplySink
    ) -> tuple[int, int]:
        found: list[int] = []
        while len(found) < most and end - at >= wire.REQUEST.size:
            _, _, command, cookie, _, length = wire.REQUEST.unpack_from(buffer.view, at)
            stop = at + wire.REQUEST.size + length
            if command != wire.CMD_WRITE or stop > end or cookie % 7 == 0:
                break
            self.content.append(bytes(buffer.view[stop - length : stop]))
            found.append(cookie)
            at = stop
        if found:
            replies.done_swiftly(found)
        self.swift_ones += found
        return at, len(found)


@pytest.mark.parametrize("quick", [None, SocketCalls()])
async def test_swift_answers_and_batches_keep_the_order(quick: QuickCalls | None) -> None:
    handler, count = Swift(), 600
    limits = Limits(requests=8, buffer_bytes=64 << 10)
    said = b"".join(write(0, n.to_bytes(4, "big") * 25, cookie=n) for n in range(count))
    async with (
        serving(handlers=[handler], limits=limits, quick=quick) as served,
        connected(served) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.stream.send_all, said)
        cookies = [(await client.reply()).cookie for _ in range(count)]
    assert cookies == list(range(count))
    batched = [cookie for batch in handler.batches for cookie in batch]
    assert sorted(handler.swift_ones + batched) == list(range(count))
    assert len(handler.swift_ones) > 50
    assert handler.content == [n.to_bytes(4, "big") * 25 for n in handler.swift_ones]
    assert batched == sorted(batched)
    assert handler.swift_ones == sorted(handler.swift_ones)


async def test_swift_answers_stay_bounded_for_a_client_that_does_not_read() -> None:
    handler, limits = Swift(), Limits(requests=16, buffer_bytes=64 << 10)
    said = b"".join(write(0, b"x", cookie=1) for _ in range(200_000))
    async with serving(handlers=[handler], limits=limits) as served, connected(served) as client:
        with trio.move_on_after(60) as waited:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.stream.send_all, said)
                before = -1
                while before != len(handler.swift_ones):  # until it takes no more
                    before = len(handler.swift_ones)
                    await wait_all_tasks_blocked(0.2)
                nursery.cancel_scope.cancel()
        assert not waited.cancelled_caught
        assert len(handler.swift_ones) < 200_000


class FromFile(MemoryDevice):
    """Reads are ranges of a file."""

    def __init__(self, path: str, size: int):
        super().__init__(info(size=size, read_only=True))
        self.file = SystemFiles().open_read(path)

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        half = length // 2
        parts: list[Part] = [FileRange(self.file, offset, half)]
        return [*parts, FileRange(self.file, offset + half, length - half)]


@pytest.mark.parametrize("quick", [SocketCalls(), None])
async def test_ranges_of_a_file_are_sent_from_it(tmp_path: Path, quick: QuickCalls | None) -> None:
    content = os.urandom(3_000_001)
    path = tmp_path / "content"
    path.write_bytes(content)
    device = FromFile(str(path), 4_000_000)
    async with serving(device, quick=quick) as served:
        async with connected(served) as client:
            assert await client.read(0, len(content)) == content
            assert await client.read(17, 4099) == content[17:4116]
        async with connected(served, structured=False) as client:
            said = [request(wire.CMD_READ, at, 9000, cookie=at) for at in range(0, 90_000, 9000)]
            await client.stream.send_all(b"".join(said))
            for _ in said:
                reply = await client.reply(9000)
                assert reply.data == content[reply.cookie : reply.cookie + 9000]
        async with connected(served) as client:  # the file ends before the device does
            await client.stream.send_all(request(wire.CMD_READ, 2_999_000, 5000))
            with pytest.raises(EOFError):
                await client.reply()
        await served.settled(3)
        assert [ended.how for ended in served.ended] == ["left", "left", "protocol"]
    device.file.close()
