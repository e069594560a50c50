"""Channels: limits, order, ends, and that no cancellation loses an item or credit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.channel import Channel, ChannelClosed


def channel(max_bytes: int = 100, max_items: int = 4) -> Channel[int]:
    return Channel("test", max_bytes=max_bytes, max_items=max_items)


async def blocks(call: Callable[[], Awaitable[object]]) -> bool:
    """True if the call does not get on by itself; it is cancelled then."""
    finished = False

    async def run() -> None:
        nonlocal finished
        await call()
        finished = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return not finished


async def assert_all_credit(tested: Channel[int]) -> None:
    """Every byte and every item can be reserved: nothing has leaked."""
    limits = tested.statistics()
    assert not await blocks(lambda: tested.reserve(limits.max_bytes))
    tested.release(limits.max_bytes)
    for _ in range(limits.max_items):
        assert not await blocks(lambda: tested.reserve(0))
    for _ in range(limits.max_items):
        tested.release(0)


async def test_first_in_first_out() -> None:
    tested = channel()
    for item in range(4):
        await tested.send(item, 10)
    tested.close()
    assert [item async for item in tested] == [0, 1, 2, 3]


async def test_bytes_are_limited() -> None:
    tested = channel(max_bytes=100, max_items=10)
    await tested.send(1, 60)
    assert await blocks(lambda: tested.send(2, 41))
    await tested.send(3, 40)
    assert await tested.receive() == 1
    assert not await blocks(lambda: tested.send(4, 60))


async def test_items_are_limited() -> None:
    tested = channel(max_items=2)
    await tested.send(1, 0)
    await tested.send(2, 0)
    assert await blocks(lambda: tested.send(3, 0))
    await tested.receive()
    assert not await blocks(lambda: tested.send(3, 0))


async def test_an_oversize_item_passes_alone() -> None:
    tested = channel(max_bytes=100)
    await tested.send(1, 1)
    assert await blocks(lambda: tested.send(2, 1000))
    await tested.receive()
    assert not await blocks(lambda: tested.send(2, 1000))
    assert await blocks(lambda: tested.send(3, 0))
    assert await tested.receive() == 2
    await assert_all_credit(tested)


async def test_reserved_credit_counts_until_released_or_received() -> None:
    tested = channel(max_bytes=100)
    await tested.reserve(100)
    assert await blocks(lambda: tested.reserve(1))
    tested.release(100)
    await tested.reserve(100)
    tested.push(1, 100)
    assert await blocks(lambda: tested.reserve(1))
    await tested.receive()
    await assert_all_credit(tested)


async def test_small_items_do_not_starve_a_large_one() -> None:
    tested = channel(max_bytes=100, max_items=100)
    got: list[str] = []

    async def reserve(name: str, size: int) -> None:
        await tested.reserve(size)
        got.append(name)

    async with trio.open_nursery() as nursery:
        await tested.send(0, 50)
        await tested.send(0, 50)
        nursery.start_soon(reserve, "large", 100)
        await wait_all_tasks_blocked()
        nursery.start_soon(reserve, "small", 10)
        await wait_all_tasks_blocked()
        await tested.receive()
        await wait_all_tasks_blocked()
        assert got == []  # 50 are free, and the large one is first
        await tested.receive()
        await wait_all_tasks_blocked()
        assert got == ["large"]
        tested.release(100)
        await wait_all_tasks_blocked()
        assert got == ["large", "small"]


async def test_one_release_admits_all_that_fit() -> None:
    tested = channel(max_bytes=100, max_items=100)
    await tested.reserve(100)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(tested.reserve, 10)
        await wait_all_tasks_blocked()
        tested.release(100)
    assert await blocks(lambda: tested.reserve(1))


async def test_when_the_first_in_line_gives_up_the_next_may_fit() -> None:
    tested = channel(max_bytes=100, max_items=100)
    await tested.reserve(50)
    scope = trio.CancelScope()

    async def large() -> None:
        with scope:
            await tested.reserve(100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(large)
        await wait_all_tasks_blocked()
        nursery.start_soon(tested.reserve, 50)
        await wait_all_tasks_blocked()
        scope.cancel()  # and the nursery ends: the small one got its credit
    tested.release(50)
    tested.release(50)
    await assert_all_credit(tested)


async def test_close_lets_the_queue_drain_and_refuses_more() -> None:
    tested = channel()
    await tested.send(1, 1)
    tested.close()
    with pytest.raises(ChannelClosed):
        await tested.send(2, 1)
    assert await tested.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await tested.receive()
    assert tested.statistics().closed


async def test_close_wakes_waiting_senders_and_receivers() -> None:
    full, empty = channel(max_items=1), channel()
    await full.send(1, 1)

    async def send() -> None:
        with pytest.raises(ChannelClosed):
            await full.send(2, 1)

    async def receive() -> None:
        with pytest.raises(trio.EndOfChannel):
            await empty.receive()

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(send)
            nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        full.close()
        empty.close()
    assert await full.receive() == 1


async def test_what_was_reserved_before_close_still_arrives() -> None:
    """R4: the write is done, so its record must not be lost to a close in between."""
    tested = channel()
    got: list[int] = []

    async def consume() -> None:
        got.extend([item async for item in tested])

    await tested.reserve(10)
    await tested.reserve(20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        nursery.start_soon(consume)
        await wait_all_tasks_blocked()
        tested.close()
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        tested.push(7, 10)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        tested.release(20)
    assert got == [7]


async def test_abandon_fails_senders_and_drops_the_queue() -> None:
    tested = channel(max_items=2)
    await tested.send(1, 1)
    await tested.reserve(1)

    async def send() -> None:
        with pytest.raises(ChannelClosed):
            await tested.send(2, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        tested.abandon()
    with pytest.raises(ChannelClosed):
        tested.push(3, 1)
    with pytest.raises(trio.EndOfChannel):
        await tested.receive()
    assert tested.statistics().items == 0
    assert tested._held_items == tested._held_bytes == 0


async def test_abandon_ends_a_waiting_receiver_even_with_reservations_out() -> None:
    tested = channel()
    await tested.reserve(5)

    async def receive() -> None:
        with pytest.raises(trio.EndOfChannel):
            await tested.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        tested.abandon()


async def test_leaving_the_block_closes() -> None:
    with channel() as tested:
        await tested.send(1, 1)
    assert [item async for item in tested] == [1]


async def test_statistics(autojump_clock: trio.testing.MockClock) -> None:
    tested = channel(max_bytes=100, max_items=4)
    await tested.send(1, 70)
    await tested.send(2, 30)

    async def later() -> None:
        await trio.sleep(2)
        await tested.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        await tested.send(3, 40)
    found = tested.statistics()
    assert (found.name, found.items, found.bytes) == ("test", 2, 70)
    assert (found.max_items, found.max_bytes, found.peak_bytes) == (4, 100, 100)
    assert (found.total_items, found.total_bytes) == (3, 140)
    assert found.send_wait == pytest.approx(2)
    assert found.receive_wait == 0
    assert not found.closed
    with pytest.raises(AttributeError):
        found.items = 0  # type: ignore[misc]


@pytest.mark.parametrize(("max_bytes", "max_items"), [(0, 1), (1, 0)])
def test_limits_must_be_positive(max_bytes: int, max_items: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        channel(max_bytes, max_items)


async def test_a_reservation_cancelled_before_it_starts_holds_nothing() -> None:
    tested = channel()
    with trio.CancelScope() as scope:
        scope.cancel()
        await tested.reserve(1)
    assert scope.cancelled_caught
    await assert_all_credit(tested)


async def test_a_reservation_cancelled_on_its_last_steps_returns() -> None:
    """Once the credit is taken the caller must get the chance to push or release it."""
    tested = channel()
    reserved = False

    async def reserve() -> None:
        nonlocal reserved
        await tested.reserve(100)
        reserved = True
        tested.push(1, 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reserve)
        await trio.lowlevel.checkpoint()  # it has begun, and yields after taking credit
        nursery.cancel_scope.cancel()
    assert reserved is (tested.statistics().items == 1)
    if reserved:
        assert await tested.receive() == 1
    await assert_all_credit(tested)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_credit_that_meets_a_cancellation_is_not_leaked(cancel_first: bool) -> None:
    """Both in one tick, before the waiter runs: it has the credit, or it is given back."""
    tested = channel()
    await tested.reserve(100)
    scope = trio.CancelScope()
    granted = False

    async def wait() -> None:
        nonlocal granted
        with scope:
            await tested.reserve(100)
            granted = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        if cancel_first:
            scope.cancel()
        tested.release(100)
        scope.cancel()
    assert granted is not cancel_first
    if granted:
        tested.release(100)
    await assert_all_credit(tested)


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_an_item_that_meets_a_cancelled_receive_is_not_lost(cancel_first: bool) -> None:
    tested = channel()
    scope = trio.CancelScope()
    got: list[int] = []

    async def receive() -> None:
        with scope:
            got.append(await tested.receive())

    await tested.reserve(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        if cancel_first:
            scope.cancel()
        tested.push(7, 10)
        scope.cancel()
    if not got:
        got.append(await tested.receive())
    assert got == [7]
    await assert_all_credit(tested)
