"""When a connection looks for its client's next request, and when it goes to sleep."""

from __future__ import annotations

import trio
import trio.testing

from stages.nbd.quick import Patience, Wire
from stages.system import SocketCalls

ROOM = memoryview(bytearray(1 << 16))


class Clocked(SocketCalls):
    """``sleeps``: how long the next sleep seems to take. Looking finds what is there by then."""

    def __init__(self) -> None:
        super().__init__()
        self.sleep = 0.0
        self.time = 0.0
        self.looks = 0

    def now(self) -> float:
        self.time += self.sleep
        return self.time

    def look(self, fd: int, target: memoryview, seconds: float) -> int | None:
        self.looks += 1
        return super().look(fd, target, 0.0)


async def after_a_sleep(wire: Wire, client: trio.socket.SocketType) -> None:
    """The client asks once the connection sleeps."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive, ROOM)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"x")


async def ready(wire: Wire, client: trio.socket.SocketType) -> None:
    """Past its first turn, which takes it for granted that something has come."""
    await client.send(b"x")
    await wire.receive(ROOM)


async def test_a_client_that_comes_soon_is_looked_for() -> None:
    here, there = trio.socket.socketpair()
    with here, there:
        calls = Clocked()
        wire = Wire(here, calls)
        await ready(wire, there)
        await after_a_sleep(wire, there)
        for turn in range(20):
            await there.send(b"abc")
            assert await wire.receive(ROOM, answered=True) == 3
            assert calls.looks == turn + 1
        await there.send(b"x")
        await wire.receive(ROOM)  # it waits for answers, not we for it
        assert calls.looks == 20
        there.shutdown(trio.socket.SHUT_WR)
        assert await wire.receive(ROOM, answered=True) == 0


async def test_one_that_takes_longer_is_not() -> None:
    here, there = trio.socket.socketpair()
    with here, there:
        calls = Clocked()
        wire = Wire(here, calls)
        await ready(wire, there)
        calls.sleep = 0.001
        await after_a_sleep(wire, there)
        await there.send(b"x")
        await wire.receive(ROOM, answered=True)
        assert not calls.looks


async def test_others_are_not_kept_waiting() -> None:
    """Neither other connections, nor tasks."""
    calls = Clocked()
    here, there = trio.socket.socketpair()
    other, its = trio.socket.socketpair()
    ran = 0

    async def beside() -> None:
        nonlocal ran
        while True:
            await trio.lowlevel.checkpoint()
            ran += 1

    with here, there, other, its:
        wire, second = Wire(here, calls), Wire(other, calls)
        await ready(wire, there)
        await after_a_sleep(wire, there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside)
            for _ in range(40):
                await there.send(b"x")
                await wire.receive(ROOM, answered=True)
            assert calls.looks == 40
            assert ran >= 4
            nursery.cancel_scope.cancel()
        await ready(second, its)
        await there.send(b"x")
        await wire.receive(ROOM, answered=True)
        assert calls.looks == 40
        await there.send(b"x")
        await wire.receive(ROOM, answered=True)
        assert calls.looks == 41  # the other one has not come back


async def test_a_cancelled_look_loses_nothing() -> None:
    here, there = trio.socket.socketpair()
    with here, there:
        calls = Clocked()
        wire = Wire(here, calls)
        await ready(wire, there)
        await after_a_sleep(wire, there)
        received = 0
        for _ in range(20):
            await there.send(b"x")
            with trio.CancelScope() as scope:
                scope.cancel()
                received += await wire.receive(ROOM, answered=True)
        assert calls.looks
        with trio.fail_after(10):
            while received < 20:
                received += await wire.receive(ROOM, answered=True)
        assert received == 20


def test_doubt_grows_with_failures_and_ends_with_success() -> None:
    patience = Patience()

    def soon_until_eager() -> int:
        count = 0
        while not patience.eager:
            patience.slept(0.00005)
            count += 1
        return count

    for times in (1, 2, 4, 8, 16):
        assert soon_until_eager() == times
        patience.failed()
    patience.slept(0.00005)
    patience.slept(0.01)  # begins anew
    assert soon_until_eager() == 32
    patience.found()
    patience.failed()
    assert soon_until_eager() == 2
    for _ in range(30):
        patience.failed()
    assert soon_until_eager() == 1024
