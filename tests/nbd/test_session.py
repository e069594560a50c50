"""What one connection may do, and what becomes of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.errors import DamagedObject, NoSpace
from stages.nbd import wire
from stages.nbd.device import Extent, FileRange, Part, error_code
from stages.nbd.quick import QuickCalls
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
