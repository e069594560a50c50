"""Limits as stores keep them: in virtual time, shared, cancelled, changed on the way."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stages.errors import ObjectMissing, StoreUnreachable
from stages.store.faults import Fault, FaultPlan, FaultStore, scripted
from stages.store.limit import LimitedStore, Limiter
from stages.store.memory import MemoryStore
from stages.store.port import Put
from stages.store.retry import RetryStore
from tests.store.doubles import SameByte

MIB = 1 << 20


class Virtual:
    """trio's clock."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int(trio.current_time() * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def limiter(rate: float | None) -> Limiter:
    return Limiter(Virtual(), lambda: rate)


async def test_many_small_puts_take_what_the_rate_says(autojump_clock: MockClock) -> None:
    up = limiter(MIB)
    store = LimitedStore(MemoryStore(), "a", upload=up)
    began = trio.current_time()
    for number in range(50):
        assert await store.put(f"k{number}", [bytes(MIB // 10), memoryview(bytes(10))]) is (
            Put.CREATED
        )
    assert 3.9 <= trio.current_time() - began <= 4.1  # five MiB, the first one at once
    assert up.waiting == 0
    assert up.waited == pytest.approx(trio.current_time() - began)


async def test_a_large_object_goes_as_a_whole_and_is_paid_for_by_what_follows(
    autojump_clock: MockClock,
) -> None:
    store = LimitedStore(MemoryStore(), "a", upload=limiter(MIB))
    began = trio.current_time()
    await store.put("large", [bytes(16 * MIB)])
    assert trio.current_time() == began
    await store.put("small", [b"x"])
    assert 14.9 <= trio.current_time() - began <= 15.1


async def test_machines_share_and_each_gets_the_same(autojump_clock: MockClock) -> None:
    up, inner = limiter(MIB), MemoryStore()
    sent = dict.fromkeys(("a", "b", "c"), 0)

    async def ship(name: str, size: int, at_once: int) -> None:
        store = LimitedStore(inner, name, upload=up)

        async def one(lane: int) -> None:
            number = 0
            while True:
                await store.put(f"{name}/{lane}/{number}", [bytes(size)])
                number += 1
                sent[name] += size

        async with trio.open_nursery() as nursery:
            for lane in range(at_once):
                nursery.start_soon(one, lane)

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ship, "a", MIB // 2, 16)  # greedy: large, and many at once
            nursery.start_soon(ship, "b", MIB // 16, 2)
            nursery.start_soon(ship, "c", MIB // 2, 2)
    assert 58 * MIB <= sum(sent.values()) <= 62 * MIB
    assert max(sent.values()) - min(sent.values()) <= 2 * MIB


async def test_cancelled_before_its_turn_nothing_was_paid(autojump_clock: MockClock) -> None:
    up = limiter(MIB)
    await up.pay("a", 3 * MIB)  # two of them owed
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        gone = trio.CancelScope()

        async def give_up() -> None:
            with gone:
                await up.pay("b", 512 * MIB)

        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(up.pay, "c", MIB)
        await wait_all_tasks_blocked()
        assert up.waiting == 2
        gone.cancel()
    assert up.waiting == 0
    assert trio.current_time() - began == pytest.approx(3, abs=0.01)


async def test_the_first_in_line_leaves_and_the_next_goes_in_time(
    autojump_clock: MockClock,
) -> None:
    up = limiter(MIB)
    await up.pay("a", MIB)
    began = trio.current_time()
    with trio.move_on_after(0.2):
        await up.pay("a", MIB)
    await up.pay("b", MIB // 2)
    assert trio.current_time() - began == pytest.approx(0.5, abs=0.01)


async def test_another_rate_holds_for_who_waits_already(autojump_clock: MockClock) -> None:
    now: list[float | None] = [16.0 * 1024]
    up = Limiter(Virtual(), lambda: now[0])
    await up.pay("a", 64 * MIB)  # an hour of debt
    async with trio.open_nursery() as nursery:
        nursery.start_soon(up.pay, "b", 1)
        await wait_all_tasks_blocked()
        now[0] = None
        began = trio.current_time()
    assert trio.current_time() - began <= 15.001


async def test_without_a_limit_nothing_waits(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    for store in (
        LimitedStore(MemoryStore(), "a"),
        LimitedStore(MemoryStore(), "a", upload=limiter(None), download=limiter(None)),
    ):
        for number in range(10):
            await store.put(f"k{number}", [bytes(8 * MIB)])
            assert len(await store.get(f"k{number}")) == 8 * MIB
    assert trio.current_time() == began


async def test_gets_pay_for_what_they_get(autojump_clock: MockClock) -> None:
    inner = MemoryStore()
    await inner.put("k", [bytes(4 * MIB)])
    down = limiter(MIB)
    store = LimitedStore(inner, "a", download=down)
    began = trio.current_time()
    for _ in range(100):
        assert await store.get("k", 4 * MIB - 1, MIB) == b"\0"  # asks for much, gets a byte
    for _ in range(50):
        with pytest.raises(ObjectMissing):
            await store.get("gone", 0, MIB)
    assert trio.current_time() - began <= 0.2  # a moment for each byte
    began = trio.current_time()
    await store.get("k")  # nobody knew its size
    await store.get("k", 0, 1)
    assert trio.current_time() - began == pytest.approx(3, abs=0.05)
    assert await store.info("k") is not None
    assert len(await store.page("")) == 1
    assert await store.delete("k")
    await store.aclose()


async def test_what_is_sent_again_is_owed(autojump_clock: MockClock) -> None:
    fails = Fault(before=StoreUnreachable)
    inner = FaultStore(MemoryStore(), FaultPlan(scripted(fails, fails)), Virtual())
    up = limiter(MIB)
    patient = RetryStore(
        inner, Virtual(), SameByte(0), again=lambda parts: up.charge(sum(map(len, parts)))
    )
    store = LimitedStore(patient, "a", upload=up)
    began = trio.current_time()
    await store.put("k", [bytes(MIB)])
    await store.put("other", [bytes(MIB)])
    assert trio.current_time() - began == pytest.approx(3, abs=0.01)
