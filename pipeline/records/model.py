"""What is written into the control database in one transaction, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.control.jobs import JobEvent
from pipeline.control.model import Direction, JobKind, Problem, State, TestFailover
from pipeline.control.views import EventView, JobView, TaskView

NEW_JOB = 0  # stands for the number of the job that the same change makes


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """Where a machine stood. ``extra``: what else the supervisor remembers, JSON values only."""

    name: str
    state: State
    direction: Direction = Direction.FORWARD
    test: TestFailover = TestFailover.NONE
    extra: Mapping[str, Any] = field(default_factory=dict)
    updated_us: int = 0  # set by the database


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to make, not started. ``key``: of the request that asks for it; of one person the same
    key makes one job only. ``parameters``: what the supervisor needs to go on with it."""

    kind: JobKind
    machine: str
    description: str = ""
    by: str = ""
    key: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskView, ...] = ()
    cancellable: bool = True


@dataclass(frozen=True, slots=True)
class JobChange:
    """What becomes of a job; None keeps what is there. ``note`` is added, ``result`` merged.
    ``id``: ``NEW_JOB`` is the one that the same change makes."""

    id: int
    event: JobEvent | None = None
    description: str | None = None
    percent: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    cancellable: bool | None = None
    tasks: tuple[TaskView, ...] | None = None
    problem: Problem | None = None
    note: str | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened. ``job``: ``NEW_JOB`` is the one that the same change makes."""

    kind: str
    message: str
    machine: str = ""
    job: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewAudit:
    """Who asked for what, from where, and how it ended. ``detail``: JSON values, no secrets."""

    who: str
    role: str
    address: str
    operation: str
    subject: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """All of it becomes durable, or nothing."""

    machines: tuple[MachineRecord, ...] = ()
    forget: tuple[str, ...] = ()  # names of machines
    new_job: NewJob | None = None
    jobs: tuple[JobChange, ...] = ()
    events: tuple[NewEvent, ...] = ()
    audit: tuple[NewAudit, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that is durable. ``repeated``: ``new_job`` is an older job of the same key, and
    nothing at all was changed."""

    new_job: JobView | None
    jobs: tuple[JobView, ...]
    events: tuple[EventView, ...]
    audit: tuple[int, ...]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job with what only the supervisor needs."""

    view: JobView
    parameters: Mapping[str, Any]
    cancellable: bool


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A link of the audit chain. ``detail`` is canonical JSON, digests are hex."""

    seq: int
    at_us: int
    who: str
    role: str
    address: str
    operation: str
    subject: str
    outcome: str
    detail: str
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept: whichever is reached first. Jobs that are not over are always kept."""

    events: int = 100_000
    events_days: float = 90
    jobs: int = 10_000
    jobs_days: float = 365
    audit: int = 1_000_000
    page: int = 1000  # rows of one answer at most
    follower_lag: int = 10_000  # events; a follower that is further behind is cut off
    text: int = 64 << 10  # bytes of one JSON value or message
