"""The life of a job as a table, without I/O: which event leads where, what an operator may do.

A job that was begun again is the same job: it keeps its number, and its history is in the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from pipeline.control.model import JobAction, JobState
from stages.errors import IllegalOperation


class JobEvent(StrEnum):
    """What happens to a job."""

    START = "start"  # the supervisor takes it in hand
    SUCCEED = "succeed"
    FAIL = "fail"
    WAIT = "wait"  # for a person
    CANCEL = "cancel"  # it has been cancelled: what it had begun is undone or left as it says
    RESTART = "restart"
    RESUME = "resume"


_NEXT: Mapping[tuple[JobState, JobEvent], JobState] = MappingProxyType(
    {
        (JobState.NOT_STARTED, JobEvent.START): JobState.IN_PROGRESS,
        (JobState.NOT_STARTED, JobEvent.FAIL): JobState.FAILED,
        (JobState.NOT_STARTED, JobEvent.CANCEL): JobState.CANCELLED,
        (JobState.IN_PROGRESS, JobEvent.SUCCEED): JobState.SUCCEEDED,
        (JobState.IN_PROGRESS, JobEvent.FAIL): JobState.FAILED,
        (JobState.IN_PROGRESS, JobEvent.WAIT): JobState.SUSPENDED,
        (JobState.IN_PROGRESS, JobEvent.CANCEL): JobState.CANCELLED,
        (JobState.SUSPENDED, JobEvent.RESUME): JobState.IN_PROGRESS,
        (JobState.SUSPENDED, JobEvent.FAIL): JobState.FAILED,
        (JobState.SUSPENDED, JobEvent.CANCEL): JobState.CANCELLED,
        (JobState.FAILED, JobEvent.RESTART): JobState.NOT_STARTED,
        (JobState.CANCELLED, JobEvent.RESTART): JobState.NOT_STARTED,
    }
)

_EVENTS: Mapping[JobAction, JobEvent] = MappingProxyType(
    {
        JobAction.CANCEL: JobEvent.CANCEL,
        JobAction.RESTART: JobEvent.RESTART,
        JobAction.RESUME: JobEvent.RESUME,
    }
)


def follows(state: JobState, event: JobEvent) -> JobState:
    """The state after ``event``. ``IllegalOperation`` names the state and what is possible."""
    found = _NEXT.get((state, event))
    if found is None:
        possible = ", ".join(each for at, each in _NEXT if at is state) or "nothing"
        raise IllegalOperation(
            f"a job that is {state} cannot {event}; possible: {possible}", operation="job"
        )
    return found


def allowed_actions(state: JobState, cancellable: bool = True) -> tuple[JobAction, ...]:
    """What an operator may do to a job in ``state``; ``cancellable``: no point of no return was
    passed, and its kind can be cancelled at all."""
    return tuple(
        action
        for action, event in _EVENTS.items()
        if (state, event) in _NEXT and (cancellable or action is not JobAction.CANCEL)
    )


def check_action(number: int, state: JobState, action: JobAction, cancellable: bool = True) -> None:
    """Raise ``IllegalOperation``, which names what is allowed, unless ``action`` is."""
    allowed = allowed_actions(state, cancellable)
    if action in allowed:
        return
    why = f"it is {state}"
    if action is JobAction.CANCEL and not state.is_over:
        why += " and can no longer be cancelled"
    possible = ", ".join(allowed) or "nothing"
    raise IllegalOperation(
        f"{why}; allowed: {possible}",
        operation=f"job {action}",
        subject=f"#{number}",
        hint="see 'backstay job show'",
    )
