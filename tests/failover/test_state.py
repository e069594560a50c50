"""The table: every event in every state, any history, any part of one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import IllegalOperation
from stages.vault.failover_state import (
    VERBS,
    FailoverState,
    Phase,
    following,
    refusal,
    replay,
)
from stages.vault.failovers import Event
from tests.failover.records import BRANCH, OTHER_BRANCH, OTHER_POINT, POINT, after, record

E = Event
WAYS: dict[tuple[Phase, bool], tuple[Event, ...]] = {
    (Phase.NONE, False): (),
    (Phase.NONE, True): (E.TEST_OPENED,),
    (Phase.OPEN, False): (E.OPENED,),
    (Phase.OPEN, True): (E.TEST_OPENED, E.OPENED),
    (Phase.CANCELLED, False): (E.OPENED, E.CANCELLED),
    (Phase.CANCELLED, True): (E.TEST_OPENED, E.OPENED, E.CANCELLED),
    (Phase.COMMITTED, False): (E.OPENED, E.COMMITTED),
    (Phase.COMMITTED, True): (E.TEST_OPENED, E.OPENED, E.COMMITTED),
    (Phase.REPROTECTED, False): (E.OPENED, E.COMMITTED, E.REPROTECTED),
    (Phase.REPROTECTED, True): (E.TEST_OPENED, E.OPENED, E.COMMITTED, E.REPROTECTED),
    (Phase.CLOSED, False): (E.OPENED, E.COMMITTED, E.CLOSED),
    (Phase.CLOSED, True): (E.TEST_OPENED, E.OPENED, E.COMMITTED, E.CLOSED),
}
BACK = {E.OPENED}
PENDING = {E.CHANGED, E.COMMITTED, E.CANCELLED}
ALLOWED: dict[Phase, set[Event]] = {
    Phase.NONE: BACK,
    Phase.CANCELLED: BACK,
    Phase.OPEN: PENDING,
    Phase.COMMITTED: {E.REPROTECTED, E.CLOSED},
    Phase.REPROTECTED: {E.CLOSED},
    Phase.CLOSED: set(),
}


@pytest.mark.parametrize(("where", "event"), list(itertools.product(WAYS, Event)), ids=str)
def test_every_event_in_every_state(where: tuple[Phase, bool], event: Event) -> None:
    phase, testing = where
    state = after(*WAYS[where])
    assert (state.phase, state.test is not None) == where
    allowed = set(ALLOWED[phase])
    if testing:
        allowed.add(E.TEST_CLEANED)
    elif phase in (Phase.NONE, Phase.CANCELLED):
        allowed.add(E.TEST_OPENED)
    assert set(state.allowed()) == allowed
    if event in allowed:
        assert following(state, record(event, 9)) != state
        return
    with pytest.raises(IllegalOperation) as caught:
        following(state, record(event, 9))
    assert phase.value in caught.value.message
    assert caught.value.operation == VERBS[event]
    for each in allowed:
        assert VERBS[each] in caught.value.hint


def test_a_refusal_says_who() -> None:
    refused = refusal(after(E.OPENED), E.OPENED, "web1")
    assert "ann on replica7" in refused.message
    assert refused.subject == "web1"
    assert "ann on replica7" in refusal(after(E.TEST_OPENED), E.TEST_OPENED).message


def test_what_a_failover_carries() -> None:
    state = after(E.OPENED)
    assert (state.point, state.branch, state.planned) == (POINT, BRANCH, True)
    state = after(E.OPENED, E.CHANGED)
    assert (state.point, state.branch) == (OTHER_POINT, OTHER_BRANCH)


def test_a_test_is_an_axis_of_its_own() -> None:
    before = after(E.OPENED, E.CANCELLED)
    tested = following(following(before, record(E.TEST_OPENED, 3)), record(E.TEST_CLEANED, 4))
    assert tested == before


histories = st.lists(st.sampled_from(Event), max_size=12)


def legal(events: list[Event]) -> list[Event]:
    """What of a history is allowed, each in its turn."""
    state = FailoverState()
    found: list[Event] = []
    for event in events:
        if state.allows(event):
            state = following(state, record(event, len(found) + 1))
            found.append(event)
    return found


@given(histories, st.integers(0, 12))
def test_any_prefix_of_a_legal_history_replays_without_a_word(
    events: list[Event], cut: int
) -> None:
    history = legal(events)[:cut]
    records = [record(event, number) for number, event in enumerate(history, 1)]
    state, problems = replay(records)
    assert not problems
    assert state == after(*history)


@given(histories)
def test_any_history_at_all_ends_where_its_newest_record_says(events: list[Event]) -> None:
    records = [record(event, number) for number, event in enumerate(events, 1)]
    state, problems = replay(records)
    assert bool(problems) == (legal(events) != events)
    main = [each for each in records if not each.event.value.startswith("test")]
    if main:
        assert state.last == main[-1]
        assert state.phase.is_over == (main[-1].event is not E.CANCELLED)
    else:
        assert state.phase is Phase.NONE
