"""RetryStore: what it repeats, for how long, and how it settles a put without an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.errors import (
    BackstayError,
    NoSpace,
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreUnreachable,
)
from stages.store.faults import (
    LOST_ANSWER,
    LOST_REQUEST,
    Fault,
    FaultPlan,
    FaultStore,
    Rule,
    nth,
    scripted,
)
from stages.store.memory import MemoryStore
from stages.store.port import Put
from stages.store.retry import RetryStore
from tests.store.doubles import SameByte, StillClock


class World:
    """A retrying store over a faulty one over memory, on a clock of its own."""

    def __init__(self, rule: Rule, *, byte: int = 0xFF, seconds: float = 10.0):
        self.clock = StillClock()
        self.memory = MemoryStore()
        self.faulty = FaultStore(self.memory, FaultPlan(rule), self.clock)
        self.store = RetryStore(self.faulty, self.clock, SameByte(byte), seconds=seconds)

    def names(self) -> list[str]:
        return [traced.operation.name for traced in self.faulty.trace]

    def calls(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "put": lambda: self.store.put("k", [b"x"]),
            "get": lambda: self.store.get("k"),
            "info": lambda: self.store.info("k"),
            "page": lambda: self.store.page(""),
            "delete": lambda: self.store.delete("k"),
        }


OPERATIONS = ["put", "get", "info", "page", "delete"]


@pytest.mark.parametrize("fault", [LOST_REQUEST, LOST_ANSWER, Fault(before=OutcomeUnknown)])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_blip_is_not_seen(name: str, fault: Fault) -> None:
    world = World(scripted(fault, fault))
    if name != "put":
        await world.memory.put("k", [b"x"])
    answer = await world.calls()[name]()
    if name == "put":
        assert answer is Put.CREATED
    elif name == "get":
        assert answer == b"x"
    else:
        assert answer
    assert world.store.retries == 2


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_outage_is_reported_after_the_time_given(name: str) -> None:
    world = World(lambda _operation: LOST_REQUEST)
    with pytest.raises(StoreUnreachable, match="injected"):
        await world.calls()[name]()
    waited = sum(world.clock.sleeps)
    assert 8 < waited <= 10
    assert world.clock.sleeps[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0], rel=1e-6)
    assert max(world.clock.sleeps) <= 2.0


async def test_the_time_of_slow_attempts_counts() -> None:
    world = World(lambda _operation: Fault(delay=6.0, before=StoreUnreachable))
    with pytest.raises(StoreUnreachable):
        await world.store.get("k")
    assert world.names() == ["get", "get"]


async def test_pauses_are_drawn_from_zero_up() -> None:
    world = World(scripted(LOST_REQUEST, LOST_REQUEST), byte=0)
    await world.store.info("k")
    assert world.clock.sleeps == [0.0, 0.0]
    world = World(scripted(LOST_REQUEST, LOST_REQUEST), byte=0x80)
    await world.store.info("k")
    assert world.clock.sleeps == pytest.approx([0.05, 0.1], rel=0.01)


@pytest.mark.parametrize("kind", [StoreDenied, NoSpace, ObjectMissing])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_other_errors_are_raised_at_once(name: str, kind: type[BackstayError]) -> None:
    world = World(lambda _operation: Fault(before=kind))
    with pytest.raises(kind):
        await world.calls()[name]()
    assert world.names() == [name]
    assert world.clock.sleeps == []


async def test_a_put_whose_answer_was_lost_is_found_to_be_ours() -> None:
    world = World(scripted(LOST_ANSWER))
    assert await world.store.put("k", [b"ab", b"cd"]) is Put.CREATED
    assert world.names() == ["put", "put", "get"]
    assert await world.memory.get("k") == b"abcd"


@pytest.mark.parametrize("other", [b"", b"abc", b"abcX", b"abcdX", b"abcd" * 1000])
async def test_a_put_that_another_won_meanwhile_exists(other: bytes) -> None:
    world = World(scripted(LOST_REQUEST))
    await world.memory.put("k", [other])
    assert await world.store.put("k", [b"ab", b"cd"]) is Put.EXISTS
    assert await world.memory.get("k") == other


async def test_without_trouble_an_existing_object_is_not_compared() -> None:
    world = World(lambda _operation: None)
    await world.memory.put("k", [b"same"])
    assert await world.store.put("k", [b"same"]) is Put.EXISTS
    assert world.names() == ["put"]


async def test_a_comparison_that_fails_is_repeated() -> None:
    world = World(scripted(LOST_ANSWER, None, LOST_REQUEST, None, LOST_ANSWER))
    assert await world.store.put("k", [b"x"]) is Put.CREATED
    assert world.names() == ["put", "put", "get", "put", "get", "put", "get"]


async def test_what_exists_but_cannot_be_read_yet_stays_unknown() -> None:
    world = World(scripted(LOST_ANSWER))
    world.faulty.plan.hidden = lambda _key: True
    with pytest.raises(OutcomeUnknown, match="cannot be read yet"):
        await world.store.put("k", [b"x"])
    world.faulty.plan.hidden = lambda _key: world.clock.now < 1015
    world.faulty.plan.rule = scripted(LOST_ANSWER)
    assert await world.store.put("other", [b"x"]) is Put.CREATED


async def test_an_abandoned_put_that_arrives_late_is_settled() -> None:
    world = World(scripted(Fault(late=0.05)))
    assert await world.store.put("k", [b"x"]) is Put.CREATED
    await world.faulty.settle()
    assert await world.memory.get("k") == b"x"


async def test_a_delete_whose_answer_was_lost_was_done() -> None:
    world = World(scripted(LOST_ANSWER))
    await world.memory.put("k", [b"x"])
    assert await world.store.delete("k") is True
    assert await world.store.delete("k") is False


async def test_cancellation_ends_a_pause() -> None:
    world = World(lambda _operation: LOST_REQUEST)

    async def sleep(_seconds: float) -> None:
        await trio.sleep_forever()

    world.clock.sleep = sleep  # type: ignore[method-assign, assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.store.get, "k")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert world.names() == ["get"]


async def test_the_last_error_is_the_one_raised() -> None:
    errors = [Fault(before=StoreUnreachable)] * 3 + [Fault(before=StoreDenied)]
    world = World(scripted(*errors))
    with pytest.raises(StoreDenied):
        await world.store.info("k")
    world = World(nth(0, LOST_REQUEST, name="get"), seconds=0)
    with pytest.raises(StoreUnreachable):
        await world.store.get("k")
    assert world.names() == ["get"]
