"""Answers that are sent at once, and what becomes of those that the socket does not take."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from stages.nbd import wire
from stages.nbd.outbox import Outbox
from stages.nbd.quick import Wire
from stages.nbd.rooms import Rooms
from stages.nbd.transmission import Request
from stages.ports import Buffer
from stages.system.sockets import SocketCalls

FLUSHES = [Request(wire.CMD_FLUSH, 0, cookie, 0, 0, memoryview(b""), 0) for cookie in (1, 2)]
SIZE = wire.SIMPLE_REPLY.size


class Choosy(SocketCalls):
    """The first call takes ``first`` bytes, or fails; those after it are real."""

    def __init__(self, first: int | None):
        self.first = first
        self.calls = 0

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        self.calls += 1
        if self.calls > 1:
            return super().send(fd, parts)
        if self.first is None:
            raise BrokenPipeError(errno.EPIPE, "gone")
        if not self.first:
            raise BlockingIOError
        return super().send(fd, [bytes(parts[0])[: self.first]])


@pytest.mark.parametrize("first", [0, 5, SIZE, 2 * SIZE])
async def test_an_answer_is_sent_whole_and_told_once(first: int) -> None:
    here, there = trio.socket.socketpair()
    told: list[int] = []
    with here, there:
        calls = Choosy(first)
        outbox = Outbox(
            Wire(here, calls),
            Rooms(),
            structured=False,
            on_sent=lambda count, held, read: told.append(count),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            await trio.testing.wait_all_tasks_blocked()
            outbox.done_now(FLUSHES)
            assert calls.calls == 1  # before anything else is done
            with trio.fail_after(10):
                data = b""
                while len(data) < 2 * SIZE:
                    data += await there.recv(100)
                while not told:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert data == b"".join(
        wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, cookie) for cookie in (1, 2)
    )
    assert told == [2]


async def test_a_client_that_has_gone_ends_its_own_connection_and_nobody_else() -> None:
    """Whoever answers, the flusher of a disk, serves other connections too."""
    here, there = trio.socket.socketpair()
    with here:
        outbox = Outbox(
            Wire(here, Choosy(None)), Rooms(), structured=False, on_sent=lambda *_: None
        )
        there.close()
        with pytest.raises(BaseExceptionGroup) as raised:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                await trio.testing.wait_all_tasks_blocked()
                outbox.done_now(FLUSHES)
        assert raised.group_contains(BrokenPipeError)


async def test_while_much_is_collected_answers_wait_for_it() -> None:
    here, there = trio.socket.socketpair()
    with here, there:
        calls = Choosy(SIZE)
        outbox = Outbox(Wire(here, calls), Rooms(), structured=False, on_sent=lambda *_: None)
        outbox.corked = True
        outbox.done_now(FLUSHES)
        assert calls.calls == 0
        assert outbox.corked
