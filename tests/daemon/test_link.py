"""Intake and delivery agree in one process and through a socket: the same tests for both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from pipeline.daemon.link_client import IntakeGone, upstream
from pipeline.daemon.link_server import LinkServer
from stages.joint import Joint
from stages.model import U64
from stages.stage import crew
from stages.stream import DeliveryGone, Digests, MarkedPoint, Position, Upstream

Attach = Callable[[Digests], AbstractAsyncContextManager[None]]
START = Position(1, 0)


class Known:
    """Digests that show what was asked for; ``gate`` holds answers back."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.gate.set()
        self.asked = 0
        self.asking = trio.Event()

    async def key(self) -> bytes:
        await self._wait()
        return bytes(range(32))

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        await self._wait()
        return _rows(disk, first, count)

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        await self._wait()
        return _rows(disk + 100, first, count)

    async def _wait(self) -> None:
        self.asked += 1
        self.asking.set()
        await self.gate.wait()


def _rows(disk: int, first: int, count: int) -> U64:
    rows = np.arange(first, first + count, dtype=np.uint64)
    return np.stack((rows, np.full(count, (1 << 64) - disk - 1, np.uint64)), axis=1)


@dataclass
class Pair:
    """The two sides."""

    joint: Joint
    upstream: Upstream
    attach: Attach


async def _nothing(_: str, __: dict[str, Any]) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def served(joint: Joint, tmp_path: Path) -> AsyncIterator[str]:
    """A link server, as long as this lasts."""
    path = str(tmp_path / "intake.sock")
    async with crew() as nursery:
        await nursery.start(LinkServer(path, {"web1": joint}, _nothing).run)
        yield path
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def joined(kind: str, tmp_path: Path) -> AsyncIterator[Pair]:
    """A joint, and what delivery sees of it."""
    joint = Joint()
    joint.publish(START)
    if kind == "process":
        yield Pair(joint, joint, joint.attached)
        return
    async with served(joint, tmp_path) as path, upstream(path, "web1") as remote:
        yield Pair(joint, remote, remote.attached)


both = pytest.mark.parametrize("kind", ["process", "socket"])


@both
async def test_durable_positions_are_pushed(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        assert pair.upstream.durable == START
        for position in (Position(1, 5), Position(1, 1 << 60), Position(2, 0)):
            before = pair.upstream.durable
            pair.joint.publish(position)
            assert await pair.upstream.wait_durable(before) == position
            assert pair.upstream.durable == position


@both
async def test_nothing_goes_back(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        pair.joint.publish(Position(2, 5))
        assert await pair.upstream.wait_durable(START) == Position(2, 5)
        pair.joint.publish(Position(1, 500))
        pair.joint.publish(Position(2, 6))
        assert await pair.upstream.wait_durable(Position(2, 5)) == Position(2, 6)


@both
async def test_committed_and_settled_arrive(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        settled: list[Position] = []
        pair.joint.on_settled = settled.append
        await pair.upstream.committed(Position(1, 7))
        await pair.joint.wait_committed(Position(1, 7))
        assert pair.joint.committed_at == Position(1, 7)
        assert not settled
        await pair.upstream.settled(Position(1, 6))
        await pair.upstream.settled(Position(1, 9))
        await pair.joint.wait_committed(Position(1, 9))
        await trio.testing.wait_all_tasks_blocked()
        assert settled == [Position(1, 6), Position(1, 9)]
        assert pair.joint.settled_at == Position(1, 9)


@both
async def test_what_becomes_of_a_mark(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        point = MarkedPoint(7, 12, 1_700_000_000_000_000, "app")
        lost = MarkedPoint(8, 0, 5, "app", "a gap was open")
        with pair.joint.awaiting(7), pair.joint.awaiting(8):
            for each in (MarkedPoint(6, 1, 1, "crash"), point, lost):
                await pair.upstream.marked(each)
            assert await pair.joint.wait_marked(7) == point
            assert await pair.joint.wait_marked(8) == lost


@both
async def test_a_lost_place_begins_anew(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        reasons: list[str] = []

        async def on_lost(reason: str) -> Position:
            reasons.append(reason)
            await trio.lowlevel.checkpoint()
            return Position(3, 40 + len(reasons))

        pair.joint.on_lost = on_lost
        assert await pair.upstream.lost("trimmed") == Position(3, 41)
        assert await pair.upstream.lost("again") == Position(3, 42)
        assert reasons == ["trimmed", "again"]


@both
async def test_digests_are_answered(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        with pytest.raises(DeliveryGone):
            await pair.joint.key()
        async with pair.attach(Known()):
            await pair.joint.wait_present()
            assert pair.joint.present
            assert await pair.joint.key() == bytes(range(32))
            for count in (0, 1, 70_000):
                chunks = await pair.joint.chunks(3, 1 << 40, count)
                assert chunks.dtype == np.uint64
                assert chunks.shape == (count, 2)
                assert np.array_equal(chunks, _rows(3, 1 << 40, count))
                assert np.array_equal(await pair.joint.blocks(3, 9, count), _rows(103, 9, count))


@both
async def test_questions_are_answered_side_by_side(kind: str, tmp_path: Path) -> None:
    async with joined(kind, tmp_path) as pair:
        known = Known()
        known.gate = trio.Event()
        found: list[int] = []

        async def ask(first: int) -> None:
            rows = await pair.joint.chunks(0, first, 1)
            found.append(int(rows[0, 0]))
            assert rows[0, 0] == first

        async with pair.attach(known):
            await pair.joint.wait_present()
            async with trio.open_nursery() as nursery:
                for first in range(20):
                    nursery.start_soon(ask, first)
                while known.asked < 20:
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.lowlevel.checkpoint()
                known.gate.set()
        assert sorted(found) == list(range(20))


async def test_what_waits_for_delivery_hears_that_it_hung_up(tmp_path: Path) -> None:
    joint = Joint()
    joint.publish(START)
    known = Known()
    known.gate = trio.Event()
    heard = trio.Event()

    async def ask() -> None:
        with pytest.raises(DeliveryGone):
            await joint.chunks(0, 0, 1)
        heard.set()

    async with served(joint, tmp_path) as path, trio.open_nursery() as nursery:
        with trio.CancelScope() as delivery:
            async with upstream(path, "web1") as remote, remote.attached(known):
                await joint.wait_present()
                nursery.start_soon(ask)
                await known.asking.wait()
                delivery.cancel()
                await trio.sleep_forever()
        await heard.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not joint.present
        async with upstream(path, "web1") as remote, remote.attached(Known()):
            await joint.wait_present()
            assert (await joint.chunks(0, 5, 1))[0, 0] == 5  # and a new one is asked


async def test_intake_hanging_up_ends_whatever_delivery_waits_for(tmp_path: Path) -> None:
    joint = Joint()
    joint.publish(START)

    async def deliver(path: str, connected: trio.Event) -> None:
        with pytest.raises(IntakeGone):
            async with upstream(path, "web1") as remote:
                connected.set()
                await remote.wait_durable(START)

    connected = trio.Event()
    async with trio.open_nursery() as nursery, served(joint, tmp_path) as path:
        nursery.start_soon(deliver, path, connected)
        await connected.wait()
    assert not await trio.Path(path).exists()


async def test_no_such_machine_and_nobody_there(tmp_path: Path) -> None:
    async with served(Joint(), tmp_path) as path:
        with pytest.raises(IntakeGone, match="does not have the machine"):  # now: it may come
            async with upstream(path, "web2"):
                raise AssertionError
    with pytest.raises(IntakeGone) as caught:
        async with upstream(path, "web1"):
            raise AssertionError
    assert caught.value.recoverable


async def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    async with served(Joint(), tmp_path) as path:
        assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o600


async def test_a_stale_socket_is_replaced_a_used_one_is_not(tmp_path: Path) -> None:
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as dead:
        await dead.bind(str(tmp_path / "intake.sock"))
        dead.listen(1)
    async with served(Joint(), tmp_path) as path:
        with pytest.raises(Exception, match="a server is listening here"):
            async with served(Joint(), tmp_path):
                raise AssertionError
        with pytest.raises(IntakeGone, match="does not have the machine"):  # now: it may come
            async with upstream(path, "web2"):
                raise AssertionError
