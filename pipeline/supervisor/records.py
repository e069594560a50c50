"""What the supervisor must remember, and what it needs of the place where that is kept.

``DatabaseRecords`` is that place. All calls are made from the event loop; errors are ``StateError``
and ``NoSpace``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from pipeline.control.model import JobKind, JobState, Problem
from pipeline.control.views import EventView, JobView, TaskView
from pipeline.lifecycle.rules import Situation

TEST_JOBS = (JobKind.TEST_FAILOVER, JobKind.CLEANUP_TEST_FAILOVER)


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One machine. ``wanted``: it is to be protected, unless a person said otherwise. ``whole``:
    its vault has held a consistent point of it. ``start_us``: when its initial replication begins.
    ``held``: its scans wait for a person. ``closed``: no client may come to its disks, because it
    is being handed over. ``compare``: intake must still be told to compare
    everything. ``problem``: why it is Critical. ``failover``: what the operations of a failover
    must remember. ``job`` and ``test_job``: those under way."""

    name: str
    situation: Situation = field(default_factory=Situation)
    wanted: bool = True
    whole: bool = False
    start_us: int | None = None
    held: bool = False
    compare: bool = False
    problem: Problem | None = None
    failover: Mapping[str, Any] | None = None
    job: int | None = None
    test_job: int | None = None
    closed: bool = False

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            **self.situation.as_fields(),
            "wanted": self.wanted,
            "whole": self.whole,
            "start_us": self.start_us,
            "held": self.held,
            "compare": self.compare,
            "problem": None if self.problem is None else asdict(self.problem),
            "failover": None if self.failover is None else dict(self.failover),
            "job": self.job,
            "test_job": self.test_job,
            "closed": self.closed,
        }

    def beginning(self, job: JobView) -> MachineRecord:
        """With a job that has begun."""
        if job.kind in TEST_JOBS:
            return replace(self, test_job=job.id)
        return replace(self, job=job.id)

    def without(self, job: int) -> MachineRecord:
        """Without a job that has ended."""
        return replace(
            self,
            job=None if self.job == job else self.job,
            test_job=None if self.test_job == job else self.test_job,
        )

    @staticmethod
    def of(fields: dict[str, Any]) -> MachineRecord:
        """Undo ``as_fields``. ``KeyError``, ``ValueError``, ``TypeError`` for what is none."""
        return MachineRecord(
            str(fields["name"]),
            Situation.of(fields),
            bool(fields["wanted"]),
            bool(fields["whole"]),
            fields["start_us"],
            bool(fields["held"]),
            bool(fields["compare"]),
            None if fields["problem"] is None else Problem(**fields["problem"]),
            fields["failover"],
            fields["job"],
            fields["test_job"],
            bool(fields.get("closed", False)),
        )


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be made. ``key``: of the request that asks for it, "" for none."""

    kind: JobKind
    machine: str
    by: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cancellable: bool = True
    key: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended. ``result``: what it has made, for people and programs."""

    job: int
    state: JobState
    description: str = ""
    problem: Problem | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


class Records(Protocol):
    """Where the supervisor's memory is."""

    async def load(self) -> Sequence[MachineRecord]:
        """Read what is there, once, at the start; as ``machines``. ``StateDamaged``."""

    def machines(self) -> Sequence[MachineRecord]:
        """All machines that were ever saved, also those that the configuration has no more."""

    async def save(
        self,
        record: MachineRecord,
        new: NewJob | None = None,
        ended: Ended | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> JobView | None:
        """Durably, and all of it or nothing: a machine, a job that begins (it is returned, and
        its number stands in the record from then on), a job that has ended, and with ``said`` the
        event that its state is another."""

    async def progress(
        self,
        job: int,
        *,
        percent: float | None = None,
        bytes_done: int = 0,
        bytes_total: int = 0,
        description: str | None = None,
        tasks: Sequence[TaskView] | None = None,
    ) -> JobView:
        """How far a job is. Not durable at once: it is shown, and a restart may forget it."""

    async def note(self, job: int, note: str) -> JobView:
        """What a person said about a job, durably."""

    async def job(self, number: int) -> JobView:
        """One job. ``NotFound``."""

    async def job_of(self, by: str, key: str) -> JobView | None:
        """The job that this person's request with this key has begun, also before a restart."""

    async def parameters(self, number: int) -> Mapping[str, Any]:
        """What a job was begun with. ``NotFound``."""

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """See ``Control``."""

    async def append_event(
        self, kind: str, machine: str, job: int | None, message: str, fields: Mapping[str, Any]
    ) -> EventView:
        """Soon durable."""

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """See ``Control``."""

    def follow(self, *, after: int = 0) -> AsyncGenerator[EventView, None]:
        """See ``Control``. Close it."""

    async def append_audit(self, fields: Mapping[str, Any]) -> None:
        """One more link of the chain, durably."""

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See ``Control``."""
