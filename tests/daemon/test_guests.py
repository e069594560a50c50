"""Guests that lie, stop, hang up and come in hundreds, at a running daemon with an honest one."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from pipeline.daemon.link_client import command
from stages.nbd import wire
from stages.nbd.listening import UnixAddress
from tests.cli.support import MIB, Place
from tests.daemon.running import (
    PATIENCE,
    replicating,
    restored_is_the_source,
    running,
)
from tests.nbd import spoken
from tests.nbd.serving import Client, Served, connected

HUGE = 0xFFFF_FFFF
MOST = 256  # connections
MEMORY = 96 * MIB  # more than intake had before its guests came
CONNECTS = 2000

# After the greeting: what ends the connection at once.
GREETINGS = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    random.Random(1).randbytes(4096),
    struct.pack(">I", 0xFFFF_FFFC) + bytes(64),
    spoken.NEWSTYLE + b"\0" * 64,
    spoken.NEWSTYLE + spoken.option(wire.OPT_ABORT),
)
# And what promises more than anyone sends.
PROMISES = (
    spoken.NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_GO, HUGE) + bytes(1000),
    spoken.NEWSTYLE + wire.OPTION.pack(wire.OPTION_MAGIC, 77, HUGE) + bytes(100_000),
    spoken.NEWSTYLE + spoken.go()[:-3],
    spoken.NEWSTYLE[:1],
    b"",
)
# Once it serves: what ends the connection, what is answered with an error, what waits for more.
ENDED = (
    random.Random(2).randbytes(4096),
    bytes(28),
    wire.REQUEST.pack(wire.REQUEST_MAGIC ^ 1, 0, wire.CMD_READ, 7, 0, 512),
)
ANSWERED = (
    spoken.request(99, 0, 4096),
    spoken.request(wire.CMD_READ, 0, HUGE),
    spoken.request(wire.CMD_READ, 0, (32 << 20) + 1),
    spoken.request(wire.CMD_READ, 1 << 62, 4096),
    spoken.request(wire.CMD_TRIM, 0, HUGE),
    spoken.request(wire.CMD_WRITE_ZEROES, 0, HUGE),
    spoken.request(wire.CMD_READ, 0, 4096, flags=0x8000),
)
UNFINISHED = (
    spoken.request(wire.CMD_WRITE, 0, HUGE) + bytes(70_000),
    spoken.request(wire.CMD_WRITE, 0, 32 << 20) + bytes(70_000),
    spoken.request(wire.CMD_WRITE, 0, 4096)[:20],
    spoken.write(0, bytes(4096))[:-1],
)


def peak(pid: int) -> int:
    """Bytes of memory that a process had at most."""
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().split("\n") if "VmHWM" in x]
    return int(line.split()[1]) << 10


@asynccontextmanager
async def an_honest_guest(place: Place) -> AsyncIterator[None]:
    """fio writes to the second half of the disk and verifies what it wrote, meanwhile."""
    words = [
        "fio", "--name=x", "--ioengine=nbd", "--uri=nbd+unix:///root?socket=root.sock",
        "--rw=randwrite", "--bsrange=4k-64k", "--iodepth=8", "--offset=6M", "--size=6M",
        "--loops=12", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fsync=50",
    ]  # fmt: skip
    async with trio.open_nursery() as nursery:
        fio = partial(trio.run_process, words, cwd=place.root, capture_stdout=True)
        await nursery.start(fio)  # it raises if fio finds fault
        yield


async def lies(served: Served) -> None:
    """One after the other; the daemon holds none of them in memory."""
    for said in GREETINGS:
        async with connected(served, None) as client:
            await client.exactly(wire.GREETING.size)
            await client.stream.send_all(said)
            await gone(client)
    for said in ENDED:
        async with connected(served, "root") as client:
            await client.stream.send_all(said)
            await gone(client)
    async with connected(served, "root") as client:
        for said in ANSWERED:
            assert (await client.ask(said)).error
        await client.read(0, 512)
    async with AsyncExitStack() as stack:
        held = []
        for _ in range(3):
            for said in PROMISES:
                held.append(await stack.enter_async_context(connected(served, None)))
                await held[-1].stream.send_all(said)
            for said in UNFINISHED:
                held.append(await stack.enter_async_context(connected(served, "root")))
                await held[-1].stream.send_all(said)
        async with connected(served, "root") as client:
            await client.read(0, 512)


async def gone(client: Client) -> None:
    """The server hangs up, whatever it says before."""
    with trio.fail_after(PATIENCE):
        while not await client.at_end():
            client._unread.clear()


async def comes_and_goes(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(_connects, served, CONNECTS // 8)


async def _connects(served: Served, count: int) -> None:
    for number in range(count):
        async with connected(served, None) as client:
            if number % 4 == 0:
                await client.exactly(wire.GREETING.size)
            if number % 16 == 0:
                await client.stream.send_all(spoken.NEWSTYLE)


async def hundreds(served: Served, count: int) -> None:
    """Each writes and reads blocks of its own, all at once."""
    arrived, together = [0], trio.Event()

    async def one(number: int) -> None:
        dice = random.Random(number)
        mine = number * 16384
        async with connected(served, "root") as client:
            arrived[0] += 1
            if arrived[0] == count:
                together.set()
            await together.wait()
            for _ in range(3):
                data = dice.randbytes(8192)
                assert not (await client.ask(spoken.write(mine, data))).error
                odd = dice.randbytes(1500)
                assert not (await client.ask(spoken.write(mine + 9000, odd))).error
                assert await client.read(mine, 8192) == data
                assert await client.read(mine + 9000, 1500) == odd

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


async def one_too_many(served: Served) -> None:
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connected(served, "root")) for _ in range(MOST)]
        async with connected(served, None) as refused:
            assert await refused.at_end()
        for client in held:
            await client.read(0, 512)


async def everything(place: Place) -> None:
    served = Served()
    served.address = UnixAddress(str(place / "root.sock"))
    with trio.fail_after(2 * PATIENCE):
        async with an_honest_guest(place):
            await lies(served)
            await comes_and_goes(served)
            await hundreds(served, 200)
        while await open_now(place):  # until it has seen that they are gone
            pass
        await one_too_many(served)


async def open_now(place: Place) -> int:
    status = await command(str(place / "state/intake.sock"), "status")
    return int(status["machines"]["web1"]["connections"])


def test_no_guest_hurts_another(place: Place) -> None:
    with running(place) as daemon:
        replicating(place)
        intake = daemon.intake
        Path(f"/proc/{intake}/clear_refs").write_text("5")  # forget the peak
        before = peak(intake)
        trio.run(everything, place)
        assert daemon.intake == intake
        grown = peak(intake) - before
        assert grown < MEMORY, f"{before / MIB:.0f} MiB before, {grown / MIB:.0f} more at its peak"
        replicating(place)
        daemon.end()
    restored_is_the_source(place)
