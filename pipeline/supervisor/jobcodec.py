"""Jobs and events as JSON, and back. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.control.model import (
    EventView,
    JobAction,
    JobKind,
    JobState,
    JobView,
    Problem,
    TaskView,
)


def job_fields(job: JobView) -> dict[str, Any]:
    """For JSON."""
    return asdict(job)


def job_of(fields: dict[str, Any]) -> JobView:
    """Undo ``job_fields``. ``KeyError``, ``ValueError``, ``TypeError`` for what is none."""
    problem = fields["problem"]
    return JobView(
        **fields
        | {
            "kind": JobKind(fields["kind"]),
            "state": JobState(fields["state"]),
            "tasks": tuple(
                TaskView(**task | {"state": JobState(task["state"])}) for task in fields["tasks"]
            ),
            "problem": None if problem is None else Problem(**problem),
            "allowed": tuple(JobAction(action) for action in fields["allowed"]),
            "notes": tuple(fields["notes"]),
        }
    )


def event_fields(event: EventView) -> dict[str, Any]:
    """For JSON."""
    return asdict(event)


def event_of(fields: dict[str, Any]) -> EventView:
    """Undo ``event_fields``. ``TypeError`` for what is none."""
    return EventView(**fields)
