"""Answers of reads that are made where they are sent from: whole, once, within their memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stages.nbd import rooms as module
from stages.nbd import wire
from stages.nbd.outbox import Outbox
from stages.nbd.quick import QuickCalls, Wire
from stages.nbd.replies import ReplySink
from stages.nbd.rooms import Room, Rooms
from stages.nbd.session import Limits
from stages.ports import Buffer
from stages.system.sockets import SocketCalls
from tests.nbd.serving import connected, serving
from tests.nbd.spoken import replies, request
from tests.nbd.test_session_order import InOrder

DISK = bytes(range(256)) * 4096  # 1 MiB
READS = st.lists(st.integers(1, 9000), max_size=40)


@given(READS, st.booleans())
def test_what_was_kept_is_what_a_client_understands(lengths: list[int], structured: bool) -> None:
    room = Room()
    room.open(structured=structured)
    kept = []
    for cookie, length in enumerate(lengths):
        place = room.place(length)
        if place is None:
            continue
        place[:] = DISK[cookie : cookie + length]
        if cookie % 3:  # else it was not there after all
            room.keep(cookie, 5 * cookie, length)
            kept.append((cookie, DISK[cookie : cookie + length]))
    found = replies(bytes(room.content), dict(enumerate(lengths)))
    heads = [(5 * cookie).to_bytes(8, "big") if structured else b"" for cookie, _ in kept]
    said = [(cookie, head + data) for head, (cookie, data) in zip(heads, kept, strict=True)]
    assert [(reply.cookie, reply.data) for reply in found] == said
    assert room.count == len(kept)


def test_a_room_ends_where_it_ends() -> None:
    room, size = Room(), wire.SIMPLE_REPLY.size
    assert room.place(module._SIZE - size + 1) is None
    place = room.place(module._SIZE - size)
    assert place is not None
    assert len(place) == module._SIZE - size
    room.keep(1, 0, len(place))
    assert room.place(1) is None
    assert room.filled == module._SIZE


class Slow(SocketCalls):
    """Takes ``most`` bytes a call; every other call none."""

    def __init__(self, most: int):
        self.most = most
        self.calls = 0

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        self.calls += 1
        if self.calls % 2:
            raise BlockingIOError
        return super().send(fd, [memoryview(parts[0])[: self.most]])


@pytest.mark.parametrize("calls", [SocketCalls(), Slow(5), Slow(100_000)], ids=["all", "5", "much"])
async def test_answers_arrive_whole_and_rooms_come_back(calls: QuickCalls) -> None:
    here, there = trio.socket.socketpair()
    rooms, told = Rooms(), 0
    free = rooms.free
    sizes = [3000] * (20 if isinstance(calls, Slow) and calls.most == 5 else 200)

    def sent(count: int, held: int, read: int) -> None:
        nonlocal told
        assert (held, read) == (0, 0)
        told += count

    wanted = sum(sizes) + 2 * wire.SIMPLE_REPLY.size * len(sizes)
    got = b""

    async def take() -> None:
        nonlocal got
        while len(got) < wanted:
            got += await there.recv(1 << 20)

    with here, there, trio.fail_after(60):
        outbox = Outbox(Wire(here, calls), rooms, structured=False, on_sent=sent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            async with trio.open_nursery() as taking:
                taking.start_soon(take)
                for cookie, size in enumerate(sizes):
                    outbox.corked = True
                    while (place := outbox.place(size)) is None:
                        await trio.lowlevel.checkpoint()
                    place[:] = DISK[cookie : cookie + size]
                    outbox.keep(cookie, cookie, size)
                    outbox.done_swiftly([1000 + cookie])
                    await outbox.uncork()
            nursery.cancel_scope.cancel()
        outbox.close()
    assert told == 2 * len(sizes)
    found = {reply.cookie: reply.data for reply in replies(got, dict(enumerate(sizes)))}
    assert found == {
        **{at: DISK[at : at + size] for at, size in enumerate(sizes)},
        **{1000 + at: b"" for at in range(len(sizes))},
    }
    assert rooms.free == free


async def test_who_does_not_take_answers_keeps_few_rooms_and_gives_them_back() -> None:
    here, there = trio.socket.socketpair()
    rooms = Rooms()
    free = rooms.free
    with here, there:
        made = 0
        outbox = Outbox(Wire(here, None), rooms, structured=True, on_sent=lambda *_: None)
        outbox.corked = True
        while outbox.place(60_000) is not None:
            outbox.keep(made, 0, 60_000)
            made += 1
        assert made == 4 * 4  # four rooms
        assert rooms.free == free - 4
        assert outbox.place(1000) is None  # and it stays at that
        outbox.close()
        assert rooms.free == free


async def test_a_place_that_nothing_came_to_is_nothing() -> None:
    here, there = trio.socket.socketpair()
    rooms, calls = Rooms(), Slow(100)
    free = rooms.free
    with here, there:
        outbox = Outbox(Wire(here, calls), rooms, structured=False, on_sent=lambda *_: None)
        outbox.corked = True
        assert outbox.place(100) is not None
        assert rooms.free == free - 1
        assert outbox._parts == []
        outbox._leave_room()
        assert outbox._parts == []  # nothing to send
        assert rooms.free == free
        outbox.close()


async def test_without_a_room_there_is_no_place() -> None:
    here, there = trio.socket.socketpair()
    rooms = Rooms()
    while rooms.take(structured=False) is not None:
        pass
    with here, there:
        outbox = Outbox(Wire(here, None), rooms, structured=False, on_sent=lambda *_: None)
        assert outbox.place(1) is None
        outbox.close()


class Memory(InOrder):
    """Answers reads at once, but for every ninth, which goes with a batch as an error."""

    def swift(self, buffer, at, end, most, replies: ReplySink):  # type: ignore[no-untyped-def]
        count = 0
        while count < most and end - at >= wire.REQUEST.size:
            _, _, _, cookie, offset, length = wire.REQUEST.unpack_from(buffer.view, at)
            if cookie % 9 == 0 or (place := replies.place(length)) is None:
                break
            place[:] = DISK[offset : offset + length]
            replies.keep(cookie, offset, length)
            at += wire.REQUEST.size
            count += 1
        return at, count

    async def execute(self, batch, replies: ReplySink) -> None:  # type: ignore[no-untyped-def]
        for each in batch.requests:
            replies.data(each, [DISK[each.offset : each.offset + each.length]])


@pytest.mark.parametrize("quick", [None, SocketCalls()], ids=["trio", "quick"])
@pytest.mark.parametrize("structured", [False, True])
async def test_reads_at_once_and_by_batch_are_all_answered(
    quick: QuickCalls | None, structured: bool
) -> None:
    count = 400
    said = b"".join(request(wire.CMD_READ, n, 5000, cookie=n) for n in range(count))
    async with (
        serving(handlers=[Memory()], limits=Limits(requests=64), quick=quick) as served,
        connected(served, structured=structured) as client,
        trio.open_nursery() as nursery,
    ):
        free = served.server._rooms.free
        nursery.start_soon(client.stream.send_all, said)
        found = {}
        for _ in range(count):
            reply = await client.reply(5000)
            found[reply.cookie] = reply.data[8:] if structured else reply.data
        assert found == {n: DISK[n : n + 5000] for n in range(count)}
        assert served.server._rooms.free == free
