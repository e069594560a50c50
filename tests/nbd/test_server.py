"""Many connections: none hurts another, and the end is clean."""

from __future__ import annotations

import random
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stages.errors import SourceIO, UsageError
from stages.nbd import wire
from stages.nbd.device import Part
from stages.nbd.handler import DeviceHandler
from stages.nbd.listening import TcpAddress, UnixAddress, parse_address
from stages.nbd.server import NbdServer
from stages.nbd.session import Limits
from tests.nbd.memory import Gated, MemoryDevice, info
from tests.nbd.serving import Client, Served, connected, serving, short_directory
from tests.nbd.spoken import NEWSTYLE, option, request, write


@asynccontextmanager
async def crowd() -> AsyncIterator[tuple[Served, Client]]:
    """A server of a 32 MiB disk that begins with an x, and a client that does nothing wrong."""
    device = MemoryDevice(info(size=32 << 20), b"x")
    async with serving(device) as served, connected(served) as bystander:
        yield served, bystander


async def test_several_exports_by_name() -> None:
    one, two = MemoryDevice(info("one"), b"1"), MemoryDevice(info("two"), b"2")
    async with serving(one, two) as served:
        async with connected(served, "one") as first, connected(served, "two") as second:
            assert await first.read(0, 1) == b"1"
            assert await second.read(0, 1) == b"2"
        with pytest.raises(AssertionError):
            async with connected(served, ""):
                pass
    async with serving(one, two, default="two") as served, connected(served, "") as client:
        assert await client.read(0, 1) == b"2"


async def test_connections_see_each_others_writes() -> None:
    device = MemoryDevice(info())
    async with serving(device) as served, connected(served) as one, connected(served) as two:
        await one.ask(write(100, b"seen"))
        assert await two.read(100, 4) == b"seen"


async def test_tcp_on_loopback() -> None:
    address = TcpAddress("127.0.0.1", 0)
    async with serving(MemoryDevice(info(), b"x"), address=address) as served:
        assert isinstance(served.address, TcpAddress)
        assert served.address.port
        async with connected(served) as client:
            assert await client.read(0, 1) == b"x"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:./a.sock", UnixAddress("./a.sock")),
        ("127.0.0.1:10809", TcpAddress("127.0.0.1", 10809)),
        ("localhost:1", TcpAddress("127.0.0.1", 1)),
        ("[::1]:5", TcpAddress("::1", 5)),
        ("tcp:127.9.9.9:0", TcpAddress("127.9.9.9", 0)),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:" + "x" * 108, "0.0.0.0:1", "192.168.0.1:10809", "host:1", "[::]:1",
     "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "unix:a\0b"],
)  # fmt: skip
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.hint


def test_uris() -> None:
    assert UnixAddress("/a b").uri("x/y") == "nbd+unix:///x%2Fy?socket=/a%20b"
    assert TcpAddress("::1", 9).uri("d") == "nbd://[::1]:9/d"


async def test_the_socket_is_private_and_removed() -> None:
    async with serving(MemoryDevice(info())) as served:
        assert isinstance(served.address, UnixAddress)
        path = trio.Path(served.address.path)
        found = await path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
    assert not await path.exists()


async def test_a_live_socket_is_refused_and_a_stale_one_replaced() -> None:
    device = MemoryDevice(info(), b"x")
    async with serving(device) as served:
        assert isinstance(served.address, UnixAddress)
        with pytest.raises(UsageError, match="listening"):
            await NbdServer([DeviceHandler(device)]).run(served.address)
        async with connected(served) as client:
            assert await client.read(0, 1) == b"x"
    with short_directory() as directory:
        path = Path(directory) / "s"
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as left:
            await left.bind(str(path))
        address = UnixAddress(str(path))
        async with serving(device, address=address) as served, connected(served) as client:
            assert await client.read(0, 1) == b"x"


async def test_another_file_is_not_replaced() -> None:
    with short_directory() as directory:
        path = Path(directory) / "precious"
        path.write_text("data")
        for place in (str(path), directory, str(path / "s"), directory + "/no/s"):
            with pytest.raises(UsageError):
                await NbdServer([]).run(UnixAddress(place))
        assert path.read_text() == "data"


async def test_a_taken_port_is_refused() -> None:
    async with serving(MemoryDevice(info()), address=TcpAddress("127.0.0.1", 0)) as served:
        with pytest.raises(UsageError):
            await NbdServer([]).run(served.address)


class Defective(MemoryDevice):
    async def read(self, offset: int, length: int) -> Sequence[Part]:
        raise LookupError("a defect")


async def test_a_defect_ends_one_connection_and_is_reported() -> None:
    bad, good = Defective(info("bad")), MemoryDevice(info("good"), b"x")
    async with serving(bad, good) as served, connected(served, "good") as bystander:
        async with connected(served, "bad") as client:
            await client.stream.send_all(request(wire.CMD_READ, 0, 1))
            assert await client.at_end()
        await served.settled(1)
        assert served.ended[0].how == "defect"
        assert served.ended[0].export == "bad"
        assert isinstance(served.ended[0].error, LookupError)
        assert await bystander.read(0, 1) == b"x"
        assert served.server.statistics().ended == {"defect": 1}


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (b"\0" * 28, "protocol"),
        (request(wire.CMD_WRITE, 0, 33 << 20), "protocol"),
        (write(0, b"x" * 100_000)[:50_000], "lost"),
        (write(1 << 40, b"x" * 100_000)[:50_000], "lost"),
        (request(wire.CMD_READ, 0, 1)[:5], "lost"),
    ],
)
async def test_bad_clients_hurt_only_themselves(said: bytes, how: str) -> None:
    async with serving(MemoryDevice(info(), b"x")) as served, connected(served) as bystander:
        async with connected(served) as client:
            await client.stream.send_all(said)
            if how == "protocol":
                assert await client.at_end()
        await served.settled(1)
        assert served.ended[0].how == how
        assert await bystander.read(0, 1) == b"x"


async def test_bad_negotiations() -> None:
    async with serving(MemoryDevice(info(), b"x")) as served:
        for said in (b"GET / HTTP/1.1\r\n\r\n", NEWSTYLE + b"y" * 100, b"\xff" * 4):
            async with connected(served, None) as client:
                await client.stream.send_all(said)
                await client.exactly(wire.GREETING.size)
                assert await client.at_end()
        async with connected(served, None) as client:
            await client.exactly(wire.GREETING.size)
        await served.settled(4)
        assert served.server.statistics().ended == {"protocol": 3, "left": 1}


async def test_a_slow_negotiation_is_ended(autojump_clock: MockClock) -> None:
    async with crowd() as (served, patient), connected(served, None) as client:
        await client.exactly(wire.GREETING.size)
        await client.stream.send_all(NEWSTYLE[:3])
        assert await client.at_end()
        await served.settled(1)
        assert served.ended[0].how == "slow"
        await trio.sleep(1000)
        assert await patient.read(0, 1) == b"x"


async def test_a_client_that_stops_inside_a_payload_is_dropped(autojump_clock: MockClock) -> None:
    async with crowd() as (served, bystander), connected(served) as client:
        said = write(0, bytes(20 << 20))
        for part in range(0, 10 << 20, 1 << 20):
            await client.stream.send_all(said[part : part + (1 << 20)])
            await trio.sleep(50)  # slow, but it moves
        assert served.server.statistics().memory.held > 20 << 20
        assert await client.at_end()
        await served.settled(1)
        assert served.ended[0].how == "stalled"
        assert served.server.statistics().memory.held == 0
        assert await bystander.read(0, 1) == b"x"


async def test_a_client_that_takes_no_replies_is_dropped(autojump_clock: MockClock) -> None:
    async with crowd() as (served, bystander), connected(served) as client:
        await client.stream.send_all(request(wire.CMD_READ, 0, 16 << 20) * 100)
        await wait_all_tasks_blocked()
        assert served.server.statistics().memory.held <= 64 << 20
        await served.settled(1)
        assert served.ended[0].how == "stalled"
        assert served.server.statistics().memory.held == 0
        assert await bystander.read(0, 1) == b"x"


async def test_two_hundred_connections() -> None:
    device = MemoryDevice(info(), b"x")
    async with serving(device) as served:
        answers: list[bytes] = []
        together = trio.Event()

        async def one(number: int) -> None:
            async with connected(served) as client:
                await client.ask(write(number * 16, b"%16d" % number))
                if served.server.statistics().open == 200:
                    together.set()
                await together.wait()
                answers.append(await client.read(number * 16, 16))

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(one, number)
        assert sorted(map(int, answers)) == list(range(200))
        await served.settled(200)
        assert served.server.statistics().open == 0
        assert served.server.statistics().ended == {"left": 200}


async def test_connections_are_bounded() -> None:
    async with serving(MemoryDevice(info(), b"x"), limits=Limits(connections=2)) as served:
        async with connected(served), connected(served) as second:
            async with connected(served, None) as third:
                assert await third.at_end()
            assert await second.read(0, 1) == b"x"
        await served.settled(2)
        async with connected(served) as again:
            assert await again.read(0, 1) == b"x"
        assert served.server.statistics().refused == 1


async def test_stop_finishes_what_is_in_flight_and_flushes() -> None:
    device = Gated()
    async with serving(device) as served, connected(served) as client:
        await client.stream.send_all(request(wire.CMD_READ, 0, 512))
        await wait_all_tasks_blocked()
        served.server.stop()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            async with connected(served):
                pass
        assert device.flushes == 0
        device.gate.set()
        assert not (await client.reply()).error
        assert await client.at_end()
    assert device.flushes == 1


async def test_stop_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    device = Gated()
    async with serving(device) as served, connected(served) as client, connected(served, None):
        await client.stream.send_all(request(wire.CMD_READ, 0, 512))
        await wait_all_tasks_blocked()
        served.server.stop()
        assert await client.at_end()
        assert {ended.how for ended in served.ended} == {"cut", "left"}
    assert device.flushes == 1


async def test_cancelled_it_flushes_all_the_same() -> None:
    device = MemoryDevice(info())
    with short_directory() as directory:
        async with trio.open_nursery() as nursery:
            server = NbdServer([DeviceHandler(device)])
            await nursery.start(server.run, UnixAddress(directory + "/s"))
            nursery.cancel_scope.cancel()
        assert device.flushes == 1
        assert not await trio.Path(directory, "s").exists()


class BadFlush(MemoryDevice):
    async def flush(self) -> None:
        raise OSError(5, "lost")


async def test_a_failed_flush_is_not_silent() -> None:
    bad, good = BadFlush(info("bad")), MemoryDevice(info("good"))
    server = NbdServer([DeviceHandler(bad), DeviceHandler(good)])
    server.stop()
    with short_directory() as directory, pytest.raises(SourceIO, match="lost"):
        await server.run(UnixAddress(directory + "/s"))
    assert good.flushes == 1


class NoFlushEnd(MemoryDevice):
    async def flush(self) -> None:
        await trio.sleep_forever()


async def test_a_flush_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    server = NbdServer([DeviceHandler(NoFlushEnd(info()))])
    server.stop()
    with short_directory() as directory, pytest.raises(SourceIO, match="in time"):
        await server.run(UnixAddress(directory + "/s"))


async def test_a_client_may_abort_and_hang_up_at_once() -> None:
    async with serving(MemoryDevice(info())) as served:
        stream = await trio.open_unix_socket(served.address.path)  # type: ignore[union-attr]
        async with stream:
            client = Client(stream)
            await client.exactly(wire.GREETING.size)
            await stream.send_all(NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, 2, 0))
        await served.settled(1)
        assert served.ended[0].how == "left"


def mangled(dice: random.Random) -> bytes:
    """A good session with some bytes changed, cut or doubled."""
    name = option(wire.OPT_EXPORT_NAME, b"disk")
    requests = [
        request(dice.randrange(9), dice.randrange(1 << 21), dice.randrange(1 << 17), cookie=9)
        for _ in range(5)
    ]
    said = bytearray(NEWSTYLE + option(wire.OPT_STRUCTURED_REPLY) + name + b"".join(requests))
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(said))
        change = dice.randrange(3)
        if change == 0:
            said[at] ^= 1 << dice.randrange(8)
        elif change == 1:
            del said[at : at + dice.randrange(30)]
        else:
            said[at:at] = said[at : at + dice.randrange(30)]
    return bytes(said)


async def test_mangled_sessions_are_no_defect() -> None:
    dice = random.Random(11)
    device = MemoryDevice(info())
    async with serving(device) as served, connected(served) as bystander:
        for _ in range(200):
            async with connected(served, None) as client:
                with suppress(trio.BrokenResourceError):
                    await client.stream.send_all(mangled(dice))
                    await client.stream.send_eof()
                    while await client.stream.receive_some(1 << 20):
                        pass
        await served.settled(200)
        assert {ended.how for ended in served.ended} <= {"left", "lost", "protocol"}
        assert served.server.statistics().memory.held == 0
        await bystander.ask(write(0, b"x"))
        assert await bystander.read(0, 1) == b"x"
