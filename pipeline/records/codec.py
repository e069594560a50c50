"""Rows to views and back. Everything that is kept is bounded here, and has no byte that PostgreSQL
refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Row

from pipeline.control.jobs import allowed_actions
from pipeline.control.model import Direction, JobKind, JobState, Problem, State, TestFailover
from pipeline.control.views import EventView, JobView, TaskView
from pipeline.records.chain import canonical
from pipeline.records.engine import damaged
from pipeline.records.model import AuditEntry, MachineRecord, StoredJob
from stages.errors import StateError

_CUT = "…"

P = ParamSpec("P")
R = TypeVar("R")


def _understood(decode: Callable[P, R]) -> Callable[P, R]:
    """A row that nothing of ours wrote is damage: ``StateDamaged``."""

    @wraps(decode)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return decode(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise damaged(f"a row cannot be understood: {error}", "read records", "") from error

    return call


def clean(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8, without NUL and without halves of characters."""
    data = text.replace("\x00", "\ufffd").encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    room = max(0, limit - len(_CUT.encode()))
    return data[:room].decode("utf-8", "ignore") + _CUT


def packed(value: Any, limit: int, what: str) -> str:
    """Canonical JSON of at most ``limit`` bytes. ``StateError``: it is more, or no JSON."""
    try:
        found = canonical(value)
        size = len(found.encode())
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise StateError(f"{what} cannot be kept as JSON: {error}", operation="records") from error
    if size > limit:
        raise StateError(f"{what} is larger than {limit} bytes", operation="records")
    return found


def packed_problem(problem: Problem | None, limit: int) -> str | None:
    """A problem as JSON; long words are cut."""
    if problem is None:
        return None
    room = limit // 8  # a character may take six bytes in JSON
    fields = {
        key: clean(value, room) if isinstance(value, str) else value
        for key, value in asdict(problem).items()
    }
    return canonical(fields)


@_understood
def job_view(row: Row[Any], tasks: Iterable[Row[Any]]) -> JobView:
    """A job with its tasks, which are in order."""
    state = JobState(row.state)
    return JobView(
        id=row.id,
        kind=JobKind(row.kind),
        machine=row.machine,
        state=state,
        description=row.description,
        created_us=row.created_us,
        started_us=row.started_us,
        ended_us=row.ended_us,
        percent=row.percent,
        bytes_done=row.bytes_done,
        bytes_total=row.bytes_total,
        tasks=tuple(
            TaskView(task.name, JobState(task.state), task.percent, task.message) for task in tasks
        ),
        problem=None if row.problem is None else Problem(**json.loads(row.problem)),
        allowed=allowed_actions(state, row.cancellable),
        by=row.by,
        notes=tuple(json.loads(row.notes)),
        result=json.loads(row.result),
        key=row.key or "",
    )


@_understood
def stored_job(row: Row[Any], tasks: Iterable[Row[Any]]) -> StoredJob:
    """The same with what the supervisor needs to go on."""
    return StoredJob(job_view(row, tasks), json.loads(row.parameters), bool(row.cancellable))


def task_rows(job: int, tasks: Sequence[TaskView], limit: int) -> list[Mapping[str, Any]]:
    """Tasks as rows."""
    return [
        {
            "job": job,
            "position": position,
            "name": clean(task.name, limit),
            "state": task.state.value,
            "percent": task.percent,
            "message": clean(task.message, limit),
        }
        for position, task in enumerate(tasks)
    ]


@_understood
def event_view(row: Row[Any]) -> EventView:
    """An event."""
    return EventView(
        id=row.id,
        at_us=row.at_us,
        kind=row.kind,
        machine=row.machine,
        job=row.job,
        message=row.message,
        fields=json.loads(row.fields),
    )


@_understood
def machine_record(row: Row[Any]) -> MachineRecord:
    """A machine."""
    return MachineRecord(
        name=row.name,
        state=State(row.state),
        direction=Direction(row.direction),
        test=TestFailover(row.test),
        extra=json.loads(row.extra),
        updated_us=row.updated_us,
    )


def audit_entry(row: Row[Any]) -> AuditEntry:
    """A link of the audit chain."""
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__slots__})
