"""One job on its way: its carrier, what the carrier may use, and how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import trio

from pipeline.config.model import Config
from pipeline.control.model import JobState, Problem
from pipeline.control.views import JobView, TaskView
from pipeline.lifecycle.events import Happening
from pipeline.supervisor.facts import Look
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.records import Ended, MachineRecord
from pipeline.supervisor.work import Carrier, Outcome, Overtaken
from stages.errors import BackstayError, leaves

_AGAIN_SECONDS = 5.0  # after its end could not be saved


class Owner(Protocol):
    """The machine, as its jobs see it."""

    record: MachineRecord

    @property
    def name(self) -> str:
        """The machine's."""

    @property
    def current(self) -> Look:
        """The last look, unless it is older than what was done last."""

    @property
    def said(self) -> Mapping[str, Any]:
        """What delivery said of it last."""

    async def changed(self) -> None:
        """Return when there is something new."""

    async def happen(
        self, happening: Happening, *, failover: Mapping[str, Any] | None = None
    ) -> None:
        """Something happened to it. ``IllegalOperation`` if that cannot be."""

    async def end(
        self, ended: Ended, happening: Happening | None, start_us: int | None = None
    ) -> None:
        """A job has ended; ``happening`` follows from that, if it still can."""

    async def let_guests(self, *, come: bool) -> None:
        """See ``Work``."""


class JobRun:
    """Implements ``Work``."""

    def __init__(
        self,
        owner: Owner,
        parts: Parts,
        job: JobView,
        parameters: Mapping[str, Any],
        carrier: Carrier,
    ):
        self.job = job
        self.parameters = parameters
        self.carrier = carrier
        self.ports = parts.ports
        self.state = parts.state
        self._owner = owner
        self._parts = parts
        self._scope = trio.CancelScope()
        self._quiet = False

    @property
    def config(self) -> Config:
        """See ``Work``."""
        return self._parts.config

    @property
    def machine(self) -> str:
        """See ``Work``."""
        return self._owner.name

    @property
    def record(self) -> MachineRecord:
        """See ``Work``."""
        return self._owner.record

    @property
    def look(self) -> Look:
        """See ``Work``."""
        return self._owner.current

    @property
    def said(self) -> Mapping[str, Any]:
        """See ``Work``."""
        return self._owner.said

    def cancel(self, *, quiet: bool = False) -> None:
        """Have it end; ``quiet``: nothing happens to the machine by that."""
        self._quiet = quiet
        self._scope.cancel()

    async def run(self) -> None:
        """Carry it out and say how it ended; nothing that a carrier does wrong goes further."""
        ended, happening, start_us = await self._carried()
        while True:
            try:
                await self._owner.end(ended, happening, start_us)
            except BackstayError as error:
                self._parts.tell(f"{self.machine}: job {self.job.id}: {error}")
                await self.ports.clock.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _carried(self) -> tuple[Ended, Happening | None, int | None]:
        number, carrier = self.job.id, self.carrier
        outcome: Outcome | None = None
        try:
            with self._scope:
                outcome = await carrier.carry(self)
        except Overtaken as other:
            await self._end_tasks(JobState.CANCELLED)
            state = JobState.CANCELLED if other.problem is None else JobState.FAILED
            return Ended(number, state, str(other), other.problem), None, None
        except Exception as raised:  # noqa: BLE001 - a job that fails is not the end of the daemon
            failed = leaves(raised)[0]
            if not isinstance(failed, BackstayError):
                self._parts.tell("".join(traceback.format_exception(raised)))
            await self._end_tasks(JobState.FAILED)
            await self._undo()
            problem = _problem(failed)
            return Ended(number, JobState.FAILED, problem.message, problem), carrier.failed, None
        if outcome is None:
            await self._end_tasks(JobState.CANCELLED)
            await self._undo()
            happening = None if self._quiet else carrier.cancelled
            return Ended(number, JobState.CANCELLED), happening, None
        await self._end_tasks(JobState.SUCCEEDED)
        ended = Ended(number, JobState.SUCCEEDED, outcome.description, None, outcome.result)
        return ended, outcome.happening, outcome.start_us

    async def _undo(self) -> None:
        if self.carrier.undo is None:
            return
        try:
            await self.carrier.undo(self)
        except BackstayError as error:
            self._parts.tell(f"{self.machine}: job {self.job.id}: to undo it failed: {error}")

    async def _end_tasks(self, state: JobState) -> None:
        """The step that was under way ends as the job does."""
        tasks = [
            replace(task, state=state) if task.state is JobState.IN_PROGRESS else task
            for task in self.job.tasks
        ]
        percent = 100.0 if state is JobState.SUCCEEDED else None
        await self._parts.records.progress(self.job.id, tasks=tasks or None, percent=percent)

    async def changed(self) -> None:
        """See ``Work``."""
        await self._owner.changed()

    async def happen(self, happening: Happening, failover: Mapping[str, Any] | None = None) -> None:
        """See ``Work``."""
        await self._owner.happen(happening, failover=failover)

    async def progress(
        self, percent: float | None = None, *, done: int = 0, total: int = 0, what: str = ""
    ) -> None:
        """See ``Work``."""
        self.job = await self._parts.records.progress(
            self.job.id,
            percent=percent,
            bytes_done=done,
            bytes_total=total,
            description=what or None,
        )

    async def task(self, name: str) -> None:
        """See ``Work``."""
        before = [replace(task, state=JobState.SUCCEEDED) for task in self.job.tasks]
        tasks = [*before, TaskView(name, JobState.IN_PROGRESS)]
        self.job = await self._parts.records.progress(self.job.id, tasks=tasks)

    async def let_guests(self, *, come: bool) -> None:
        """See ``Work``."""
        await self._owner.let_guests(come=come)

    async def intake(self, command: str, **arguments: Any) -> dict[str, Any]:
        """See ``Work``."""
        return await self._parts.capturing.ask(command, **arguments)


def _problem(error: BaseException) -> Problem:
    if isinstance(error, BackstayError):
        kind = type(error)
        return Problem(kind.__name__, str(error), error.hint, error.recoverable, error.exit_code)
    return Problem(type(error).__name__, f"unexpected: {error}", "please report it", False, 1)
