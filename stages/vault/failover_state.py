"""What a machine's failover records add up to: pure, one table (R14).

The main axis: none → open (commit pending) → committed → reprotected or closed; cancelling goes
back to none. The test axis is of its own: a test does not touch the other.

Two ways to read. ``following`` is for writing: an event that the state does not allow is an error
that names what is. ``replay`` is for reading what is there: every record repeats the point and the
branch, so the newest one says where things stand even where one before it is missing; what does
not fit is reported.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.errors import IllegalOperation
from stages.vault.failovers import Event, FailoverPoint, FailoverRecord


class Phase(enum.StrEnum):
    """The main axis. ``CANCELLED`` is as good as ``NONE``, but remembers."""

    NONE = "not failed over"
    OPEN = "failed over, commit pending"
    COMMITTED = "failover committed"
    CANCELLED = "failover cancelled"
    REPROTECTED = "failed over and reprotected"
    CLOSED = "failed over for good"

    @property
    def is_over(self) -> bool:
        """Production is elsewhere: the old source must not go on."""
        return self not in (Phase.NONE, Phase.CANCELLED)


# What an event makes of the main axis, and out of which phases it may.
_LEADS: dict[Event, tuple[Phase, frozenset[Phase]]] = {
    Event.OPENED: (Phase.OPEN, frozenset({Phase.NONE, Phase.CANCELLED})),
    Event.CHANGED: (Phase.OPEN, frozenset({Phase.OPEN})),
    Event.COMMITTED: (Phase.COMMITTED, frozenset({Phase.OPEN})),
    Event.CANCELLED: (Phase.CANCELLED, frozenset({Phase.OPEN})),
    Event.REPROTECTED: (Phase.REPROTECTED, frozenset({Phase.COMMITTED})),
    Event.CLOSED: (Phase.CLOSED, frozenset({Phase.COMMITTED, Phase.REPROTECTED})),
}
_TEST_FROM = frozenset({Phase.NONE, Phase.CANCELLED})

# How people ask for an event.
VERBS = {
    Event.OPENED: "failover planned, failover unplanned",
    Event.CHANGED: "failover change-point",
    Event.COMMITTED: "failover commit",
    Event.CANCELLED: "failover cancel",
    Event.REPROTECTED: "reprotect",
    Event.CLOSED: "migrate",
    Event.TEST_OPENED: "failover test",
    Event.TEST_CLEANED: "failover cleanup",
}


@dataclass(frozen=True, slots=True)
class FailoverState:
    """Where a machine stands. ``last``: the newest record of the main axis; ``test``: an open
    test's record. ``point``, ``branch``, ``planned`` belong to the failover that is (or was)."""

    phase: Phase = Phase.NONE
    point: FailoverPoint | None = None
    branch: bytes | None = None
    planned: bool = False
    last: FailoverRecord | None = None
    test: FailoverRecord | None = None

    def allows(self, event: Event) -> bool:
        """May ``event`` come next?"""
        if event is Event.TEST_OPENED:
            return self.test is None and self.phase in _TEST_FROM
        if event is Event.TEST_CLEANED:
            return self.test is not None
        return self.phase in _LEADS[event][1]

    def allowed(self) -> tuple[Event, ...]:
        """All events that may come next, in the order of their names' table."""
        return tuple(event for event in Event if self.allows(event))

    def described(self) -> str:
        """The state in words, the test with it."""
        return self.phase.value + (", a test is open" if self.test is not None else "")


NOT_FAILED_OVER = FailoverState()


def following(state: FailoverState, record: FailoverRecord) -> FailoverState:
    """The state after ``record``. Raises ``IllegalOperation`` if it may not come now."""
    if not state.allows(record.event):
        raise refusal(state, record.event)
    return _after(state, record)


def refusal(state: FailoverState, event: Event, subject: str = "") -> IllegalOperation:
    """The error that names the state and what is allowed in it."""
    allowed = ", ".join(VERBS[each] for each in state.allowed())
    last = state.last
    since = ""
    if last is not None and event not in (Event.TEST_OPENED, Event.TEST_CLEANED):
        since = f" (by {last.by} on {last.host})"
    elif state.test is not None:
        since = f" (by {state.test.by} on {state.test.host})"
    return IllegalOperation(
        f"not possible: the machine is '{state.described()}'{since}",
        operation=VERBS[event],
        subject=subject,
        hint=f"allowed now: {allowed or 'nothing'}",
    )


def replay(records: Sequence[FailoverRecord]) -> tuple[FailoverState, tuple[str, ...]]:
    """What records in their order add up to, and which of them do not fit what was before."""
    state = NOT_FAILED_OVER
    problems: list[str] = []
    for record in records:
        if not state.allows(record.event):
            problems.append(
                f"failover record {record.number} ({record.event}) does not follow from "
                f"'{state.described()}': one before it is missing"
            )
        state = _after(state, record)
    return state, tuple(problems)


def _after(state: FailoverState, record: FailoverRecord) -> FailoverState:
    if record.event is Event.TEST_OPENED:
        return replace(state, test=record)
    if record.event is Event.TEST_CLEANED:
        return replace(state, test=None)
    phase, _ = _LEADS[record.event]
    return replace(
        state,
        phase=phase,
        point=record.point or state.point,
        branch=record.branch or state.branch,
        planned=record.planned,
        last=record,
    )
