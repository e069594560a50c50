"""A small ``Control`` in memory that obeys the protocol: jobs go on when a test says so."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from pipeline.control.jobs import JobEvent, allowed_actions, check_action, follows
from pipeline.control.model import (
    Caller,
    Direction,
    Health,
    JobAction,
    JobKind,
    JobState,
    Ladder,
    Operation,
    Problem,
    Reason,
    Stake,
    State,
)
from pipeline.control.model import TestFailover as Trial
from pipeline.control.views import (
    DaemonView,
    DiskView,
    EventView,
    JobView,
    MachineView,
    Scan,
    StageView,
)
from pipeline.records import chain
from pipeline.records.model import NewAudit
from stages.errors import BackstayError, ConfigError, IllegalOperation, NotFound, UsageError

_KIND = {
    Operation.PROTECT: JobKind.ENABLE_PROTECTION,
    Operation.UNPROTECT: JobKind.DISABLE,
    Operation.RESYNC: JobKind.RESYNCHRONIZE,
    Operation.REPROTECT: JobKind.REPROTECT,
    Operation.FAILBACK: JobKind.FAILBACK,
    Operation.MIGRATE: JobKind.MIGRATE,
}
_ALLOWED = {
    State.REPLICATING: (
        Operation.UNPROTECT, Operation.SUSPEND, Operation.RESYNC, Operation.RETRY,
        Operation.MIGRATE,
    ),
    State.SUSPENDED: (Operation.UNPROTECT, Operation.RESUME),
    State.COMMITTED: (Operation.REPROTECT, Operation.FAILBACK, Operation.UNPROTECT),
    State.DISABLED: (Operation.PROTECT,),
}  # fmt: skip
_FOREVER = (Operation.UNPROTECT, Operation.REPROTECT, Operation.MIGRATE)


@dataclass
class Operator:
    """``machines`` by name. A second job of a machine is refused while one is under way."""

    states: dict[str, State] = field(
        default_factory=lambda: {
            "web1": State.REPLICATING,
            "db": State.COMMITTED,
            "new": State.DISABLED,
        }
    )
    is_ready: bool = True
    reload_error: BackstayError | None = None
    lag: int = 1000
    _jobs: list[JobView] = field(default_factory=list)
    _events: list[EventView] = field(default_factory=list)
    _audit: list[Mapping[str, Any]] = field(default_factory=list)
    _last: chain.Anchor = field(default_factory=chain.Anchor)
    _news: trio.Event = field(default_factory=trio.Event)
    _time: int = 1_700_000_000_000_000

    def daemon(self) -> DaemonView:
        reasons = (Reason("key-not-drilled", Health.WARNING, "no key was drilled", "key drill"),)
        return DaemonView(
            "0.1.0", os.getpid(), self._time, "/etc/backstay.yaml", self.is_ready,
            Health.WARNING, reasons, 1, 2, None,
        )  # fmt: skip

    def machines(self) -> Sequence[MachineView]:
        return [self.machine(name) for name in sorted(self.states)]

    def machine(self, name: str) -> MachineView:
        if name not in self.states:
            raise NotFound("no such machine", operation="machine", subject=name, hint="machines")
        state = self.states[name]
        job = next((j for j in self._jobs if j.machine == name and not j.state.is_over), None)
        failed = Problem("StoreUnreachable", "no route", "wait", True, 8)
        reasons = () if name != "db" else (Reason("rpo", Health.CRITICAL, "RPO is 2 h", "look"),)
        return MachineView(
            name, state, Direction.FORWARD, Trial.NONE,
            Health.CRITICAL if reasons else Health.NORMAL, reasons,
            () if job else _ALLOWED.get(state, ()), "standby", "default",
            (DiskView("root", 1 << 30, f"/srv/{name}.img", "nbd+unix:///?socket=/s"),),
            None if name == "new" else 1.5, 7, 1_700_000_000_000_000, 4096, 1 << 30, 12345,
            Ladder(3, failed, self._time + 2_000_000) if name == "db" else Ladder(),
            Scan(5, 10, 12.0) if state is State.RESYNCHRONIZING else None, None,
            None if job is None else job.id,
            (StageView("compress", 2, 3.5, 1.0, 0.25),) if name == "web1" else (),
        )  # fmt: skip

    async def stake(
        self, operation: Operation, machine: str, parameters: Mapping[str, Any]
    ) -> Stake:
        self._check(operation, machine, parameters)
        irreversible = operation in _FOREVER
        lines = (f"{operation} of {machine}", "the source is alive", "nothing is lost")
        return Stake(operation, machine, irreversible, lines, {"alive": True})

    def _check(self, operation: Operation, machine: str, parameters: Mapping[str, Any]) -> None:
        view = self.machine(machine)
        if operation not in view.allowed:
            raise IllegalOperation(
                f"it is {view.state}" + (f", job #{view.job} is under way" if view.job else ""),
                operation=operation, subject=machine,
                hint=f"allowed now: {', '.join(view.allowed) or 'nothing'}",
            )  # fmt: skip
        if "crash" in parameters:
            raise RuntimeError("a defect with geheim1 in it")
        unknown = set(parameters) - {"data", "label", "at_us", "start", "to"}
        if unknown:
            raise UsageError(f"unknown: {', '.join(sorted(unknown))}", operation=operation)

    async def operate(
        self,
        operation: Operation,
        machine: str,
        parameters: Mapping[str, Any],
        caller: Caller,
    ) -> JobView | None:
        await trio.lowlevel.checkpoint()
        try:
            self._check(operation, machine, parameters)
        except BackstayError as error:
            self._note(caller, operation, machine, f"refused: {error.message}")
            raise
        kind = _KIND.get(operation)
        if kind is None:
            if operation is Operation.SUSPEND:
                self.states[machine] = State.SUSPENDED
            elif operation is Operation.RESUME:
                self.states[machine] = State.REPLICATING
            self._note(caller, operation, machine, "done")
            self.happen("state", machine, f"is {self.states[machine]}")
            return None
        job = JobView(
            len(self._jobs) + 1, kind, machine, JobState.IN_PROGRESS, "goes on", self._tick(),
            self._tick(), None, 0.0, 0, 0, (), None, allowed_actions(JobState.IN_PROGRESS),
            caller.name, key=caller.key,
        )  # fmt: skip
        self._jobs.append(job)
        self._note(caller, operation, machine, f"job {job.id}")
        self.happen("job", machine, f"{kind} begins", job.id)
        return job

    def finish(self, number: int, event: JobEvent = JobEvent.SUCCEED) -> JobView:
        """A job goes on, as a test wants it."""
        job = self._jobs[number - 1]
        state = follows(job.state, event)
        ended = self._tick() if state.is_over else None
        job = replace(job, state=state, allowed=allowed_actions(state), ended_us=ended)
        self._jobs[number - 1] = job
        self.happen("job", job.machine, f"{job.kind}: {job.state}", number)
        return job

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        found = [
            job
            for job in reversed(self._jobs)
            if machine in ("", job.machine)
            and not (active and job.state.is_over)
            and not (before and job.id >= before)
        ]
        return found[:limit]

    async def job(self, number: int) -> JobView:
        if not 0 < number <= len(self._jobs):
            raise NotFound("no such job", operation="job", subject=f"#{number}", hint="job list")
        return self._jobs[number - 1]

    async def act(self, number: int, action: JobAction, note: str, caller: Caller) -> JobView:
        try:
            job = await self.job(number)
            check_action(number, job.state, action)
        except BackstayError as error:
            self._note(caller, f"job {action}", f"#{number}", f"refused: {error.message}")
            raise
        job = self.finish(number, JobEvent(action.value))
        if note:
            job = self._jobs[number - 1] = replace(job, notes=(*job.notes, note))
        self._note(caller, f"job {action}", f"#{number}", "done")
        return job

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        found = [e for e in self._events if e.id > after and machine in ("", e.machine)]
        return found[:limit]

    async def follow(self, *, after: int = 0) -> AsyncGenerator[EventView, None]:
        while True:
            news = self._news
            for event in [each for each in self._events if each.id > after]:
                yield event
                after = event.id
                if self._events[-1].id - after > self.lag:
                    return
            await news.wait()

    def happen(self, kind: str, machine: str, message: str, job: int | None = None) -> EventView:
        event = EventView(len(self._events) + 1, self._tick(), kind, machine, job, message)
        self._events.append(event)
        self._news.set()
        self._news = trio.Event()
        return event

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        found = [e for e in reversed(self._audit) if not before or e["seq"] < before]
        return found[:limit]

    async def refused(self, entry: NewAudit) -> None:
        """What ``serve_api`` is given to write into the audit."""
        link = chain.link(self._last, self._tick(), entry)
        self._last = chain.Anchor(link.seq, link.digest)
        self._audit.append(chain.entry_fields(link))

    def _note(self, caller: Caller, operation: str, subject: str, outcome: str) -> None:
        entry = NewAudit(caller.name, caller.role, caller.address, operation, subject, outcome)
        link = chain.link(self._last, self._tick(), entry)
        self._last = chain.Anchor(link.seq, link.digest)
        self._audit.append(chain.entry_fields(link))

    async def reload(self, caller: Caller) -> Sequence[str]:
        if self.reload_error is not None:
            self._note(caller, "reload", "", f"refused: {self.reload_error.message}")
            raise self.reload_error
        self._note(caller, "reload", "", "done")
        self.happen("config", "", "read again")
        return ["web2: new"]

    def _tick(self) -> int:
        self._time += 1000
        return self._time


WRONG_CONFIG = ConfigError("c.yaml:3:4: no", operation="reload", hint="mend it")
