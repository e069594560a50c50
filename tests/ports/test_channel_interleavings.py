"""Random senders, receivers and cancellations: every item pushed is received once, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from stages.channel import Channel

MAX_BYTES, MAX_ITEMS = 20, 3

Item = tuple[int, int]  # sender, number
Step = tuple[str, int]

senders = st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=1, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("receive"), st.just(0)),
        st.tuples(st.just("cancel sender"), st.integers(0, 3)),
        st.tuples(st.just("cancel receiver"), st.integers(0, 8)),
    ),
    max_size=40,
)


@dataclass
class World:
    """One channel, its senders and its receivers, each in a cancel scope of its own."""

    tested: Channel[Item]
    pushed: list[Item] = field(default_factory=list)
    received: list[Item] = field(default_factory=list)
    scopes: list[trio.CancelScope] = field(default_factory=list)
    receivers: list[trio.CancelScope] = field(default_factory=list)

    async def send(self, number: int, sizes: list[int], release: bool) -> None:
        with self.scopes[number]:
            for count, size in enumerate(sizes):
                await self.tested.reserve(size)
                if release and count % 2:
                    self.tested.release(size)
                    continue
                self.pushed.append((number, count))
                self.tested.push((number, count), size)

    async def receive(self) -> None:
        scope = trio.CancelScope()
        self.receivers.append(scope)
        with scope:
            try:
                self.received.append(await self.tested.receive())
            except trio.EndOfChannel:
                return

    def check(self) -> None:
        found = self.tested.statistics()
        assert found.items <= MAX_ITEMS
        assert found.bytes <= MAX_BYTES or found.items == 1
        assert self.tested._held_items <= MAX_ITEMS
        assert self.tested._held_bytes <= MAX_BYTES or self.tested._held_items == 1

    async def step(self, nursery: trio.Nursery, step: Step) -> None:
        match step:
            case ("tick", _):
                await trio.lowlevel.checkpoint()
            case ("settle", _):
                await wait_all_tasks_blocked()
            case ("receive", _):
                nursery.start_soon(self.receive)
            case ("cancel sender", number) if number < len(self.scopes):
                self.scopes[number].cancel()
            case ("cancel receiver", number) if number < len(self.receivers):
                self.receivers[number].cancel()
        self.check()


@settings(max_examples=150, deadline=None)
@given(sizes=senders, script=steps, release=st.booleans())
async def test_interleavings(sizes: list[list[int]], script: list[Step], release: bool) -> None:
    world = World(Channel("test", max_bytes=MAX_BYTES, max_items=MAX_ITEMS))
    world.scopes = [trio.CancelScope() for _ in sizes]
    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as nursery:
            for number, sender in enumerate(sizes):
                nursery.start_soon(world.send, number, sender, release)
            for step in script:
                await world.step(outer, step)
            for _ in range(sum(map(len, sizes))):
                outer.start_soon(world.receive)
        world.tested.close()
    async for item in world.tested:
        world.received.append(item)
    assert sorted(world.received) == sorted(world.pushed)
    for number in range(len(sizes)):
        mine = [item for item in world.pushed if item[0] == number]
        assert mine == sorted(mine)
    found = world.tested.statistics()
    assert found.total_items == len(world.pushed)
    assert world.tested._held_items == world.tested._held_bytes == 0


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), max_size=12), ticks=st.lists(st.integers(0, 3)))
async def test_one_sender_one_receiver_keep_the_order(sizes: list[int], ticks: list[int]) -> None:
    tested: Channel[int] = Channel("test", max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    got: list[int] = []

    async def send() -> None:
        with tested:
            for number, size in enumerate(sizes):
                await tested.send(number, size)

    async def receive() -> None:
        async for number in tested:
            got.append(number)
            for _ in range(ticks[number % len(ticks)] if ticks else 0):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
    assert got == list(range(len(sizes)))
