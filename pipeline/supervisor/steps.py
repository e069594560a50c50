"""What a step makes of a machine's record, and other small conclusions of its keeper. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.control.model import Direction, JobKind, JobState, Operation, Problem, State
from pipeline.control.views import JobView
from pipeline.lifecycle.events import Do, Event, Happening
from pipeline.lifecycle.rules import Step, start_time
from pipeline.supervisor.records import Ended, MachineRecord
from stages.errors import IllegalOperation, UsageError

JOB_IN_STATE = {
    State.CHECKING: JobKind.ENABLE_PROTECTION,
    State.INITIAL_REPLICATION: JobKind.INITIAL_REPLICATION,
    State.FINALIZING: JobKind.FINALIZE_PROTECTION,
    State.RESYNCHRONIZING: JobKind.RESYNCHRONIZE,
    State.DISABLING: JobKind.DISABLE,
}
"""The job that must run in a state."""
_HOME = (Happening.FAILOVER_CANCELLED, Happening.FAILED_BACK, Happening.REPROTECTED)


def record_after(
    before: MachineRecord,
    event: Event,
    found: Step,
    problem: Problem | None,
    start_us: int | None,
    failover: Mapping[str, Any] | None,
) -> MachineRecord:
    """The record behind a step."""
    then = found.then
    after = replace(before, situation=then)
    if Do.KEEP_SCHEDULE in found.effects:
        after = replace(after, start_us=start_us)
    elif then.state is not State.READY:
        after = replace(after, start_us=None)
    if Do.HOLD_SCAN in found.effects or Do.RELEASE_SCAN in found.effects:
        after = replace(after, held=Do.HOLD_SCAN in found.effects)
    if Do.COMPARE_ALL in found.effects:
        after = replace(after, compare=True)
    if event is Happening.SCAN_FINISHED:
        after = replace(after, whole=True)
    if event in (Operation.PROTECT, Operation.UNPROTECT):
        after = replace(after, wanted=event is Operation.PROTECT)
    if event in _HOME and then.direction is Direction.FORWARD:
        after = replace(after, closed=False, failover=None)
    if event is Happening.GAP_CLOSED:
        after = replace(after, held=False)
    if failover is not None:
        after = replace(after, failover=dict(failover))
    if Do.FORGET in found.effects:
        after = replace(after, whole=False, held=False, compare=False, failover=None, closed=False)
    if then.state not in (State.CRITICAL, State.DISABLED) or event is Happening.DISABLED:
        after = replace(after, problem=None)
    elif problem is not None:
        after = replace(after, problem=problem)
    return after


def start_at(parameters: Mapping[str, Any], now_us: int, machine: str) -> int | None:
    """When replication is to start, if a time was given. ``UsageError``; see ``start_time``."""
    at = parameters.get("at_us")
    if at is None:
        return None
    if isinstance(at, bool) or not isinstance(at, int):
        raise UsageError(
            "at_us is not a time in microseconds",
            operation=Operation.START_REPLICATION.value,
            subject=machine,
        )
    return start_time(at, now_us, machine)


def interrupted(job: JobView, why: str) -> Ended:
    """A job that an earlier life left and that does not go on."""
    text = f"the daemon ended while it was under way, and {why}"
    problem = Problem(IllegalOperation.__name__, text, "", False, IllegalOperation.exit_code)
    return Ended(job.id, JobState.FAILED, text, problem)


def problem_of(said: Mapping[str, Any]) -> Problem | None:
    """The error that delivery tells of, if it does."""
    if "error" not in said:
        return None
    return Problem(
        str(said["error"]),
        str(said["message"]),
        str(said["hint"]),
        bool(said["recoverable"]),
        int(said["exit_code"]),
    )
