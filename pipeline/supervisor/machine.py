"""One protected machine under the supervisor: its lifecycle, durable before anything follows from
it; its jobs; and what intake and delivery are told to do about it.

Every step goes the same way: the table says what comes of an event, that is saved together with
the job that begins or ends by it, and only then are the effects performed. After a kill the state
that was saved is what counts: what delivery and intake should do is derived from it anew, and its
job goes on or fails with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import trio

from pipeline.control.model import Operation, Problem, State
from pipeline.control.views import JobView
from pipeline.daemon.link_client import IntakeGone
from pipeline.lifecycle.events import Do, Event, Happening, Start
from pipeline.lifecycle.rules import Step, delivers, illegal, is_legal, step
from pipeline.supervisor.arranging import HANDED_OVER, Arrangement
from pipeline.supervisor.facts import Look, heard, seen
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.records import Ended, MachineRecord
from pipeline.supervisor.reports import Reports
from pipeline.supervisor.steps import problem_of, record_after, start_at
from pipeline.supervisor.underway import UnderWay
from stages.errors import BackstayError

_AGAIN_SECONDS = 5.0  # after the state folder could not be written


class Protected:
    """``run`` it in the supervisor's nursery. Operations may come from any task."""

    def __init__(self, parts: Parts, record: MachineRecord):
        self.parts = parts
        self.record = record
        self.reports = Reports()
        self.jobs = UnderWay(self, parts)
        self._lock = trio.Lock()
        self._moved = trio.lowlevel.ParkingLot()
        self._attention = trio.Event()
        self._arrangement = Arrangement(parts, record.name)

    @property
    def name(self) -> str:
        """The machine's."""
        return self.record.name

    @property
    def look(self) -> Look:
        """What intake said of it last."""
        return self.reports.look

    @property
    def said(self) -> Mapping[str, Any]:
        """What delivery said of it last."""
        return self.reports.said

    @property
    def current(self) -> Look:
        """The last look, unless it is older than what was done last."""
        return self.reports.current

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self.jobs.nursery:
            await self._reconcile()
            await self.jobs.go_on()
            await self._begin_missing()
            task_status.started()
            while True:
                await self._attention.wait()
                self._attention = trio.Event()
                try:
                    await self._react()
                except BackstayError as error:
                    self.parts.tell(f"{self.name}: {error}")
                    await self.parts.ports.clock.sleep(_AGAIN_SECONDS)
                    self._attention.set()

    # what the processes say

    def looked(self, look: Look) -> None:
        """What intake said of it."""
        news = self.reports.looked(look)
        self._moved.unpark_all()
        if news or self.record.start_us:
            self._attention.set()

    def possible(self) -> list[Operation]:
        """What the job under way does not exclude."""
        return [one for one in Operation if self.jobs.beside(one) is None]

    def heard(self, said: Mapping[str, Any]) -> None:
        """What delivery said of it."""
        self.reports.heard(said)
        self._wake()

    async def changed(self) -> None:
        """Return when there is something new."""
        await self._moved.park()

    def _wake(self) -> None:
        self._attention.set()
        self._moved.unpark_all()

    async def _react(self) -> None:
        async with self._lock:
            said = self.reports.react()
            if said is not None:
                try:
                    await self._hear(said)
                except BackstayError:
                    self.reports.unheard(said)
                    raise
            happening = seen(self.record.situation, self.current)
            if happening is not None:
                await self._take(happening)
            await self._start_if_due()
            await self._reconcile()

    async def _hear(self, said: Mapping[str, Any]) -> None:
        happening = heard(self.record.situation, said, self.look, whole=self.record.whole)
        if happening is None:
            return
        problem = problem_of(said)
        if happening is Happening.RECOVERABLE_ERROR:
            message = "" if problem is None else problem.message
            await self.parts.event("ladder", self.name, message, {"attempt": said.get("attempt")})
        await self._take(happening, problem=problem)

    async def _start_if_due(self) -> None:
        at = self.record.start_us
        if self.record.situation.state is not State.READY or at is None:
            return
        if at <= self.parts.ports.clock.wall_us():
            await self._take(Happening.START_DUE)

    # operations and happenings

    async def operate(
        self, operation: Operation, parameters: Mapping[str, Any], by: str, key: str = ""
    ) -> JobView | None:
        """See ``Control.operate``. ``key``: of the request, which may come again."""
        async with self._lock:
            self.check(operation, parameters)
            if operation is Operation.START_REPLICATION:
                at = self._start_at(parameters)
                if at is not None:
                    return await self._take(Happening.START_SCHEDULED, start_us=at)
            if operation is Operation.UNPROTECT:
                self.jobs.cancel_all()
            return await self._take(operation, parameters=parameters, by=by, key=key)

    def check(self, operation: Operation, parameters: Mapping[str, Any]) -> Step:
        """What ``operate`` would do. Raises what it would."""
        now = self.record.situation
        found = step(now, operation, self.name)
        job = self.jobs.beside(operation)
        if job is not None:
            why = f"job {job.job.id} ({job.job.kind.value}) is under way"
            raise illegal(now, operation, self.name, why)
        for effect in found.effects:
            if isinstance(effect, Start):
                carrier = self.parts.carriers.need(effect.job, operation, self.name)
                carrier.check(parameters)
        if operation in (Operation.START_REPLICATION, Operation.PROTECT):
            self._start_at(parameters)
        return found

    async def happen(
        self,
        happening: Happening,
        *,
        failover: Mapping[str, Any] | None = None,
    ) -> None:
        """Something happened to it. ``IllegalOperation`` if that cannot be."""
        async with self._lock:
            await self._take(happening, failover=failover)

    async def end(
        self, ended: Ended, happening: Happening | None, start_us: int | None = None
    ) -> None:
        """A job has ended; ``happening`` follows from that, if it still can."""
        async with self._lock:
            if happening is not None and is_legal(self.record.situation, happening):
                problem = ended.problem
                await self._take(happening, ended=ended, start_us=start_us, problem=problem)
            else:
                await self.parts.records.save(self.record, ended=ended)
                self.record = self.record.without(ended.job)
            self.jobs.runs.pop(ended.job, None)
        self._wake()
        message = f"{ended.state.value}{': ' if ended.description else ''}{ended.description}"
        await self.parts.event("job", self.name, message, job=ended.job)

    async def _take(
        self,
        event: Event,
        *,
        parameters: Mapping[str, Any] | None = None,
        by: str = "daemon",
        key: str = "",
        problem: Problem | None = None,
        start_us: int | None = None,
        ended: Ended | None = None,
        failover: Mapping[str, Any] | None = None,
    ) -> JobView | None:
        """The lock is held. Saved first, then performed."""
        before = self.record
        found = step(before.situation, event, self.name)
        after = record_after(before, event, found, problem, start_us, failover)
        kinds = [effect.job for effect in found.effects if isinstance(effect, Start)]
        new = self.jobs.new(kinds[0], by, parameters or {}, key) if kinds else None
        made = None
        if after != before or new is not None or ended is not None:
            said = None if after.situation == before.situation else _said(before, after, event)
            made = await self.parts.records.save(after, new, ended, said)
        if ended is not None:
            after = after.without(ended.job)
        if made is not None:
            after = after.beginning(made)
        try:
            if before.closed and not after.closed:  # nobody is told before clients can come
                await self._arrangement.keep(after, self.look)
        finally:
            self.record = after
        if after.situation != before.situation:
            self.parts.tell(f"{self.name}: {after.situation}")
        await self._perform(found)
        if made is not None:
            self.jobs.begin(made, parameters or {})
        self._moved.unpark_all()
        return made

    async def _perform(self, found: Step) -> None:
        """What is not seen from the state alone."""
        self.reports.settle(self.parts.ports.clock.monotonic())
        await self._reconcile()
        if Do.TRY_NOW in found.effects:
            await self.parts.shipping.retry(self.name)
        # TRY_ONCE: whoever read the credentials again has started delivery anew, which tries once.

    async def _reconcile(self) -> None:
        """Have intake and delivery do what the state means. Said again it costs nothing."""
        await self.parts.shipping.pause(self.name, paused=not delivers(self.record.situation))
        await self._arrangement.keep(self.record, self.look)
        if self.record.compare and self.look.row is not None:
            await self._compare()

    async def _compare(self) -> None:
        try:
            await self.parts.capturing.ask("resync", machine=self.name)
        except IntakeGone:
            return  # the next one is told
        self.reports.settle(self.parts.ports.clock.monotonic())
        await self._changed(replace(self.record, compare=False))

    async def let_guests(self, *, come: bool) -> None:
        """See ``Work``. A kill between the two steps leaves listeners that are opened again."""
        async with self._lock:
            if come:
                await self._changed(replace(self.record, closed=False))
                self._arrangement.forget()
                await self._reconcile()
            else:
                await self.parts.capturing.ask("close", machine=self.name, reason=HANDED_OVER)
                await self._changed(replace(self.record, closed=True))

    async def _changed(self, record: MachineRecord) -> None:
        """The lock is held. Durably, and without an event."""
        await self.parts.records.save(record)
        self.record = record

    async def _begin_missing(self) -> None:
        """A state in which a job must run, and none does."""
        kind = self.jobs.missing()
        if kind is None:
            return
        declared = {"declared": True}
        made = await self.parts.records.save(self.record, self.jobs.new(kind, "daemon", declared))
        assert made is not None  # noqa: S101
        self.record = self.record.beginning(made)
        self.jobs.begin(made, declared)

    def _start_at(self, parameters: Mapping[str, Any]) -> int | None:
        return start_at(parameters, self.parts.ports.clock.wall_us(), self.name)


def _said(before: MachineRecord, after: MachineRecord, event: Event) -> Mapping[str, Any]:
    """Of an event that the state is another."""
    fields = {"event": event.value, "before": before.situation.state.value}
    return after.situation.as_fields() | fields
