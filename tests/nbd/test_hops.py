from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.nbd.hops import SharedHops
from stages.system import this_machine
from tests.ports.watched import InlineOffload

T = TypeVar("T")


class Gate(InlineOffload):
    """Hops wait at a gate; counts them."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.hops = self.inside = self.most = 0

    async def run(self, call: Callable[[], T]) -> T:
        self.hops += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.open.wait()
        self.inside -= 1
        return call()


async def test_calls_share_hops_in_order() -> None:
    gate, done = Gate(), list[int]()
    hops = SharedHops(gate, lanes=2, most=5)

    def call(number: int) -> int:
        done.append(number)
        return number

    async def one(number: int) -> None:
        assert await hops.run(lambda: call(number)) == number

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
            await wait_all_tasks_blocked()
        assert gate.hops == 2
        gate.open.set()
    assert sorted(done) == list(range(20))
    assert gate.most == 2
    assert gate.hops <= 7
    assert await hops.run(lambda: "again") == "again"


async def test_each_call_has_its_own_outcome() -> None:
    gate = Gate()
    hops = SharedHops(gate, lanes=1)
    found: dict[int, str] = {}

    def call(number: int) -> str:
        if number % 3 == 1:
            raise OSError(number, "bad")
        return str(number)

    async def one(number: int) -> None:
        try:
            found[number] = await hops.run(lambda: call(number))
        except OSError as error:
            found[number] = f"error {error.errno}"

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(one, number)
        await wait_all_tasks_blocked()
        gate.open.set()
    assert found == {n: f"error {n}" if n % 3 == 1 else str(n) for n in range(9)}


async def test_cancelled_callers_strand_nobody() -> None:
    gate, done = Gate(), list[int]()
    hops = SharedHops(gate, lanes=1)
    ended = 0

    async def one(number: int, scope: trio.CancelScope) -> None:
        nonlocal ended
        with scope:
            await hops.run(lambda: done.append(number))
        ended += 1

    scopes = [trio.CancelScope() for _ in range(12)]
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(one, number, scope)
            await wait_all_tasks_blocked()
        for scope in scopes[::2]:
            scope.cancel()
        await wait_all_tasks_blocked()
        assert ended == 0  # what has begun is finished
        gate.open.set()
    assert ended == 12
    assert sorted(done) == list(range(12))
    await hops.run(lambda: None)


async def test_a_defect_comes_out_and_the_others_fail() -> None:
    gate = Gate()
    hops = SharedHops(gate, lanes=1)
    found: list[str] = []

    def defect() -> None:
        raise LookupError("a defect")

    async def one(call: Callable[[], None]) -> None:
        try:
            await hops.run(call)
        except (LookupError, OSError) as error:
            found.append(type(error).__name__)
        else:
            found.append("fine")

    async with trio.open_nursery() as nursery:
        for call in (lambda: None, defect, lambda: None, lambda: None):
            nursery.start_soon(one, call)
            await wait_all_tasks_blocked()
        gate.open.set()
    assert sorted(found) == ["LookupError", "OSError", "OSError", "fine"]
    await hops.run(lambda: None)


async def test_with_threads() -> None:
    hops = SharedHops(this_machine().offload)
    found: list[int] = []

    async def one(number: int) -> None:
        found.append(await hops.run(lambda: number * 2))

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(one, number)
    assert sorted(found) == [number * 2 for number in range(500)]


async def test_nothing_begins_for_a_cancelled_caller() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await SharedHops(InlineOffload()).run(lambda: pytest.fail("called"))
