"""ordered_map: order kept, a bounded number inside, the first failure ends everything."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from stages.channel import Channel, ChannelClosed
from stages.stage import Meter, crew, ordered_map


def ints(name: str, items: int = 100) -> Channel[int]:
    return Channel(name, max_bytes=1000, max_items=items)


async def feed(source: Channel[int], count: int) -> None:
    with source:
        for item in range(count):
            await source.send(item, 1)


def one(_item: object) -> int:
    return 1


@settings(max_examples=50, deadline=None)
@given(delays=st.lists(st.integers(0, 5), max_size=20), workers=st.integers(1, 4))
async def test_order_is_kept_and_workers_are_bounded(delays: list[int], workers: int) -> None:
    source, sink = ints("source"), ints("sink")
    inside = most = 0

    async def work(item: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(delays[item]):
            await trio.lowlevel.checkpoint()
        inside -= 1
        return item * 2

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, len(delays))
        await ordered_map(source, work, sink, workers=workers, size=one)
    assert [item async for item in sink] == [2 * item for item in range(len(delays))]
    assert most <= workers


async def test_workers_overlap(autojump_clock: MockClock) -> None:
    source, sink = ints("source"), ints("sink")

    async def work(item: int) -> int:
        await trio.sleep(1)
        return item

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 8)
        started = trio.current_time()
        await ordered_map(source, work, sink, workers=4, size=one)
    assert trio.current_time() - started == 2  # virtual seconds


async def test_results_that_wait_for_their_turn_count_as_inside() -> None:
    source, sink = ints("source"), ints("sink", items=1)
    begun: list[int] = []

    async def work(item: int) -> int:
        begun.append(item)
        return item

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 10)
        nursery.start_soon(lambda: ordered_map(source, work, sink, workers=2, size=one))
        await wait_all_tasks_blocked()
        assert begun == [0, 1, 2]  # 0 is in the sink, 1 and 2 are inside
        assert [item async for item in sink] == list(range(10))


async def test_a_slow_first_item_holds_the_later_ones_back() -> None:
    source, sink = ints("source"), ints("sink")
    go = trio.Event()

    async def work(item: int) -> int:
        if item == 0:
            await go.wait()
        return item

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 3)
        nursery.start_soon(lambda: ordered_map(source, work, sink, workers=3, size=one))
        await wait_all_tasks_blocked()
        assert sink.statistics().items == 0
        go.set()
        assert [item async for item in sink] == [0, 1, 2]


async def test_a_failure_cancels_the_others_closes_the_sink_abandons_the_source() -> None:
    source, sink = ints("source", items=1), ints("sink")
    cancelled: list[int] = []

    async def work(item: int) -> int:
        if item == 2:
            raise KeyError(item)
        if item:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.append(item)
                raise
        return item

    async def feed_until_refused() -> None:
        with pytest.raises(ChannelClosed):
            await feed(source, 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed_until_refused)
        with pytest.raises(KeyError) as caught:
            await ordered_map(source, work, sink, workers=3, size=one)
    assert caught.value.args == (2,)
    assert cancelled == [1]
    assert [item async for item in sink] == [0]


async def test_a_sink_whose_consumer_left_ends_the_map() -> None:
    source, sink = ints("source"), ints("sink")
    sink.abandon()

    async def work(item: int) -> int:
        return item

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 1)
        with pytest.raises(ChannelClosed):
            await ordered_map(source, work, sink, workers=1, size=one)
    with pytest.raises(ChannelClosed):
        await source.send(1, 1)


@pytest.mark.parametrize("ticks", range(12))
async def test_cancelled_at_any_await(ticks: int) -> None:
    source, sink = ints("source", items=1), ints("sink", items=1)

    async def work(item: int) -> int:
        await trio.lowlevel.checkpoint()
        return item

    async def produce() -> None:
        try:
            await feed(source, 100)
        except ChannelClosed:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async with trio.open_nursery() as inner:
            inner.start_soon(lambda: ordered_map(source, work, sink, workers=2, size=one))
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            inner.cancel_scope.cancel()
    found = [item async for item in sink]
    assert found == list(range(len(found)))


async def test_work_is_called_in_order_and_awaited_side_by_side() -> None:
    source, sink = ints("source"), ints("sink")
    called: list[int] = []
    together = trio.Event()

    def work(item: int) -> Awaitable[int]:
        called.append(item)

        async def rest() -> int:
            if item == 3:
                together.set()
            await together.wait()
            return item

        return rest()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 4)
        nursery.start_soon(lambda: ordered_map(source, work, sink, workers=4, size=one))
        assert [item async for item in sink] == [0, 1, 2, 3]
    assert called == [0, 1, 2, 3]


async def test_work_that_fails_before_it_is_awaited() -> None:
    source, sink = ints("source"), ints("sink")

    def work(item: int) -> Awaitable[int]:
        raise KeyError(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, source, 1)
        with pytest.raises(KeyError):
            await ordered_map(source, work, sink, workers=2, size=one)
    assert [item async for item in sink] == []


async def test_a_crew_raises_its_first_failure_bare() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("on the way out")

    with pytest.raises(KeyError):
        async with crew() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail, KeyError(1))
    with pytest.raises(KeyboardInterrupt):
        async with crew() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(fail, KeyboardInterrupt())
    with trio.CancelScope() as scope:
        async with crew():
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_nothing_in_nothing_out() -> None:
    source, sink = ints("source"), ints("sink")
    source.close()

    async def work(item: int) -> int:
        return item

    await ordered_map(source, work, sink, workers=2, size=one)
    assert [item async for item in sink] == []


class Payload:
    """Something large enough to care who holds it."""


async def test_a_result_is_not_held_once_it_was_taken() -> None:
    source: Channel[int] = ints("source")
    sink: Channel[Payload] = Channel("sink", max_bytes=10, max_items=10)
    refs: list[weakref.ref[Payload]] = []

    async def work(_item: int) -> Payload:
        value = Payload()
        refs.append(weakref.ref(value))
        return value

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ordered_map(source, work, sink, workers=2, size=one))
        await source.send(1, 1)
        await sink.receive()
        await wait_all_tasks_blocked()
        gc.collect()
        assert refs[0]() is None
        source.close()


def test_a_meter_freezes_into_statistics() -> None:
    meter = Meter("compress", workers=2)
    meter.items += 3
    meter.bytes_in += 10
    found = meter.snapshot()
    meter.items += 1
    assert (found.name, found.workers, found.items, found.bytes_in) == ("compress", 2, 3, 10)
