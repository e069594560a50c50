"""ObservedStore counts what passes through it."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from stages.errors import ObjectMissing, StoreUnreachable
from stages.store.faults import Fault, FaultPlan, FaultStore, scripted
from stages.store.memory import MemoryStore
from stages.store.observe import BUCKETS, OPERATIONS, ObservedStore
from tests.store.doubles import StillClock


def observed(*faults: Fault | None) -> tuple[ObservedStore, StillClock]:
    clock = StillClock()
    inner = FaultStore(MemoryStore("memory:test"), FaultPlan(scripted(*faults)), clock)
    return ObservedStore(inner, clock), clock


async def test_calls_bytes_and_errors() -> None:
    store, _ = observed(None, None, None, Fault(before=StoreUnreachable))
    await store.put("a", [b"123", memoryview(b"45")])
    await store.put("a", [b"123456"])
    assert await store.get("a", 1, 3) == b"234"
    with pytest.raises(StoreUnreachable):
        await store.get("a")
    for _ in range(2):
        with pytest.raises(ObjectMissing):
            await store.get("b")
    await store.info("a")
    await store.page("")
    await store.delete("a")
    found = store.statistics()
    assert found.url == store.url == "memory:test"
    assert [one.name for one in found.operations] == list(OPERATIONS)
    assert [one.calls for one in found.operations] == [2, 4, 1, 1, 1]
    assert (found.of("put").bytes, found.of("get").bytes) == (5, 3)
    assert found.of("get").errors == (("ObjectMissing", 2), ("StoreUnreachable", 1))
    assert found.of("put").errors == ()
    assert all(one.running == one.cancelled == 0 for one in found.operations)


async def test_latencies_fall_into_buckets_of_powers_of_two() -> None:
    seconds = [0.0, 1e-6, 1.5e-6, 0.003, 1.0, 1e6]
    store, _ = observed(*(Fault(delay=value) for value in seconds))
    for _ in seconds:
        await store.info("a")
    found = store.statistics().of("info")
    assert len(found.latencies) == BUCKETS
    assert sum(found.latencies) == found.calls == len(seconds)
    filled = {bucket: count for bucket, count in enumerate(found.latencies) if count}
    # 1 s is 999,999 or 1,000,000 us after rounding: both are below 2**20.
    assert filled.keys() <= {0, 1, 12, 20, BUCKETS - 1}
    assert filled[12] == filled[20] == filled[BUCKETS - 1] == 1
    assert found.seconds == pytest.approx(sum(seconds))


async def test_quantiles_are_upper_bounds() -> None:
    store, _ = observed(*[Fault(delay=0.001)] * 98, Fault(delay=0.5), Fault(delay=0.5))
    for _ in range(100):
        await store.info("a")
    found = store.statistics().of("info")
    assert 0.001 <= found.quantile(0.5) < 0.0021
    assert 0.5 <= found.quantile(0.99) < 1.1
    assert found.quantile(1.0) == found.quantile(0.99)
    assert store.statistics().of("put").quantile(0.5) == 0


async def test_a_snapshot_does_not_change() -> None:
    store, _ = observed()
    before = store.statistics()
    await store.put("a", [b"x"])
    assert before.of("put").calls == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.url = "other"  # type: ignore[misc]


async def test_what_runs_and_what_was_cancelled() -> None:
    store, clock = observed(Fault(delay=1.0))

    async def sleep(_seconds: float) -> None:
        await trio.sleep_forever()

    clock.sleep = sleep  # type: ignore[method-assign, assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.get, "a")
        await wait_all_tasks_blocked()
        assert store.statistics().of("get").running == 1
        nursery.cancel_scope.cancel()
    found = store.statistics().of("get")
    assert (found.calls, found.running, found.cancelled, found.errors) == (1, 0, 1, ())
