"""The Nth store operation fails, for every N, in every way: the next run heals by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from stages.errors import StoreUnreachable
from stages.store.faults import LOST_ANSWER, LOST_REQUEST, Fault, Operation, nth
from tests.whole.scenario import BEGINNINGS, TUNING, heals, small, worlds
from tests.whole.world import Crash, Stopped, Tuning, World

PATIENT, HASTY = replace(TUNING, retried=True), replace(TUNING, retried=False)


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small():
        yield


def operations(begin: Callable[[Tuning], World]) -> list[Operation]:
    """What a run without faults asks of the store."""
    world = next(worlds(begin, HASTY))
    process = world.process()
    world.protect(process)
    return process.operations


def test_the_scenario_has_everything() -> None:
    asked = [operation for begin in BEGINNINGS.values() for operation in operations(begin)]
    puts = [operation.key for operation in asked if operation.name == "put"]
    for kind in ("/data/", "/log/", "/checkpoints/", "/rollups/", "/epochs/", "/machine/"):
        assert any(kind in key for key in puts), kind


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("fault", [LOST_REQUEST, LOST_ANSWER], ids=["request", "answer"])
def test_a_blip_is_not_noticed(begin: Callable[[Tuning], World], fault: Fault) -> None:
    fresh = worlds(begin, PATIENT)
    for number in range(len(operations(begin))):
        world = next(fresh)
        world.protect(world.process(nth(number, fault)))
        heals(world, number)


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("fault", [LOST_REQUEST, LOST_ANSWER], ids=["request", "answer"])
def test_an_error_ends_the_run(begin: Callable[[Tuning], World], fault: Fault) -> None:
    fresh = worlds(begin, HASTY)
    for number, operation in enumerate(operations(begin)):
        world = next(fresh)
        try:
            world.protect(world.process(nth(number, fault)))
        except StoreUnreachable:
            pass
        else:  # a session asks what became of its commit; what is missing has no answer
            assert fault is LOST_ANSWER
            assert operation.name == "get" or "/log/" in operation.key
        heals(world, number)


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_process_dies(begin: Callable[[Tuning], World], after: bool) -> None:
    fresh = worlds(begin, HASTY)
    fault = Fault(after=Crash) if after else Fault(before=Crash)
    for number in range(len(operations(begin))):
        world = next(fresh)
        with pytest.raises(Crash):
            world.protect(world.process(nth(number, fault)))
        world.files.power_cut(number)
        heals(world, number)


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_the_run_is_cancelled(begin: Callable[[Tuning], World]) -> None:
    fresh = worlds(begin, HASTY)
    for number in range(len(operations(begin))):
        world = next(fresh)
        process = world.process()
        process.cancel_at = number
        with pytest.raises(Stopped):
            world.protect(process)
        heals(world, number)
