"""What one connection has in flight at most, and what it does not hold up."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from stages.nbd import wire
from stages.nbd.session import Limits
from tests.nbd.memory import Gated, MemoryDevice, info
from tests.nbd.serving import connected, serving
from tests.nbd.spoken import request, write


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
