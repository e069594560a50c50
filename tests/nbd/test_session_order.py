"""One batch at a time, and what is answered before it is in one."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.nbd import wire
from stages.nbd.buffers import ReceiveBuffer
from stages.nbd.quick import QuickCalls
from stages.nbd.replies import ReplySink
from stages.nbd.session import Limits
from stages.nbd.transmission import Batch
from stages.system import SocketCalls
from tests.nbd.memory import info
from tests.nbd.serving import connected, serving
from tests.nbd.spoken import request, write


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
