"""Every state, event and direction, all of the test's axis: the expected step or an error."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import product

import pytest

from pipeline.control.model import Direction, JobKind, Operation, State
from pipeline.control.model import TestFailover as Axis
from pipeline.lifecycle.events import Do, Event, Happening, Start
from pipeline.lifecycle.rules import (
    Situation,
    allowed,
    delivers,
    is_legal,
    rests,
    step,
)
from pipeline.lifecycle.table import ROWS, TABLE, TEST_TABLE
from stages.errors import IllegalOperation
from tests.lifecycle.expected import LINES, TESTS

EVENTS: tuple[Event, ...] = (*Operation, *Happening)
TEST_STATES = (State.REPLICATING, State.SUSPENDED, State.CRITICAL)
SITUATIONS = [Situation(*one) for one in product(State, Direction, Axis)]


def event_called(name: str) -> list[Event]:
    """An operation's name, or else a happening's; "DISABLED" and the like are no operations."""
    return [kind[name] for kind in (Operation, Happening) if name in kind.__members__]


@dataclass(frozen=True)
class Expected:
    then: str
    jobs: tuple[JobKind, ...]
    turns: bool


def parsed(lines: str) -> dict[tuple[str, Event, Direction], Expected]:
    found: dict[tuple[str, Event, Direction], Expected] = {}
    for line in lines.strip().splitlines():
        states, events, then, *jobs = line.split()
        directions: tuple[Direction, ...] = tuple(Direction)
        if states[0] in "<>":
            directions = (Direction.FORWARD if states[0] == ">" else Direction.REVERSE,)
        kinds = tuple(JobKind[job.strip("[]")] for job in jobs)
        for state, name, direction in product(
            states.strip("<>").split("|"), events.split("|"), directions
        ):
            (event,) = event_called(name)
            target = state if then == "=" else then.strip("~")
            assert (state, event, direction) not in found, line
            found[state, event, direction] = Expected(target, kinds, then.endswith("~"))
    return found


MAIN = parsed(LINES)
TEST = parsed(TESTS)
TEST_EVENTS = {event for _, event, _ in TEST}


def test_no_name_is_both_an_operation_and_a_happening() -> None:
    assert not set(Operation.__members__) & set(Happening.__members__)
    assert not {one.value for one in Operation} & {one.value for one in Happening}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_situation(event: Event) -> None:
    for now in SITUATIONS:
        if event in TEST_EVENTS:
            expected = TEST.get((now.test.name, event, now.direction))
            if event is Operation.TEST_FAILOVER and now.state not in TEST_STATES:
                expected = None
        else:
            expected = MAIN.get((now.state.name, event, now.direction))
        assert is_legal(now, event) == (expected is not None), (now, event)
        if expected is None:
            with pytest.raises(IllegalOperation) as raised:
                step(now, event, "web1")
            assert now.state.value in str(raised.value)
            assert str(raised.value).startswith(f"{event.value}: web1: ")
            for operation in allowed(now):
                assert operation.value in raised.value.hint
            continue
        found = step(now, event)
        jobs = tuple(effect.job for effect in found.effects if isinstance(effect, Start))
        assert jobs == expected.jobs, (now, event)
        if event in TEST_EVENTS:
            assert found.then == Situation(now.state, now.direction, Axis[expected.then])
        else:
            other = {Direction.FORWARD: Direction.REVERSE, Direction.REVERSE: Direction.FORWARD}
            direction = other[now.direction] if expected.turns else now.direction
            assert found.then == Situation(State[expected.then], direction, now.test)


def test_every_event_has_a_place() -> None:
    used = {event for _, event, _ in TABLE} | {event for _, event in TEST_TABLE}
    assert used == set(EVENTS)
    named = {job.job for row in ROWS for job in row.effects if isinstance(job, Start)}
    named |= {e.job for _, effects in TEST_TABLE.values() for e in effects if isinstance(e, Start)}
    assert named == set(JobKind)
    done = {effect for row in ROWS for effect in row.effects}
    assert done >= set(Do)


def test_allowed_is_what_the_reference_says() -> None:
    rules = {
        Operation.START_REPLICATION: {State.READY},
        Operation.SUSPEND: {State.REPLICATING, State.RESYNCHRONIZING},
        Operation.RESUME: {State.SUSPENDED, State.RESYNC_SUSPENDED},
        Operation.RESYNC: {State.CRITICAL, State.WAITING_FOR_RESYNC},
        Operation.CHANGE_POINT: {State.COMMIT_PENDING},
        Operation.COMMIT_FAILOVER: {State.COMMIT_PENDING},
        Operation.CANCEL_FAILOVER: {State.PREPARED, State.FAILING_OVER, State.COMMIT_PENDING},
        Operation.REPROTECT: {State.COMMIT_PENDING, State.COMMITTED},
        Operation.TEST_FAILOVER: set(TEST_STATES),
        Operation.UNPROTECT: set(State) - {State.DISABLED},
    }
    for operation, states in rules.items():
        for direction in Direction:
            found = {s for s in State if operation in allowed(Situation(s, direction))}
            assert found == states, operation


def reachable(start: Situation) -> set[Situation]:
    seen, todo = {start}, deque([start])
    while todo:
        now = todo.popleft()
        for event in EVENTS:
            if is_legal(now, event) and (then := step(now, event).then) not in seen:
                seen.add(then)
                todo.append(then)
    return seen


def test_every_situation_can_come_and_has_a_way_back() -> None:
    everything = reachable(Situation())
    assert everything == set(SITUATIONS)
    for now in SITUATIONS:
        assert Situation(now.state) in reachable(now), now  # the test can be cleaned up
        assert Situation() in reachable(now), now
        replicates = Situation(State.REPLICATING) in reachable(now)
        assert replicates, now


def test_a_migrated_machine_only_leaves() -> None:
    for direction in Direction:
        for test in (Axis.NONE, Axis.RUNNING):
            now = Situation(State.MIGRATED, direction, test)
            assert allowed(now) == (Operation.UNPROTECT,)


def test_no_dead_end_without_an_effect() -> None:
    """Where nobody can do anything, a job or the daemon is at work."""
    for now in SITUATIONS:
        assert allowed(now), now
        leads_on = {step(now, event).then for event in EVENTS if is_legal(now, event)} - {now}
        assert leads_on, now


def test_what_a_state_means_for_its_parts() -> None:
    for now in SITUATIONS:
        if now.direction is Direction.REVERSE or now.state in (
            State.DISABLED,
            State.CHECKING,
            State.READY,
            State.SUSPENDED,
            State.RESYNC_SUSPENDED,
            State.PREPARED,
            State.FAILING_OVER,
            State.COMMIT_PENDING,
            State.COMMITTED,
            State.REPROTECTING,
            State.MIGRATED,
            State.DISABLING,
        ):
            assert not delivers(now), now
        else:
            assert delivers(now), now
        assert not (rests(now, scheduled=True) and delivers(now)), now
    assert rests(Situation(State.READY), scheduled=True)
    assert not rests(Situation(State.READY), scheduled=False)


def test_effects_say_what_the_next_state_means() -> None:
    """Delivery starts and stops exactly where the states say so."""
    for now, event in product(SITUATIONS, EVENTS):
        if not is_legal(now, event):
            continue
        found = step(now, event)
        before, after = delivers(now), delivers(found.then)
        if not before and after:
            assert Do.START_DELIVERY in found.effects, (now, event)
        if before and not after:
            assert Do.STOP_DELIVERY in found.effects, (now, event)
        if Do.STOP_DELIVERY in found.effects:
            assert not after, (now, event)
