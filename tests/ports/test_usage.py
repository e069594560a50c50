"""Where the time of a stage goes: at work, waiting for input, held up by the next one."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from stages.channel import Channel
from stages.stage import Meter, StageStatistics, ordered_map
from stages.usage import bottleneck, channel_shares, stage_shares


def ints(name: str, items: int = 1) -> Channel[int]:
    return Channel(name, max_bytes=1000, max_items=items)


async def through(
    meter: Meter, *, every: float, work: float, drain: float, workers: int = 1, count: int = 10
) -> float:
    """A line of three: one item each ``every`` seconds, ``work`` on it, ``drain`` to take it."""
    source, sink = ints("source"), ints("sink")

    async def feed() -> None:
        with source:
            for item in range(count):
                await trio.sleep(every)
                await source.send(item, 1)

    async def do(item: int) -> int:
        await trio.sleep(work)
        return item

    async def take() -> None:
        async for _ in sink:
            await trio.sleep(drain)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        nursery.start_soon(take)
        size = lambda _: 1  # noqa: E731
        await ordered_map(source, do, sink, workers=workers, size=size, meter=meter)
    return trio.current_time() - began


async def test_a_slow_source_is_waited_for(autojump_clock: MockClock) -> None:
    meter = Meter("it")
    lasted = await through(meter, every=1.0, work=0.1, drain=0.0)
    assert meter.busy == pytest.approx(1.0)
    assert meter.wait_in == pytest.approx(lasted - 1.0)
    assert meter.wait_out == pytest.approx(0.0)


async def test_slow_work_is_busy(autojump_clock: MockClock) -> None:
    meter = Meter("it")
    lasted = await through(meter, every=0.0, work=1.0, drain=0.1, workers=2)
    assert lasted < 5.5
    assert meter.busy == pytest.approx(10.0)
    assert meter.wait_in + meter.wait_out < 0.5


async def test_a_slow_sink_holds_it_up(autojump_clock: MockClock) -> None:
    meter = Meter("it")
    lasted = await through(meter, every=0.0, work=0.1, drain=1.0, count=20)
    assert meter.busy == pytest.approx(2.0)
    assert meter.wait_out > 0.75 * lasted


@given(
    every=st.floats(0, 2), work=st.floats(0, 2), drain=st.floats(0, 2), workers=st.integers(1, 4)
)
async def test_no_time_is_counted_twice(
    every: float, work: float, drain: float, workers: int
) -> None:
    meter, clock = Meter("it"), MockClock(autojump_threshold=0)
    line = partial(through, meter, every=every, work=work, drain=drain, workers=workers, count=6)
    lasted = await trio.to_thread.run_sync(lambda: trio.run(line, clock=clock))
    assert meter.busy == pytest.approx(6 * work)
    spent = meter.busy + meter.wait_in + meter.wait_out
    assert spent <= workers * lasted + 1e-6
    assert min(meter.busy, meter.wait_in, meter.wait_out) >= -1e-9


async def test_what_still_goes_on_is_in_a_snapshot(autojump_clock: MockClock) -> None:
    meter = Meter("loop")
    with meter.running():
        await trio.sleep(1)
        assert meter.snapshot().busy == pytest.approx(1)
        with meter.hungry():
            await trio.sleep(2)
            assert meter.snapshot().wait_in == pytest.approx(2)
        with meter.blocked():
            await trio.sleep(3)
        await trio.sleep(4)
    await trio.sleep(5)
    found = meter.snapshot()
    assert (found.busy, found.wait_in, found.wait_out) == pytest.approx((5, 2, 3))


async def test_the_fill_of_a_channel_is_an_average_over_time(autojump_clock: MockClock) -> None:
    tested: Channel[int] = Channel("it", max_bytes=100, max_items=10)
    await trio.sleep(5)
    await tested.send(1, 80)
    await trio.sleep(1)
    await tested.receive()
    await trio.sleep(3)
    await tested.send(2, 1)
    (found,) = channel_shares([tested.statistics()], 10.0).values()
    assert found["fill"] == pytest.approx(0.2)
    assert found["peak"] == pytest.approx(0.8)


def test_the_bottleneck_is_the_busiest_with_its_workers_counted() -> None:
    found = stage_shares(
        [
            StageStatistics("compress", 4, 9, 20.0, 0, 0, 10.0, 0.0),
            StageStatistics("encrypt", 1, 9, 9.0, 0, 0, 0.5, 0.5),
            StageStatistics("ship", 2, 9, 1.0, 0, 0, 15.0, 0.0),
        ],
        10.0,
    )
    assert found["compress"]["busy"] == pytest.approx(0.5)
    assert found["ship"]["wait_in"] == pytest.approx(0.75)
    assert bottleneck(found) == "encrypt"
    assert bottleneck({}) is None
    assert bottleneck(stage_shares([StageStatistics("a", 1, 0, 0.0, 0, 0)], 0.0)) is None
