"""FaultStore does exactly what its plan says, and MemoryStore's own limits."""

from __future__ import annotations

import pytest

from stages.errors import NoSpace, ObjectMissing, OutcomeUnknown, StoreDenied, StoreUnreachable
from stages.store.faults import (
    ABANDONED,
    LOST_ANSWER,
    LOST_REQUEST,
    Fault,
    FaultPlan,
    FaultStore,
    Operation,
    Traced,
    nth,
    scripted,
)
from stages.store.memory import MemoryStore
from stages.store.port import Put
from tests.store.doubles import StillClock


def faulty(plan: FaultPlan) -> tuple[FaultStore, MemoryStore, StillClock]:
    clock = StillClock()
    inner = MemoryStore(clock=clock)
    return FaultStore(inner, plan, clock), inner, clock


async def test_a_lost_request_has_no_effect_a_lost_answer_has() -> None:
    store, inner, _ = faulty(FaultPlan(scripted(LOST_REQUEST, LOST_ANSWER, None, LOST_ANSWER)))
    with pytest.raises(StoreUnreachable) as caught:
        await store.put("a", [b"x"])
    assert type(caught.value) is StoreUnreachable
    assert (caught.value.operation, caught.value.subject) == ("put", "a")
    assert await inner.info("a") is None
    with pytest.raises(OutcomeUnknown):
        await store.put("a", [b"x"])
    assert await inner.get("a") == b"x"
    assert await store.get("a") == b"x"
    with pytest.raises(OutcomeUnknown):
        await store.delete("a")
    assert await inner.info("a") is None


async def test_the_nth_operation_of_a_name() -> None:
    store, _, _ = faulty(FaultPlan(nth(1, Fault(before=StoreDenied), name="info")))
    await store.info("a")
    await store.put("a", [b"x"])
    with pytest.raises(StoreDenied):
        await store.info("a")
    await store.info("a")


async def test_the_trace_tells_what_happened_in_order() -> None:
    store, _, _ = faulty(FaultPlan(nth(1, LOST_ANSWER)))
    await store.put("a", [b"x"])
    with pytest.raises(OutcomeUnknown):
        await store.put("b", [b"x"])
    with pytest.raises(ObjectMissing):
        await store.get("c")
    await store.page("p")
    assert list(store.trace) == [
        Traced(Operation(0, "put", "a"), "ok"),
        Traced(Operation(1, "put", "b"), "OutcomeUnknown"),
        Traced(Operation(2, "get", "c"), "ObjectMissing"),
        Traced(Operation(3, "page", "p"), "ok"),
    ]


async def test_delays_pass_on_the_clock() -> None:
    store, _, clock = faulty(FaultPlan(lambda _operation: Fault(delay=3.5)))
    await store.put("a", [b"x"])
    assert await store.get("a") == b"x"
    assert clock.sleeps == [3.5, 3.5]


async def test_one_byte_of_a_get_is_flipped() -> None:
    store, inner, _ = faulty(FaultPlan(lambda _operation: Fault(flip=5)))
    await inner.put("a", [b"abc"])
    await inner.put("empty", [])
    assert await store.get("a") == b"ab" + bytes([ord("c") ^ 0xFF])
    assert await store.get("empty") == b""
    assert await inner.get("a") == b"abc"


async def test_hidden_objects_are_not_seen_but_exist() -> None:
    plan = FaultPlan(hidden=lambda key: key in ("b", "c"))
    store, inner, _ = faulty(plan)
    for key in "abcde":
        await inner.put(key, [b"x"])
    assert [info.key for info in await store.page("", limit=2)] == ["a", "d"]
    assert [info.key for info in await store.page("", "a")] == ["d", "e"]
    assert await store.info("b") is None
    with pytest.raises(ObjectMissing):
        await store.get("b")
    assert await store.put("b", [b"x"]) is Put.EXISTS
    plan.hidden = lambda _key: False
    assert await store.get("b") == b"x"


async def test_an_abandoned_put_takes_effect_later() -> None:
    store, inner, clock = faulty(FaultPlan(scripted(Fault(late=5.0), Fault(late=2.0))))
    for data in (b"slow", b"fast"):
        with pytest.raises(OutcomeUnknown):
            await store.put("a", [data])
    assert await store.info("a") is None
    clock.now += 2
    assert await store.get("a") == b"fast"
    await store.settle()
    assert await inner.get("a") == b"fast"


async def test_abandoned_puts_are_limited() -> None:
    store, _, _ = faulty(FaultPlan(lambda _operation: Fault(late=1.0)))
    for number in range(ABANDONED):
        with pytest.raises(OutcomeUnknown):
            await store.put(f"k/{number}", [b"x"])
    with pytest.raises(ValueError, match="abandoned"):
        await store.put("k/more", [b"x"])


async def test_memory_is_limited_and_dates_objects_by_its_clock() -> None:
    clock = StillClock(now=77.5)
    store = MemoryStore(clock=clock, max_bytes=10)
    await store.put("a", [b"123456"])
    with pytest.raises(NoSpace):
        await store.put("b", [b"12345"])
    assert await store.info("b") is None
    await store.delete("a")
    assert await store.put("b", [b"12345"]) is Put.CREATED
    info = await store.info("b")
    assert info is not None
    assert info.modified == 77.5


async def test_memory_refuses_a_key_inside_another() -> None:
    store = MemoryStore()
    await store.put("a/b", [])
    for key in ("a", "a/b/c"):
        with pytest.raises(ValueError, match="folder of the other"):
            await store.put(key, [])
