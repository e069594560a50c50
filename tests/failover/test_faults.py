"""Every store operation of every operation fails once: the same command again tells the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from pipeline.control.model import Operation as Does
from pipeline.failover import operations
from pipeline.failover.model import Done, PointKind, Wanted, Who
from pipeline.failover.operations import conclude
from pipeline.recovery import Access
from stages.errors import BackstayError, IllegalOperation, StoreUnreachable
from stages.store.faults import LOST_ANSWER, LOST_REQUEST, Fault, FaultPlan, FaultStore, Operation
from stages.vault.failover_state import Phase
from tests.failover.scene import ANN, BOB, NAME, Scene, protected

MOST = 200  # store operations of one command

Act = Callable[[Access], Awaitable[Done]]


async def opens(access: Access) -> Done:
    return await operations.open_failover(access, NAME, Wanted(), ANN, planned=False)


async def changes(access: Access) -> Done:
    return await operations.change_point(access, NAME, Wanted(PointKind.AT, 1), ANN)


async def commits(access: Access) -> Done:
    return await conclude(access, NAME, ANN, operation=Does.COMMIT_FAILOVER)


async def cancels(access: Access) -> Done:
    return await conclude(access, NAME, ANN, operation=Does.CANCEL_FAILOVER)


async def begins_test(access: Access) -> Done:
    return await operations.test(access, NAME, Wanted(), ANN)


async def cleans(access: Access) -> Done:
    return await conclude(access, NAME, ANN, operation=Does.CLEANUP_TEST)


CASES: dict[str, tuple[list[Act], Act, Phase]] = {
    "open": ([], opens, Phase.OPEN),
    "change": ([opens], changes, Phase.OPEN),
    "commit": ([opens], commits, Phase.COMMITTED),
    "cancel": ([opens], cancels, Phase.CANCELLED),
    "test": ([], begins_test, Phase.NONE),
    "cleanup": ([begins_test], cleans, Phase.NONE),
}


def from_on(number: int) -> Callable[[Operation], Fault | None]:
    """A crash: nothing goes through any more from operation ``number`` on."""
    return lambda operation: LOST_REQUEST if operation.number >= number else None


def answer_lost(number: int) -> Callable[[Operation], Fault | None]:
    """A crash right after operation ``number`` took effect."""

    def rule(operation: Operation) -> Fault | None:
        if operation.number == number:
            return LOST_ANSWER
        return LOST_REQUEST if operation.number > number else None

    return rule


@pytest.mark.parametrize("crash", [from_on, answer_lost])
@pytest.mark.parametrize("case", CASES)
async def test_a_crash_after_any_store_operation(
    case: str, crash: Callable[[int], Callable[[Operation], Fault | None]]
) -> None:
    before, act, phase = CASES[case]
    origin = await protected()
    for step in before:
        await step(origin.access())
    log_before = await origin.log()
    records = len(log_before.records)
    for number in range(MOST):
        scene = origin.clone()
        store = FaultStore(scene.bench.store, FaultPlan(crash(number)), scene.bench.clock)
        try:
            done = await act(scene.access(store))
        except StoreUnreachable:
            pass
        else:
            assert done.state.phase is phase
            assert number > 8
            return
        if not any(each.operation.name == "put" for each in store.trace):
            assert await scene.log() == log_before
            continue
        # What is there between the two is one of the two states, said as it is.
        between = await operations.state(scene.access(), NAME)
        assert not between.log.problems
        again = await act(scene.access())
        assert again.state.phase is phase
        log = await scene.log()
        assert log.state == again.state
        assert not log.problems
        assert len(log.records) == records + 1, "it was done once"
        assert (await operations.state(scene.access(), NAME)).whole
    raise AssertionError("a command of more operations than that")


async def test_a_failover_that_was_begun_is_finished_by_anybody() -> None:
    origin = await protected()
    for number in range(MOST):
        scene = origin.clone()
        store = FaultStore(scene.bench.store, FaultPlan(answer_lost(number)), scene.bench.clock)
        try:
            await opens(scene.access(store))
        except StoreUnreachable:
            pass
        else:
            return
        standing = await operations.state(scene.access(), NAME)
        other = Wanted(PointKind.AT, 1)
        try:
            done = await operations.open_failover(scene.access(), NAME, other, BOB, planned=False)
        except IllegalOperation as refused:
            assert standing.whole
            assert "ann on replica7" in refused.message
            continue
        if standing.state.phase is Phase.OPEN:
            assert done.again
            assert done.state.point is not None
            assert done.state.point.seq == 3  # on the point it was opened on
        assert (await operations.state(scene.access(), NAME)).whole


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", ["open", "commit", "cancel", "test"])
async def test_two_hosts_at_once(case: str, seed: int) -> None:
    """One wins, the other is told who was faster; there is one record of the two."""
    scene = await protected()
    for step in CASES[case][0]:
        await step(scene.access())
    records = len((await scene.log()).records)
    ended: dict[str, Done | BackstayError] = {}

    async def race(name: str, steps: int) -> None:
        who = ANN if name == "ann" else BOB
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        try:
            ended[name] = await _as(case, scene, who)
        except BackstayError as error:
            ended[name] = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(race, "ann", seed)
        nursery.start_soon(race, "bob", 4)
    won = [name for name, how in ended.items() if isinstance(how, Done) and not how.again]
    told = [how for how in ended.values() if isinstance(how, IllegalOperation)]
    log = await scene.log()
    assert len(log.records) == records + 1
    assert not log.problems
    if case == "open" and len(told) == 0:
        # The second came between record and branch, and finished it.
        assert [isinstance(how, Done) and how.again for how in ended.values()].count(True) == 1
        return
    assert won == [log.records[-1].by]
    assert len(told) == 1
    assert won[0] in told[0].message


async def _as(case: str, scene: Scene, who: Who) -> Done:
    access = scene.access()
    if case == "open":
        return await operations.open_failover(access, NAME, Wanted(), who, planned=False)
    if case == "test":
        return await operations.test(access, NAME, Wanted(), who)
    act = (
        partial(conclude, operation=Does.COMMIT_FAILOVER)
        if case == "commit"
        else partial(conclude, operation=Does.CANCEL_FAILOVER)
    )
    return await act(access, NAME, who)
