"""Steps of a machine's lifecycle by the table, and what each state means for its parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipeline.control.model import Direction, Operation, State, TestFailover
from pipeline.lifecycle.events import Effect, Event
from pipeline.lifecycle.table import TABLE, TEST_STATES, TEST_TABLE
from stages.errors import IllegalOperation, UsageError

MAX_DELAY_US = 7 * 86_400_000_000
"""Initial replication may be put off by seven days."""

_DELIVERS = frozenset(
    {
        State.INITIAL_REPLICATION,
        State.FINALIZING,
        State.REPLICATING,
        State.WAITING_FOR_RESYNC,
        State.RESYNCHRONIZING,
        State.CRITICAL,
    }
)
_RESTS = frozenset({State.DISABLED, State.MIGRATED})
_TEST_EVENTS = frozenset(event for _, event in TEST_TABLE)


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a machine stands, on all three axes."""

    state: State = State.DISABLED
    direction: Direction = Direction.FORWARD
    test: TestFailover = TestFailover.NONE

    def as_fields(self) -> dict[str, str]:
        """For JSON."""
        return {
            "state": self.state.value,
            "direction": self.direction.value,
            "test": self.test.value,
        }

    @staticmethod
    def of(fields: dict[str, Any]) -> Situation:
        """Undo ``as_fields``. ``KeyError``, ``ValueError`` for what is none."""
        return Situation(
            State(fields["state"]), Direction(fields["direction"]), TestFailover(fields["test"])
        )

    def __str__(self) -> str:
        words: list[str] = [self.state.value]
        if self.direction is Direction.REVERSE:
            words.append("in the reverse direction")
        if self.test is not TestFailover.NONE:
            words.append(f"test failover {self.test.value}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Step:
    """What an event makes of a situation."""

    then: Situation
    effects: tuple[Effect, ...]


def step(now: Situation, event: Event, subject: str = "") -> Step:
    """What ``event`` leads to. ``IllegalOperation`` names the state and what is allowed in it."""
    found = _test_step(now, event) if event in _TEST_EVENTS else _main_step(now, event)
    if found is None:
        raise illegal(now, event, subject)
    return found


def is_legal(now: Situation, event: Event) -> bool:
    """Would ``step`` have an answer?"""
    return (_test_step(now, event) or _main_step(now, event)) is not None


def allowed(now: Situation) -> tuple[Operation, ...]:
    """The operations that are allowed, in the order of ``Operation``."""
    return tuple(operation for operation in Operation if is_legal(now, operation))


def illegal(now: Situation, event: Event, subject: str, why: str = "") -> IllegalOperation:
    """The error that says so; ``why``: more than the state forbids it."""
    names = [operation.value for operation in allowed(now)]
    return IllegalOperation(
        why or f"not possible while it is: {now}",
        operation=event.value,
        subject=subject,
        hint=f"allowed now: {', '.join(names)}" if names else "nothing is allowed now",
    )


def delivers(now: Situation) -> bool:
    """Its journal is shipped. In the reverse direction the other side captures and ships."""
    return now.state in _DELIVERS and now.direction is Direction.FORWARD


def rests(now: Situation, *, scheduled: bool) -> bool:
    """Its writes are only tracked, because nothing ships them soon. ``scheduled``: its initial
    replication begins at a time to come."""
    return now.state in _RESTS or (now.state is State.READY and scheduled)


def start_time(at_us: int, now_us: int, subject: str) -> int | None:
    """When initial replication is to begin, None for now. ``UsageError`` beyond seven days."""
    if at_us <= now_us:
        return None
    if at_us > now_us + MAX_DELAY_US:
        raise UsageError(
            "initial replication can be put off by 7 days at most",
            operation=Operation.START_REPLICATION.value,
            subject=subject,
        )
    return at_us


def _main_step(now: Situation, event: Event) -> Step | None:
    found = TABLE.get((now.state, event, now.direction))
    if found is None:
        return None
    direction = _other(now.direction) if found.turns else now.direction
    return Step(Situation(found.state, direction, now.test), found.effects)


def _test_step(now: Situation, event: Event) -> Step | None:
    found = TEST_TABLE.get((now.test, event))
    if found is None or (event is Operation.TEST_FAILOVER and now.state not in TEST_STATES):
        return None
    return Step(replace(now, test=found[0]), found[1])


def _other(direction: Direction) -> Direction:
    return Direction.FORWARD if direction is Direction.REVERSE else Direction.REVERSE
