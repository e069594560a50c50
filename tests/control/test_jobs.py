"""The life of a job: every state with every event, and with every action."""

from __future__ import annotations

from itertools import product

import pytest

from pipeline.control.jobs import JobEvent, allowed_actions, check_action, follows
from pipeline.control.model import JobAction, JobState
from stages.errors import IllegalOperation

N, I, S = JobState.NOT_STARTED, JobState.IN_PROGRESS, JobState.SUCCEEDED  # noqa: E741
F, C, W = JobState.FAILED, JobState.CANCELLED, JobState.SUSPENDED

# A row for each state, a column for each event; None: not possible.
_TABLE = {
    #  start  succeed  fail  wait  cancel  restart  resume
    N: (I, None, F, None, C, None, None),
    I: (None, S, F, W, C, None, None),
    W: (None, None, F, None, C, None, I),
    S: (None, None, None, None, None, None, None),
    F: (None, None, None, None, None, N, None),
    C: (None, None, None, None, None, N, None),
}


@pytest.mark.parametrize(("state", "event"), list(product(JobState, JobEvent)))
def test_every_state_with_every_event(state: JobState, event: JobEvent) -> None:
    expected = _TABLE[state][list(JobEvent).index(event)]
    if expected is not None:
        assert follows(state, event) is expected
        return
    with pytest.raises(IllegalOperation) as refused:
        follows(state, event)
    assert str(state) in refused.value.message
    assert str(event) in refused.value.message
    for other, then in zip(JobEvent, _TABLE[state], strict=True):
        if then is not None:
            assert other in refused.value.message.partition("possible: ")[2]


@pytest.mark.parametrize(
    ("state", "action", "cancellable"), list(product(JobState, JobAction, (True, False)))
)
def test_every_state_with_every_action(
    state: JobState, action: JobAction, cancellable: bool
) -> None:
    expected = _TABLE[state][list(JobEvent).index(JobEvent(action.value))] is not None
    if action is JobAction.CANCEL and not cancellable:
        expected = False
    assert (action in allowed_actions(state, cancellable)) is expected
    if expected:
        check_action(7, state, action, cancellable)
        return
    with pytest.raises(IllegalOperation) as refused:
        check_action(7, state, action, cancellable)
    assert str(state) in refused.value.message
    assert refused.value.subject == "#7"
    for other in allowed_actions(state, cancellable):
        assert other in refused.value.message


def test_what_is_over_goes_nowhere_by_itself() -> None:
    by_itself = [JobEvent.START, JobEvent.SUCCEED, JobEvent.FAIL, JobEvent.WAIT]
    for state in JobState:
        moves = [event for event in by_itself if _TABLE[state][list(JobEvent).index(event)]]
        assert bool(moves) is not state.is_over
