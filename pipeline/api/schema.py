"""What is asked of the API and what it answers, beside the views of ``pipeline.control.views``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.control.model import Health, Reason, Stake
from pipeline.control.views import EventView, JobView, MachineView

MAX_ID = 2**62


class Asked(BaseModel):
    """A request: unknown fields are mistakes."""

    model_config = ConfigDict(extra="forbid")


class OperationRequest(Asked):
    """An operation on a machine. ``confirm`` is the machine's name, for what cannot be undone."""

    parameters: dict[str, Any] = Field(default_factory=dict, max_length=64)
    dry_run: bool = False
    confirm: str = Field("", max_length=256)


class ActionRequest(Asked):
    """What a person says about what is done to a job."""

    note: str = Field("", max_length=2000)


class NoBody(Asked):
    """Nothing."""


class JobsQuery(Asked):
    """Which jobs, newest first; ``before``: with lower numbers."""

    machine: str = Field("", max_length=256)
    active: bool = False
    before: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(100, ge=1, le=1000)


class EventsQuery(Asked):
    """Which events, oldest first; ``after``: with higher ids."""

    machine: str = Field("", max_length=256)
    after: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(100, ge=1, le=1000)


class FollowQuery(Asked):
    """Where to begin, if the request has no ``Last-Event-ID``. Without either: at what is new."""

    after: int | None = Field(None, ge=0, le=MAX_ID)
    machine: str = Field("", max_length=256)


class AuditQuery(Asked):
    """Which entries, newest first."""

    before: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(100, ge=1, le=1000)


class Machines(BaseModel):
    """All machines, by name."""

    machines: list[MachineView]


class Jobs(BaseModel):
    """A page of jobs."""

    jobs: list[JobView]


class Events(BaseModel):
    """A page of events."""

    events: list[EventView]


class AuditPage(BaseModel):
    """A page of the audit chain."""

    entries: list[dict[str, Any]]


class OperationAnswer(BaseModel):
    """What an operation would do (``dry_run``), or the job that does it; neither: it is done."""

    dry_run: bool
    stake: Stake | None = None
    job: JobView | None = None
    repeated: bool = Field(False, description="answered before to this Idempotency-Key")


class Reloaded(BaseModel):
    """What a new reading of the configuration changed."""

    changed: list[str]


class MachineHealth(BaseModel):
    """How one machine is."""

    name: str
    health: Health
    reasons: list[Reason]


class HealthAnswer(BaseModel):
    """How all is: the worst of the daemon and its machines."""

    health: Health
    reasons: list[Reason]
    machines: list[MachineHealth]


class Alive(BaseModel):
    """It answers."""

    ok: bool = True
