"""The jobs of one machine that are under way: what each excludes, and what a kill left of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from pipeline.control.model import JobKind, Operation
from pipeline.control.views import JobView
from pipeline.supervisor.jobrun import JobRun, Owner
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.records import NewJob
from pipeline.supervisor.steps import JOB_IN_STATE, interrupted


class UnderWay:
    """``runs``, by the jobs' numbers. They run in ``nursery``, which the owner opens."""

    def __init__(self, owner: Owner, parts: Parts):
        self.runs: dict[int, JobRun] = {}
        self.nursery: trio.Nursery
        self._owner = owner
        self._parts = parts

    def beside(self, operation: Operation) -> JobRun | None:
        """A job that keeps the operation from being begun."""
        test = operation in (Operation.TEST_FAILOVER, Operation.CLEANUP_TEST)
        record = self._owner.record
        number = record.test_job if test else record.job
        run = None if number is None else self.runs.get(number)
        if run is None or run.carrier.beside:
            return None
        return None if operation is Operation.UNPROTECT and run.carrier.cancellable else run

    def cancel_all(self) -> None:
        """Nothing happens to the machine by that."""
        for run in self.runs.values():
            run.cancel(quiet=True)

    def new(self, kind: JobKind, by: str, parameters: Mapping[str, Any], key: str = "") -> NewJob:
        """A job to save, before it is begun."""
        carrier = self._parts.carriers.get(kind)
        cancellable = carrier is not None and carrier.cancellable
        return NewJob(kind, self._owner.name, by, parameters, cancellable, key)

    def begin(self, job: JobView, parameters: Mapping[str, Any]) -> None:
        """It was saved: have it run."""
        carrier = self._parts.carriers.get(job.kind)
        assert carrier is not None, job.kind  # noqa: S101 - checked before it was made
        run = self.runs[job.id] = JobRun(self._owner, self._parts, job, parameters, carrier)
        self.nursery.start_soon(run.run)

    async def go_on(self) -> None:
        """Jobs that an earlier life left: they go on, or fail with a reason."""
        records, owner = self._parts.records, self._owner
        for job in await records.jobs(machine=owner.name, active=True, limit=1000):
            carrier = self._parts.carriers.get(job.kind)
            now = owner.record.situation
            known = job.id in (owner.record.job, owner.record.test_job)
            if carrier is None or not carrier.resumable or not known:
                failed = None if carrier is None or not known else carrier.failed
                await owner.end(interrupted(job, "it cannot be gone on with"), failed)
            elif now.state not in carrier.states:
                await owner.end(interrupted(job, f"the machine is now: {now}"), None)
            else:
                self.begin(job, await records.parameters(job.id))

    def missing(self) -> JobKind | None:
        """The job that must run in the machine's state, if none does."""
        kind = JOB_IN_STATE.get(self._owner.record.situation.state)
        return None if any(run.job.kind is kind for run in self.runs.values()) else kind
