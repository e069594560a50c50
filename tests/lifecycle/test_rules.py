"""A start that is put off, the words of an error, and a situation on disk."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.model import Direction, Operation, State
from pipeline.control.model import TestFailover as Axis
from pipeline.lifecycle.rules import MAX_DELAY_US, Situation, start_time, step
from stages.errors import IllegalOperation, UsageError

DAY = 86_400_000_000


@given(now=st.integers(0, 1 << 60), ahead=st.integers(-DAY, 9 * DAY))
def test_a_start_is_now_or_within_seven_days(now: int, ahead: int) -> None:
    if ahead > 7 * DAY:
        with pytest.raises(UsageError, match="7 days"):
            start_time(now + ahead, now, "web1")
    else:
        assert start_time(now + ahead, now, "web1") == (now + ahead if ahead > 0 else None)


def test_seven_days_to_the_microsecond() -> None:
    assert start_time(MAX_DELAY_US, 0, "web1") == MAX_DELAY_US
    with pytest.raises(UsageError):
        start_time(MAX_DELAY_US + 1, 0, "web1")


def test_an_illegal_operation_names_the_state_and_what_is_allowed() -> None:
    now = Situation(State.COMMIT_PENDING, Direction.REVERSE, Axis.RUNNING)
    with pytest.raises(IllegalOperation) as raised:
        step(now, Operation.SUSPEND, "web1")
    assert str(raised.value) == (
        "suspend: web1: not possible while it is: failed over, commit pending, in the reverse "
        "direction, test failover running"
    )
    assert raised.value.hint == (
        "allowed now: unprotect, failover-change-point, failover-commit, failover-cancel, "
        "reprotect, migrate"
    )
    assert raised.value.exit_code == 11


def test_a_situation_as_fields() -> None:
    for one in (Situation(*each) for each in product(State, Direction, Axis)):
        assert Situation.of(one.as_fields()) == one
    with pytest.raises(ValueError, match="on fire"):
        Situation.of({"state": "on fire", "direction": "forward", "test": "none"})
