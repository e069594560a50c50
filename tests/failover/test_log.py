"""The chain of records: what is tampered with, reordered, foreign or missing is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import BrokenChain, IllegalOperation, StoreUnreachable, UnknownVersion
from stages.store.faults import LOST_ANSWER, LOST_REQUEST, FaultPlan, FaultStore, nth
from stages.store.memory import MemoryStore
from stages.vault.container import Kind, build
from stages.vault.failover_log import (
    FailoverLog,
    append_failover,
    failed_over,
    load_failovers,
)
from stages.vault.failover_state import Phase
from stages.vault.failovers import Event
from tests.failover.records import (
    BRANCH,
    OPERATOR,
    PEOPLE,
    SCOPE,
    STRANGER,
    after,
    chain,
    put,
    record,
    sealed,
    stored,
)
from tests.vault.support import START, SetClock

E = Event
LIFE = (E.TEST_OPENED, E.TEST_CLEANED, E.OPENED, E.CHANGED, E.CANCELLED, E.OPENED, E.COMMITTED)


async def load(store: MemoryStore) -> FailoverLog:
    return await load_failovers(store, SCOPE, PEOPLE.charter)


@pytest.mark.parametrize("count", range(len(LIFE) + 1))
async def test_any_prefix_reads_as_what_it_was(count: int) -> None:
    objects = chain(*LIFE[:count])
    log = await load(await stored(*objects))
    assert [each.event for each in log.records] == list(LIFE[:count])
    same = after(*LIFE[:count])
    assert (log.state.phase, log.state.point, log.state.branch) == (
        same.phase,
        same.point,
        same.branch,
    )
    assert (log.state.test is None) == (same.test is None)
    assert (log.next_number, log.notes, log.problems) == (count + 1, (), ())


@pytest.mark.parametrize("gone", range(len(LIFE) - 1))
async def test_a_missing_record_is_found(gone: int) -> None:
    objects = chain(*LIFE)
    store = MemoryStore()
    for number, data in enumerate(objects, 1):
        if number != gone + 1:
            await put(store, number, data)
    log = await load(store)
    assert f"failover record {gone + 1} is missing" in log.problems
    assert log.state.phase is Phase.COMMITTED
    with pytest.raises(BrokenChain, match="missing"):
        log.check("web1")


@pytest.mark.parametrize("at", range(len(LIFE)))
async def test_a_tampered_record_is_found(at: int) -> None:
    objects = chain(*LIFE)
    objects[at] = objects[at][:-1] + bytes([objects[at][-1] ^ 1])
    log = await load(await stored(*objects))
    assert any(f"failovers/{at + 1:08d}" in problem for problem in log.problems)
    with pytest.raises(BrokenChain):
        log.check("web1")


@given(st.permutations(range(len(LIFE))))
@settings(max_examples=30)
def test_reordered_records_are_found(order: list[int]) -> None:
    async def look() -> None:
        objects = chain(*LIFE)
        log = await load(await stored(*(objects[at] for at in order)))
        assert bool(log.problems) == (order != sorted(order))

    trio.run(look)


async def test_what_a_stranger_put_there_is_ignored_and_said() -> None:
    junk = sealed(record(E.OPENED), STRANGER)
    store = await stored(junk)
    log = await load(store)
    assert log.state.phase is Phase.NONE
    assert not log.problems
    assert "not the operator" in log.notes[0]
    assert await failed_over(store, SCOPE.group, PEOPLE.charter) is None
    # The chain goes past it, and past rubbish that nobody signed.
    opened = await append(store, E.OPENED)
    assert opened is not None
    await put(store, 3, b"rubbish")
    assert (await load(store)).problems
    made = replace(record(E.COMMITTED, 4), previous=opened.link)
    await put(store, 4, sealed(made))
    log = await load(store)
    assert log.state.phase is Phase.COMMITTED
    assert not log.problems
    assert len(log.notes) == 2


async def append(store: MemoryStore, event: Event, note: str = "") -> FailoverLog | None:
    log = await load(store)
    made = replace(record(event), note=note)
    return await append_failover(store, SCOPE, OPERATOR, log, made)


async def test_appending_goes_on_from_what_is_there() -> None:
    store = MemoryStore()
    for event in LIFE:
        log = await append(store, event)
        assert log == await load(store)
    with pytest.raises(IllegalOperation, match="committed"):
        await append(store, E.CANCELLED)


async def test_stamps_rise_whatever_the_clock_says() -> None:
    store = MemoryStore()
    await append(store, E.OPENED)
    log = await load(store)
    early = replace(record(E.COMMITTED), stamp=START - 1)
    log_after = await append_failover(store, SCOPE, OPERATOR, log, early)
    assert log_after is not None
    assert log_after.records[1].stamp == log.records[0].stamp + 1


async def test_of_two_who_append_one_is_told() -> None:
    store = MemoryStore()
    log = await load(store)
    ours, theirs = record(E.OPENED), replace(record(E.OPENED), host="other")
    assert await append_failover(store, SCOPE, OPERATOR, log, ours) is not None
    assert await append_failover(store, SCOPE, OPERATOR, log, theirs) is None
    found = await load(store)
    assert [each.host for each in found.records] == ["replica7"]


@pytest.mark.parametrize("fault", [LOST_REQUEST, LOST_ANSWER], ids=["request", "answer"])
async def test_a_put_without_an_answer(fault: object) -> None:
    inner = MemoryStore()
    store = FaultStore(inner, FaultPlan(nth(0, fault, name="put")), SetClock())  # type: ignore[arg-type]
    log = await load(inner)
    with pytest.raises(StoreUnreachable):
        await append_failover(store, SCOPE, OPERATOR, log, record(E.OPENED))
    done = fault is LOST_ANSWER
    again = await append_failover(store, SCOPE, OPERATOR, log, record(E.OPENED))
    assert again is not None, done  # the very same bytes count as one's own
    assert len((await load(inner)).records) == 1


@pytest.mark.parametrize("count", range(len(LIFE) + 1))
async def test_the_notice_for_the_old_source(count: int) -> None:
    store = await stored(*chain(*LIFE[:count]))
    notice = await failed_over(store, SCOPE.group, PEOPLE.charter)
    assert (notice is not None) == after(*LIFE[:count]).phase.is_over
    if notice is None:
        return
    error = notice.error("open log", "web1")
    for word in ("ann", "replica7", "UTC", "#"):
        assert word in error.message
    assert "backstay failover status" in error.hint
    assert ("cancel" in error.hint) == (notice.phase is Phase.OPEN)
    assert notice.branch is not None


async def test_in_doubt_a_source_does_not_go_on() -> None:
    objects = chain(E.OPENED)
    store = await stored(objects[0][:-1] + b"?")
    with pytest.raises(BrokenChain, match="00000001"):
        await failed_over(store, SCOPE.group, PEOPLE.charter)
    # What is certain is said all the same.
    store = await stored(*chain(E.OPENED), b"rubbish")
    notice = await failed_over(store, SCOPE.group, PEOPLE.charter)
    assert notice is not None
    assert notice.branch == BRANCH


async def test_a_newer_releases_record_is_not_passed_over() -> None:
    fields = SCOPE.fields() | {"format": 2, "number": 1}
    store = await stored(b"".join(build(Kind.FAILOVER, fields, OPERATOR)))
    with pytest.raises(UnknownVersion):
        await load(store)
