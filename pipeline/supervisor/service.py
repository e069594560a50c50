"""``Control``: what the API and the command line may ask of a running supervisor."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.control.jobs import check_action
from pipeline.control.model import Caller, Health, JobAction, JobKind, Operation, Reason, Stake
from pipeline.control.views import DaemonView, EventView, JobView, MachineView
from pipeline.lifecycle.events import Start
from pipeline.supervisor.machine import Protected
from pipeline.supervisor.supervisor import Supervisor
from pipeline.supervisor.views import machine_view, with_reasons, worst
from stages.errors import BackstayError, IllegalOperation, NotFound

IRREVERSIBLE = frozenset(
    {
        Operation.UNPROTECT,
        Operation.UNPLANNED_FAILOVER,
        Operation.COMMIT_FAILOVER,
        Operation.CANCEL_FAILOVER,
        Operation.REPROTECT,
        Operation.MIGRATE,
    }
)
_AGAIN: Mapping[JobKind, Operation] = {
    JobKind.ENABLE_PROTECTION: Operation.PROTECT,
    JobKind.INITIAL_REPLICATION: Operation.START_REPLICATION,
    JobKind.RESYNCHRONIZE: Operation.RESYNC,
    JobKind.TEST_FAILOVER: Operation.TEST_FAILOVER,
    JobKind.CLEANUP_TEST_FAILOVER: Operation.CLEANUP_TEST,
    JobKind.PLANNED_FAILOVER: Operation.PLANNED_FAILOVER,
    JobKind.UNPLANNED_FAILOVER: Operation.UNPLANNED_FAILOVER,
    JobKind.CHANGE_POINT: Operation.CHANGE_POINT,
    JobKind.COMMIT_FAILOVER: Operation.COMMIT_FAILOVER,
    JobKind.CANCEL_FAILOVER: Operation.CANCEL_FAILOVER,
    JobKind.REPROTECT: Operation.REPROTECT,
    JobKind.FAILBACK: Operation.FAILBACK,
    JobKind.MIGRATE: Operation.MIGRATE,
    JobKind.DISABLE: Operation.UNPROTECT,
    JobKind.MARK: Operation.MARK,
}


class Service:
    """Implements ``Control``."""

    def __init__(self, supervisor: Supervisor):
        self._all = supervisor
        self._parts = supervisor.parts
        self._records = supervisor.parts.records

    def daemon(self) -> DaemonView:
        """See ``Control``."""
        one = self._all
        reasons = []
        if one.intake.pid is None:
            reasons.append(Reason("intake", Health.CRITICAL, "intake is not running"))
        if one.delivery.pid is None:
            reasons.append(Reason("delivery", Health.WARNING, "delivery is not running"))
        reasons += one.wellness.of_daemon()
        return DaemonView(
            version=_version(),
            pid=os.getpid(),
            started_us=one.started_us,
            config=one.config.source,
            ready=one.ready,
            health=worst(reasons),
            reasons=tuple(reasons),
            intake_pid=one.intake.pid,
            delivery_pid=one.delivery.pid,
            key_drilled_us=one.drilled_us,
            stores=one.traffic.views(one.config, self._parts.ports.clock.monotonic()),
        )

    def machines(self) -> Sequence[MachineView]:
        """See ``Control``."""
        return [self._view(self._all.machines[name]) for name in sorted(self._all.machines)]

    def machine(self, name: str) -> MachineView:
        """See ``Control``."""
        return self._view(self._found(name))

    async def stake(
        self, operation: Operation, machine: str, parameters: Mapping[str, Any]
    ) -> Stake:
        """See ``Control``."""
        one = self._found(machine)
        found = one.check(operation, parameters)
        for effect in found.effects:
            if isinstance(effect, Start):
                carrier = self._parts.carriers.need(effect.job, operation, machine)
                if carrier.foresee is not None:
                    return await carrier.foresee(machine, parameters)
        view = self._view(one)
        lines = [f"{operation.value} of {machine}, which is: {one.record.situation}"]
        if found.then != one.record.situation:
            lines.append(f"it will be: {found.then}")
        if view.point is not None:
            lines.append(f"its newest consistent point is #{view.point}")
        irreversible = operation in IRREVERSIBLE
        lines.append("this cannot be undone" if irreversible else "this can be undone")
        return Stake(operation, machine, irreversible, tuple(lines), {"then": found.then.state})

    async def operate(
        self, operation: Operation, machine: str, parameters: Mapping[str, Any], caller: Caller
    ) -> JobView | None:
        """See ``Control``."""
        asked = {"operation": operation.value, "machine": machine, "parameters": dict(parameters)}
        if caller.key:
            begun = await self._records.job_of(caller.name, caller.key)
            if begun is not None and begun.machine == machine:
                return begun
        try:
            one = self._found(machine)
            made = await one.operate(operation, parameters, caller.name, caller.key)
        except BackstayError as error:
            await self._audited(caller, asked | {"outcome": f"refused: {error}"})
            raise
        outcome = {"outcome": "done" if made is None else f"job {made.id}"}
        await self._audited(caller, asked | outcome)
        return made

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """See ``Control``."""
        return await self._records.jobs(machine=machine, active=active, before=before, limit=limit)

    async def job(self, number: int) -> JobView:
        """See ``Control``."""
        return await self._records.job(number)

    async def act(self, number: int, action: JobAction, note: str, caller: Caller) -> JobView:
        """See ``Control``."""
        asked: dict[str, Any] = {"operation": f"job {action.value}", "job": number}
        try:
            job = await self._records.job(number)
            asked["machine"] = job.machine
            if note:
                job = await self._records.note(number, f"{caller.name}: {note}")
            job = await self._acted(job, action, caller)
        except BackstayError as error:
            await self._audited(caller, asked | {"outcome": f"refused: {error}"})
            raise
        await self._audited(caller, asked | {"outcome": "done"})
        return job

    async def _acted(self, job: JobView, action: JobAction, caller: Caller) -> JobView:
        one = self._found(job.machine)
        run = one.jobs.runs.get(job.id)
        if action is JobAction.CANCEL and run is not None and run.carrier.cancellable:
            run.cancel()
            return await self._records.job(job.id)
        over = (job.state.is_over and job.problem is not None) or job.allowed == (
            JobAction.RESTART,
        )
        operation = _AGAIN.get(job.kind)
        if action is JobAction.RESTART and over and operation is not None:
            parameters = await self._records.parameters(job.id)
            made = await one.operate(operation, parameters, caller.name)
            return made or await self._records.job(job.id)
        check_action(job.id, job.state, action, run is None or run.carrier.cancellable)
        why, hint = "it is being taken up again after a restart", "try again in a moment"
        if action is not JobAction.CANCEL:
            why, hint = f"a job of this kind ({job.kind.value}) is begun by the daemon only", ""
        raise IllegalOperation(
            why, operation=f"job {action.value}", subject=f"#{job.id}", hint=hint
        )

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """See ``Control``."""
        return await self._records.events(machine=machine, after=after, limit=limit)

    def follow(self, *, after: int = 0) -> AsyncGenerator[EventView, None]:
        """See ``Control``."""
        return self._records.follow(after=after)

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """See ``Control``."""
        return await self._records.audit(before=before, limit=limit)

    async def reload(self, caller: Caller) -> Sequence[str]:
        """See ``Control``."""
        asked = {"operation": "reload"}
        try:
            said, later = await self._all.reload()
        except BackstayError as error:
            await self._audited(caller, asked | {"outcome": f"refused: {error}"})
            raise
        await self._audited(caller, asked | {"outcome": "done"})
        return [*said, *later]

    async def _audited(self, caller: Caller, fields: Mapping[str, Any]) -> None:
        who = {"name": caller.name, "role": caller.role, "address": caller.address}
        await self._records.append_audit({"caller": who, **fields})

    def _found(self, name: str) -> Protected:
        if name not in self._all.machines:
            raise NotFound(
                "no machine is called so",
                operation="machine",
                subject=name,
                hint=f"known: {', '.join(sorted(self._all.machines)[:20])}",
            )
        return self._all.machines[name]

    def _view(self, one: Protected) -> MachineView:
        ports = self._parts.ports
        view = machine_view(
            self._parts.config,
            one.record,
            one.look,
            one.said,
            self._all.points.get(one.name),
            rpo=one.reports.rpo.seconds(ports.clock.monotonic()),
            now_us=ports.clock.wall_us(),
            eta=one.reports.eta(),
            possible=one.possible(),
        )
        return with_reasons(view, self._all.wellness.of(one.name))


def _version() -> str:
    try:
        return version("backstay")
    except PackageNotFoundError:
        return "unknown"
