"""What the supervisor concludes from what intake and delivery say."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.model import Direction, Operation, Problem, State
from pipeline.lifecycle.events import Event, Happening
from pipeline.lifecycle.rules import Situation, is_legal, step
from pipeline.supervisor.facts import Look, heard, seen
from pipeline.supervisor.records import MachineRecord
from pipeline.supervisor.rpo import Rpo
from pipeline.supervisor.steps import record_after
from stages.stream import Position

CAPTURES = ("replicating", "scanning", "waiting to scan", "tracking", "")
SAID = ("committed", "delivering", "paused", "drained", "waiting", "failed", "")


def look(capture: str) -> Look:
    return Look(1.0, {"state": capture} if capture else None)


@pytest.mark.parametrize("direction", Direction)
def test_whatever_is_concluded_is_legal(direction: Direction) -> None:
    for state, capture, said, whole in product(State, CAPTURES, SAID, (True, False)):
        now = Situation(state, direction)
        for happening in (
            seen(now, look(capture)),
            heard(now, {"state": said}, look(capture), whole=whole),
        ):
            assert happening is None or is_legal(now, happening), (now, capture, said)


@pytest.mark.parametrize("capture", CAPTURES)
def test_looking_again_and_again_comes_to_rest(capture: str) -> None:
    """The same look does not send a machine round in circles."""
    for state in State:
        now, steps = Situation(state), 0
        while (happening := seen(now, look(capture))) is not None:
            now = step(now, happening).then
            steps += 1
            assert steps <= 3, (state, capture)
        if now.state is State.REPLICATING:
            assert capture in ("replicating", "")


@pytest.mark.parametrize(
    ("state", "capture", "happening"),
    [
        (State.REPLICATING, "tracking", Happening.GAP_OPENED),
        (State.REPLICATING, "waiting to scan", Happening.GAP_OPENED),
        (State.SUSPENDED, "tracking", Happening.GAP_OPENED),
        (State.WAITING_FOR_RESYNC, "scanning", Happening.RESYNC_BEGUN),
        (State.WAITING_FOR_RESYNC, "replicating", Happening.GAP_CLOSED),
        (State.RESYNCHRONIZING, "tracking", Happening.GAP_OPENED),
        (State.RESYNCHRONIZING, "waiting to scan", None),
        (State.INITIAL_REPLICATION, "tracking", None),
        (State.COMMITTED, "tracking", None),
        (State.DISABLED, "tracking", None),
    ],
)
def test_what_intake_says(state: State, capture: str, happening: Happening | None) -> None:
    assert seen(Situation(state), look(capture)) is happening
    assert seen(Situation(state, Direction.REVERSE), look(capture)) is None


@pytest.mark.parametrize(
    ("state", "said", "capture", "whole", "happening"),
    [
        (State.REPLICATING, "waiting", "replicating", True, Happening.RECOVERABLE_ERROR),
        (State.REPLICATING, "failed", "replicating", True, Happening.NON_RECOVERABLE_ERROR),
        (State.REPLICATING, "committed", "replicating", True, None),
        (State.CRITICAL, "committed", "replicating", True, Happening.RECOVERED),
        (State.CRITICAL, "delivering", "tracking", True, Happening.RECOVERED_IN_GAP),
        (State.CRITICAL, "delivering", "scanning", False, Happening.RECOVERED_INITIAL),
        (State.CRITICAL, "paused", "replicating", True, None),
        (State.SUSPENDED, "failed", "replicating", True, None),  # it was told to pause just then
        (State.COMMITTED, "failed", "replicating", True, None),
    ],
)
def test_what_delivery_says(
    state: State, said: str, capture: str, whole: bool, happening: Happening | None
) -> None:
    found = heard(Situation(state), {"state": said}, look(capture), whole=whole)
    assert found is happening


PROBLEM = Problem("Fenced", "no", "", False, 10)


def test_what_is_kept_of_every_step() -> None:
    events: tuple[Event, ...] = (*Operation, *Happening)
    for state, event in product(State, events):
        now = Situation(state)
        if not is_legal(now, event):
            continue
        before = MachineRecord("m", now, whole=True, held=True, problem=PROBLEM, start_us=7)
        after = record_after(before, event, step(now, event), PROBLEM, 9, None)
        assert after.situation == step(now, event).then
        assert (after.problem is not None) == (
            after.situation.state in (State.CRITICAL, State.DISABLED)
            and event is not Happening.DISABLED
        )
        if after.situation.state is not State.READY:
            assert after.start_us is None
        if event is Happening.START_SCHEDULED:
            assert after.start_us == 9
        if event is Operation.RESYNC:
            assert not after.held
            assert after.compare == (state is State.CRITICAL)
        if event is Happening.RESYNC_CANCELLED:
            assert after.held
        if event is Happening.DISABLED:
            assert not (after.whole or after.held)
        assert after.wanted == (event is not Operation.UNPROTECT)
        assert MachineRecord.of(after.as_fields()) == after


@given(
    written=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), max_size=60),
)
def test_the_rpo_is_never_too_small(written: list[tuple[int, int]]) -> None:
    """A write per second at most, committed some seconds later: against a slow, exact answer."""
    rpo, head, committed = Rpo(), 0, 0
    rpo.look(0.0, Position(1, 0), Position(1, 0))
    ages: list[tuple[float, int]] = []  # when it was written, the head behind it
    for now, (size, ships) in enumerate(written, 1):
        if size:
            head += size
            ages.append((now - 0.5, head))
        committed = min(head, committed + ships)
        rpo.look(float(now), Position(1, head), Position(1, committed))
        open_ages = [now - at for at, behind in ages if behind > committed]
        found = rpo.seconds(float(now))
        assert found is not None
        if not open_ages:
            assert found == 0.0
        else:
            assert max(open_ages) <= found <= max(open_ages) + 1.0


def test_what_nobody_knows() -> None:
    rpo = Rpo()
    assert rpo.seconds(1.0) is None
    rpo.look(1.0, Position(3, 100), Position(3, 50))
    assert rpo.seconds(2.0) is None  # since before anybody looked
    rpo.look(2.0, Position(3, 200), Position(3, 100))
    assert rpo.seconds(3.0) == 2.0
    rpo.look(3.0, Position(3, 200), Position(3, 200))
    assert rpo.seconds(9.0) == 0.0


def test_it_is_bounded() -> None:
    rpo = Rpo()
    for now in range(20_000):
        rpo.look(float(now), Position(1, now), Position(1, 0))
    assert len(rpo._heads) <= 4097
    assert rpo.seconds(20_000.0) == 20_000.0
    rpo.look(20_000.0, Position(1, 20_000), Position(1, 15_000))
    found = rpo.seconds(20_001.0)
    assert found is not None
    assert found >= 5000
