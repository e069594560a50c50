from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from stages.nbd.ranges import RangeLocks


async def test_overlapping_ranges_in_order_of_arrival() -> None:
    locks, order = RangeLocks(), []

    async def use(name: str, first: int, stop: int) -> None:
        async with locks.hold(first, stop):
            order.append(name)
            await gates[name].wait()

    gates = {name: trio.Event() for name in "abcd"}
    async with trio.open_nursery() as nursery:
        for name, first, stop in (("a", 0, 4), ("b", 3, 6), ("c", 5, 9), ("d", 20, 21)):
            nursery.start_soon(use, name, first, stop)
            await wait_all_tasks_blocked()
        assert order == ["a", "d"]  # c waits behind b, though it does not touch a
        gates["a"].set()
        await wait_all_tasks_blocked()
        assert order == ["a", "d", "b"]
        for gate in gates.values():
            gate.set()
    assert order == ["a", "d", "b", "c"]


async def test_a_cancelled_waiter_blocks_nobody() -> None:
    locks = RangeLocks()
    async with trio.open_nursery() as nursery, locks.hold(0, 2):

        async def wait() -> None:
            async with locks.hold(1, 9):
                pytest.fail("never granted")

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            async with locks.hold(8, 9):
                pytest.fail("never granted")
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            async with locks.hold(5, 9):
                pass


RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(RANGES, st.randoms(use_true_random=False))
async def test_holders_never_overlap(ranges: list[tuple[int, int]], dice: object) -> None:
    locks = RangeLocks()
    held: set[int] = set()
    done = 0

    async def use(first: int, count: int) -> None:
        nonlocal done
        async with locks.hold(first, first + count):
            mine = set(range(first, first + count))
            assert not held & mine
            held.update(mine)
            for _ in range(count):
                await trio.lowlevel.checkpoint()
            held.difference_update(mine)
            done += 1

    async with trio.open_nursery() as nursery:
        for first, count in ranges:
            nursery.start_soon(use, first, count)
    assert done == len(ranges)


async def test_passed_waits_for_what_is_there_now_and_not_for_what_comes() -> None:
    locks = RangeLocks()
    let_go = {first: trio.Event() for first in (0, 2, 4)}

    async def held(first: int) -> None:
        async with locks.hold(first, first + 2):
            await let_go[first].wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(held, 0)
        nursery.start_soon(held, 2)
        await wait_all_tasks_blocked()
        passed = trio.Event()

        async def wait() -> None:
            await locks.passed()
            passed.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        nursery.start_soon(held, 4)
        for first in (2, 0):  # not in the order of arrival
            await wait_all_tasks_blocked()
            assert not passed.is_set()
            let_go[first].set()
        await passed.wait()
        let_go[4].set()
