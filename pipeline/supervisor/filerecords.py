"""Records in one file of the state folder: read at the start, then in memory, and replaced as a
whole. What is saved at the same time shares one write."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from pipeline.control.model import EventView, JobAction, JobState, JobView, TaskView
from pipeline.supervisor.jobcodec import event_fields, event_of, job_fields, job_of
from pipeline.supervisor.records import Ended, MachineRecord, NewJob
from stages import durable
from stages.errors import BackstayError, NotFound, StateDamaged
from stages.ports import Machine
from stages.ship.trouble import in_words

FILE = "control.json"
MAX_JOBS, MAX_EVENTS, MAX_AUDIT = 500, 1000, 1000  # kept; jobs that are not over always are
_MAX_BYTES = 64 << 20
_SOON_SECONDS = 5.0


@dataclass
class _Write:
    """A write that is to come; who waits for it hears how it went."""

    done: trio.Event
    failed: BackstayError | None = None


class FileRecords:
    """``run`` it for as long as it is used. Implements ``Records``."""

    def __init__(self, ports: Machine, folder: str):
        self._ports = ports
        self._path = f"{folder}/{FILE}"
        self._machines: dict[str, MachineRecord] = {}
        self._jobs: dict[int, JobView] = {}
        self._parameters: dict[int, Mapping[str, Any]] = {}
        self._events: deque[EventView] = deque(maxlen=MAX_EVENTS)
        self._audit: deque[dict[str, Any]] = deque(maxlen=MAX_AUDIT)
        self._next_job = 1
        self._next_event = 1
        self._coming = _Write(trio.Event())
        self._wanted = trio.Event()
        self._dirty = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is to be written, until cancelled; what waits then is written still."""
        task_status.started()
        try:
            while True:
                with trio.move_on_after(_SOON_SECONDS):
                    await self._wanted.wait()
                if self._dirty or self._wanted.is_set():
                    await self._flush()
        finally:
            if self._dirty:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _SOON_SECONDS):
                    await self._flush()

    async def load(self) -> Sequence[MachineRecord]:
        """See ``Records``."""
        data = await self._ports.offload.run(self._read)
        if data is not None:
            try:
                self._take(json.loads(data))
            except (ValueError, KeyError, TypeError) as error:
                raise StateDamaged(
                    f"cannot be read as what it should be ({error})",
                    operation="open state",
                    subject=self._path,
                    hint="move it away: machines are then protected as if they were new, and all "
                    "recovery points stay as they are",
                ) from None
        return list(self._machines.values())

    def machines(self) -> Sequence[MachineRecord]:
        """See ``Records``."""
        return list(self._machines.values())

    async def save(
        self, record: MachineRecord, new: NewJob | None = None, ended: Ended | None = None
    ) -> JobView | None:
        """See ``Records``."""
        made = None
        before = self._machines.get(record.name)
        if ended is not None:
            self._end(ended)
            record = record.without(ended.job)
        if new is not None:
            made = self._make(new)
            record = record.beginning(made)
        self._machines[record.name] = record
        try:
            await self._written()
        except BackstayError:
            if made is not None:  # nobody has been told of it
                del self._jobs[made.id], self._parameters[made.id]
                self._machines[record.name] = before or MachineRecord(record.name)
            raise
        return made

    async def end_job(self, ended: Ended) -> JobView:
        """See ``Records``."""
        job = self._end(ended)
        await self._written()
        return job

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
        found = self._found(job)
        self._jobs[job] = replace(
            found,
            percent=found.percent if percent is None else percent,
            bytes_done=bytes_done or found.bytes_done,
            bytes_total=bytes_total or found.bytes_total,
            description=found.description if description is None else description,
            tasks=found.tasks if tasks is None else tuple(tasks),
        )
        self._dirty = self._dirty or tasks is not None
        return self._jobs[job]

    async def note(self, job: int, note: str) -> JobView:
        """See ``Records``."""
        found = self._found(job)
        self._jobs[job] = replace(found, notes=(*found.notes, note))
        await self._written()
        return self._jobs[job]

    async def job(self, number: int) -> JobView:
        """See ``Records``."""
        return self._found(number)

    async def parameters(self, number: int) -> Mapping[str, Any]:
        """See ``Records``."""
        self._found(number)
        return self._parameters[number]

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """See ``Records``."""
        found = [
            job
            for number, job in reversed(self._jobs.items())
            if (not machine or job.machine == machine)
            and not (active and job.state.is_over)
            and (not before or number < before)
        ]
        return found[:limit]

    async def append_event(
        self, kind: str, machine: str, job: int | None, message: str, fields: Mapping[str, Any]
    ) -> EventView:
        """See ``Records``."""
        now = self._ports.clock.wall_us()
        event = EventView(self._next_event, now, kind, machine, job, message, dict(fields))
        self._next_event += 1
        self._events.append(event)
        self._dirty = True
        return event

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """See ``Records``."""
        found = [
            event
            for event in self._events
            if event.id > after and (not machine or event.machine == machine)
        ]
        return found[:limit]

    async def append_audit(self, fields: Mapping[str, Any]) -> None:
        """See ``Records``."""
        last: dict[str, Any] = self._audit[-1] if self._audit else {"number": 0, "digest": "0" * 64}
        link = dict(fields) | {
            "number": last["number"] + 1,
            "at_us": self._ports.clock.wall_us(),
            "previous": last["digest"],
        }
        text = json.dumps(link, sort_keys=True)
        self._audit.append(link | {"digest": hashlib.sha256(text.encode()).hexdigest()})
        await self._written()

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See ``Records``."""
        found = [one for one in reversed(self._audit) if not before or one["number"] < before]
        return found[:limit]

    # jobs

    def _make(self, new: NewJob) -> JobView:
        now = self._ports.clock.wall_us()
        job = JobView(
            id=self._next_job,
            kind=new.kind,
            machine=new.machine,
            state=JobState.IN_PROGRESS,
            description="",
            created_us=now,
            started_us=now,
            ended_us=None,
            percent=None,
            bytes_done=0,
            bytes_total=0,
            tasks=(),
            problem=None,
            allowed=(JobAction.CANCEL,) if new.cancellable else (),
            by=new.by,
        )
        self._next_job += 1
        self._jobs[job.id], self._parameters[job.id] = job, dict(new.parameters)
        self._forget_old()
        return job

    def _end(self, ended: Ended) -> JobView:
        job = self._jobs[ended.job] = replace(
            self._found(ended.job),
            state=ended.state,
            description=ended.description or self._found(ended.job).description,
            ended_us=self._ports.clock.wall_us(),
            problem=ended.problem,
            allowed=() if ended.state is JobState.SUCCEEDED else (JobAction.RESTART,),
            result=dict(ended.result),
        )
        return job

    def _forget_old(self) -> None:
        over = [number for number, job in self._jobs.items() if job.state.is_over]
        for number in over[: max(0, len(self._jobs) - MAX_JOBS)]:
            del self._jobs[number], self._parameters[number]

    def _found(self, number: int) -> JobView:
        if number not in self._jobs:
            raise NotFound("no such job", operation="job", subject=str(number))
        return self._jobs[number]

    # the file

    def _read(self) -> bytes | None:
        with in_words("open state", self._path):
            if self._ports.files.stat(self._path) is None:
                return None
            return self._ports.files.read(self._path, _MAX_BYTES)

    def _take(self, fields: dict[str, Any]) -> None:
        for each in fields["machines"]:
            record = MachineRecord.of(each)
            self._machines[record.name] = record
        for each in fields["jobs"]:
            job = job_of(each["job"])
            self._jobs[job.id], self._parameters[job.id] = job, dict(each["parameters"])
        self._events.extend(event_of(each) for each in fields["events"])
        self._audit.extend(fields["audit"])
        self._next_job, self._next_event = int(fields["next_job"]), int(fields["next_event"])

    def _content(self) -> dict[str, Any]:
        return {
            "version": 1,
            "machines": [record.as_fields() for record in self._machines.values()],
            "jobs": [
                {"job": job_fields(job), "parameters": self._parameters[number]}
                for number, job in self._jobs.items()
            ],
            "events": [event_fields(event) for event in self._events],
            "audit": list(self._audit),
            "next_job": self._next_job,
            "next_event": self._next_event,
        }

    async def _written(self) -> None:
        coming = self._coming
        self._dirty = True
        self._wanted.set()
        await coming.done.wait()
        if coming.failed is not None:
            raise coming.failed

    async def _flush(self) -> None:
        """What comes while this is being written waits for the next."""
        coming, self._coming = self._coming, _Write(trio.Event())
        self._wanted, self._dirty = trio.Event(), False
        content = self._content()
        token = self._ports.entropy.token(8).hex()

        def write() -> None:
            data = json.dumps(content).encode()
            with in_words("keep state", self._path):
                durable.replace(self._ports.files, self._path, data, token=token)

        try:
            await self._ports.offload.run(write)
        except BackstayError as error:
            coming.failed = error
            self._dirty = True
        finally:
            coming.done.set()
