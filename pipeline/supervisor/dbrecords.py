"""``Records`` in the control database: what the supervisor remembers outlives it there.

Machines are read once, at the start, and kept in memory; whatever changes one, a job or the audit
is one transaction. How far jobs are is kept in memory and written now and then: a restart may
forget a second of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import trio

from pipeline.control.jobs import JobEvent
from pipeline.control.model import JobState
from pipeline.control.views import EventView, JobView, TaskView
from pipeline.records import model, records
from pipeline.records.chain import entry_fields
from pipeline.supervisor.records import Ended, MachineRecord, NewJob
from stages.errors import BackstayError, StateDamaged
from stages.ports import Machine

_SOON_SECONDS = 1.0
_SOON_SHARE = 0.02  # more for each job under way: a second of progress costs a write of each
_RETAIN_SECONDS = 3600.0
_LAST_SECONDS = 5.0
_MOST_JOBS = 10_000  # under way at the same time
_ENDS: Mapping[JobState, JobEvent] = {
    JobState.SUCCEEDED: JobEvent.SUCCEED,
    JobState.FAILED: JobEvent.FAIL,
    JobState.CANCELLED: JobEvent.CANCEL,
    JobState.SUSPENDED: JobEvent.WAIT,
}


class DatabaseRecords:
    """``run`` it for as long as it is used. ``address``: tells where the database is when it is
    opened, as ``pipeline.records`` takes it."""

    def __init__(self, ports: Machine, address: Callable[[], str]):
        self._ports = ports
        self._address = address
        self._database: records.Records
        self._machines: dict[str, MachineRecord] = {}
        self._live: dict[int, JobView] = {}  # jobs that are under way, as they are now
        self._behind: set[int] = set()  # of those, what is not in the database yet

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open it, and write what is to be written, until cancelled; the rest is written then."""
        address = await self._ports.offload.run(self._address)
        self._database = await records.Records.open(self._ports, address)
        try:
            task_status.started()
            await self._keep()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_SECONDS):
                with suppress(BackstayError):
                    await self._catch_up()
                await self._database.close()

    async def _keep(self) -> None:
        retained = self._ports.clock.monotonic() - _RETAIN_SECONDS
        while True:
            await self._ports.clock.sleep(_SOON_SECONDS + _SOON_SHARE * len(self._live))
            with suppress(BackstayError):  # it is tried again; who has to know of it waits for it
                await self._catch_up()
                if self._ports.clock.monotonic() - retained >= _RETAIN_SECONDS:
                    retained = self._ports.clock.monotonic()
                    await self._database.retain()

    async def _catch_up(self) -> None:
        if not self._behind:
            return
        behind, self._behind = self._behind, set()
        try:
            await self._apply(jobs=[_so_far(self._live[n]) for n in behind if n in self._live])
        except BaseException:
            self._behind |= behind
            raise

    async def load(self) -> Sequence[MachineRecord]:
        """See ``Records``."""
        for name, found in (await self._database.machines()).items():
            try:
                self._machines[name] = MachineRecord.of(dict(found.extra))
            except (ValueError, KeyError, TypeError) as error:
                raise StateDamaged(
                    f"cannot be read as what it should be ({error})",
                    operation="open state",
                    subject=f"machine {name} in the control database",
                    hint="move the database away: machines are then protected as if they were new, "
                    "and all recovery points stay as they are",
                ) from None
        for job in reversed(await self._database.jobs(active=True, limit=_MOST_JOBS)):
            self._live[job.id] = job
            if job.machine in self._machines:
                self._machines[job.machine] = self._machines[job.machine].beginning(job)
        return self.machines()

    def machines(self) -> Sequence[MachineRecord]:
        """See ``Records``."""
        return list(self._machines.values())

    async def save(
        self,
        record: MachineRecord,
        new: NewJob | None = None,
        ended: Ended | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> JobView | None:
        """See ``Records``."""
        changes: list[model.JobChange] = []
        if ended is not None:
            changes.append(self._ending(ended))
            record = record.without(ended.job)
        begun = None
        if new is not None:
            begun = model.NewJob(
                new.kind,
                new.machine,
                by=new.by,
                parameters=dict(new.parameters),
                cancellable=new.cancellable,
                key=new.key,
            )
            changes.append(model.JobChange(model.NEW_JOB, JobEvent.START))
        # Which jobs are under way the jobs tell: a record in the database names none.
        bare = replace(record, job=None, test_job=None)
        situation = record.situation
        kept = model.MachineRecord(
            record.name, situation.state, situation.direction, situation.test, bare.as_fields()
        )
        events = []
        if said is not None:
            events = [model.NewEvent("state", str(situation), record.name, None, dict(said))]
        applied = await self._apply(machines=[kept], new_job=begun, jobs=changes, events=events)
        made = None
        if begun is not None:
            made = applied.jobs[-1]
            self._live[made.id] = made
            record = record.beginning(made)
        if ended is not None:
            self._over(ended)
        self._machines[record.name] = record
        return made

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
        """See ``Records``."""
        found = await self.job(job)
        if job not in self._live:
            return found  # it is over
        now = replace(
            found,
            percent=found.percent if percent is None else percent,
            bytes_done=bytes_done or found.bytes_done,
            bytes_total=bytes_total or found.bytes_total,
            description=found.description if description is None else description,
            tasks=found.tasks if tasks is None else tuple(tasks),
        )
        if now != found:
            self._live[job] = now
            self._behind.add(job)
        return now

    async def note(self, job: int, note: str) -> JobView:
        """See ``Records``."""
        noted = (await self._apply(jobs=[model.JobChange(job, note=note)])).jobs[0]
        if job in self._live:
            self._live[job] = replace(self._live[job], notes=noted.notes)
        return await self.job(job)

    async def job(self, number: int) -> JobView:
        """See ``Records``."""
        live = self._live.get(number)
        return await self._database.job(number) if live is None else live

    async def job_of(self, by: str, key: str) -> JobView | None:
        """See ``Records``."""
        found = await self._database.job_of(by, key)
        return None if found is None else self._live.get(found.view.id, found.view)

    async def parameters(self, number: int) -> Mapping[str, Any]:
        """See ``Records``."""
        return (await self._database.stored(number)).parameters

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """See ``Records``."""
        found = await self._database.jobs(
            machine=machine, active=active, before=before, limit=limit
        )
        return [self._live.get(job.id, job) for job in found]

    async def append_event(
        self, kind: str, machine: str, job: int | None, message: str, fields: Mapping[str, Any]
    ) -> EventView:
        """See ``Records``."""
        event = model.NewEvent(kind, message, machine, job, dict(fields))
        return (await self._apply(events=[event])).events[0]

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """See ``Records``."""
        return await self._database.events(machine=machine, after=after, limit=limit)

    def follow(self, *, after: int = 0) -> AsyncGenerator[EventView, None]:
        """See ``Records``."""
        return self._database.follow(after=after)

    async def append_audit(self, fields: Mapping[str, Any]) -> None:
        """See ``Records``."""
        rest = dict(fields)
        caller = rest.pop("caller")
        entry = model.NewAudit(
            who=caller["name"],
            role=caller["role"],
            address=caller["address"],
            operation=str(rest.pop("operation", "")),
            subject=str(rest.pop("machine", rest.pop("job", ""))),
            outcome=str(rest.pop("outcome", "")),
            detail=rest,
        )
        await self._database.audited(entry)

    async def audited(self, entry: model.NewAudit) -> int:
        """Add an entry to the chain; its number."""
        return await self._database.audited(entry)

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See ``Records``."""
        return [entry_fields(one) for one in await self._database.audit(before=before, limit=limit)]

    async def _apply(
        self,
        *,
        machines: Sequence[model.MachineRecord] = (),
        new_job: model.NewJob | None = None,
        jobs: Sequence[model.JobChange] = (),
        events: Sequence[model.NewEvent] = (),
    ) -> model.Applied:
        change = model.Change(
            machines=tuple(machines), new_job=new_job, jobs=tuple(jobs), events=tuple(events)
        )
        return await self._database.apply(change)

    def _ending(self, ended: Ended) -> model.JobChange:
        """The last word on a job, with how far it was."""
        last = _so_far(self._live[ended.job]) if ended.job in self._live else None
        return replace(
            last or model.JobChange(ended.job),
            event=_ENDS[ended.state],
            description=ended.description or (last.description if last else None),
            problem=ended.problem,
            result=dict(ended.result),
        )

    def _over(self, ended: Ended) -> None:
        if ended.state is not JobState.SUSPENDED:
            self._live.pop(ended.job, None)
        self._behind.discard(ended.job)


def _so_far(job: JobView) -> model.JobChange:
    return model.JobChange(
        job.id,
        description=job.description,
        percent=job.percent,
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        tasks=job.tasks,
    )
