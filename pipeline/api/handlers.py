"""What each route does."""

from __future__ import annotations

import json
from typing import Any

from pipeline.api import schema
from pipeline.api.guard import Answer, Api, Call, need_role
from pipeline.api.metrics import exposition
from pipeline.api.problems import FieldProblem, refuse
from pipeline.api.sse import EventStream
from pipeline.control.model import Health, JobAction, Operation, Stake
from pipeline.control.views import DaemonView, JobView, MachineView
from stages.crypto.digest import digest
from stages.errors import NotFound

_WORST = (Health.NORMAL, Health.WARNING, Health.CRITICAL)
_LOOK_BACK = 100  # jobs of a machine among which a repeated request is looked for


async def daemon(api: Api, _: Call) -> DaemonView:
    """The daemon as a whole."""
    return api.control.daemon()


async def reload(api: Api, call: Call) -> schema.Reloaded:
    """Read the configuration again."""
    call.handed = True
    return schema.Reloaded(changed=list(await api.control.reload(call.caller)))


async def machines(api: Api, _: Call) -> schema.Machines:
    """All machines."""
    return schema.Machines.model_construct(machines=list(api.control.machines()))


async def machine(api: Api, call: Call) -> MachineView:
    """One machine."""
    return api.control.machine(call.request.path_params["name"])


async def operate(api: Api, call: Call) -> Answer:
    """Begin an operation, or say what it would do."""
    name, operation = call.request.path_params["name"], _operation(call)
    asked: schema.OperationRequest = call.body
    if asked.dry_run:
        stake = await api.control.stake(operation, name, asked.parameters)
        return Answer(_answer(dry_run=True, stake=stake))

    async def begin() -> JobView | None:
        found = await _begun_before(api, call, name)
        if found is not None:
            return found
        stake = await api.control.stake(operation, name, asked.parameters)
        _confirmed(call, stake, asked.confirm)
        call.handed = True
        return await api.control.operate(operation, name, asked.parameters, call.caller)

    job, repeated = await _once(api, call, begin, operation, name)
    if job is None:
        return Answer(_answer(repeated=repeated))
    headers = (("Location", f"/v1/jobs/{job.id}"),)
    return Answer(_answer(job=job, repeated=repeated), 202, headers)


async def _once(
    api: Api, call: Call, begin: Any, operation: Operation, name: str
) -> tuple[JobView | None, bool]:
    key = call.caller.key
    if not key:
        return await begin(), False
    asked = json.dumps([operation, name, call.body.model_dump(mode="json")], sort_keys=True)
    fingerprint = digest([asked.encode("utf-8", "replace")])
    return await api.repeats.once(call.caller.name, key, fingerprint, begin)


async def _begun_before(api: Api, call: Call, name: str) -> JobView | None:
    """The job that this request began in an earlier life of the daemon."""
    if not call.caller.key:
        return None
    for job in await api.control.jobs(machine=name, limit=_LOOK_BACK):
        if (job.key, job.by) == (call.caller.key, call.caller.name):
            return job
    return None


def _confirmed(call: Call, stake: Stake, confirm: str) -> None:
    if not stake.irreversible:
        return
    need_role(call.caller, "approver")
    if confirm == stake.machine:
        return
    message = f"{stake.operation} cannot be undone: confirm with the name of the machine"
    raise refuse(
        422,
        message,
        hint=f"--confirm {stake.machine}",
        errors=[FieldProblem(field="confirm", message="must be the name of the machine")],
        stake=stake.lines,
    )


def _operation(call: Call) -> Operation:
    word = call.request.path_params["operation"]
    if word not in list(Operation):
        raise NotFound(
            "there is no such operation",
            operation="operate",
            subject=word[:100],
            hint=f"there are {', '.join(Operation)}",
        )
    return Operation(word)


def _answer(
    *,
    dry_run: bool = False,
    stake: Stake | None = None,
    job: JobView | None = None,
    repeated: bool = False,
) -> schema.OperationAnswer:
    return schema.OperationAnswer.model_construct(
        dry_run=dry_run, stake=stake, job=job, repeated=repeated
    )


async def jobs(api: Api, call: Call) -> schema.Jobs:
    """A page of jobs."""
    asked: schema.JobsQuery = call.query
    found = await api.control.jobs(
        machine=asked.machine, active=asked.active, before=asked.before, limit=asked.limit
    )
    return schema.Jobs.model_construct(jobs=list(found))


async def job(api: Api, call: Call) -> JobView:
    """One job."""
    return await api.control.job(_number(call))


async def act(api: Api, call: Call) -> JobView:
    """Cancel, restart or resume a job."""
    number, word = _number(call), call.request.path_params["action"]
    if word not in list(JobAction):
        raise NotFound(
            "there is no such action",
            operation="job",
            subject=word[:100],
            hint=f"there are {', '.join(JobAction)}",
        )
    call.handed = True
    return await api.control.act(number, JobAction(word), call.body.note, call.caller)


def _number(call: Call) -> int:
    word = call.request.path_params["number"]
    if not (word.isascii() and word.isdecimal() and len(word) < 19):
        raise NotFound("not the number of a job", operation="job", subject=word[:100])
    return int(word)


async def events(api: Api, call: Call) -> schema.Events:
    """A page of events."""
    asked: schema.EventsQuery = call.query
    found = await api.control.events(machine=asked.machine, after=asked.after, limit=asked.limit)
    return schema.Events.model_construct(events=list(found))


async def follow(api: Api, call: Call) -> EventStream:
    """Events as they happen."""
    asked: schema.FollowQuery = call.query
    return EventStream(api, _begin(call, asked.after), asked.machine)


def _begin(call: Call, after: int | None) -> int | None:
    word = call.request.headers.get("last-event-id", "").strip()
    if not word:
        return after
    if word.isascii() and word.isdecimal() and len(word) < 19:
        return int(word)
    wrong = FieldProblem(field="Last-Event-ID", message="is not the id of an event")
    raise refuse(422, "Last-Event-ID is not the id of an event", errors=[wrong])


async def audit(api: Api, call: Call) -> schema.AuditPage:
    """A page of the audit."""
    asked: schema.AuditQuery = call.query
    found = await api.control.audit(before=asked.before, limit=asked.limit)
    return schema.AuditPage.model_construct(entries=[dict(each) for each in found])


async def health(api: Api, _: Call) -> schema.HealthAnswer:
    """How all is."""
    one = api.control.daemon()
    found = [
        schema.MachineHealth.model_construct(
            name=each.name, health=each.health, reasons=list(each.reasons)
        )
        for each in api.control.machines()
    ]
    worst = max((one.health, *(each.health for each in found)), key=_WORST.index)
    return schema.HealthAnswer.model_construct(
        health=worst, reasons=list(one.reasons), machines=found
    )


async def alive(_api: Api, _: Call) -> schema.Alive:
    """It answers."""
    return schema.Alive()


async def ready(api: Api, _: Call) -> schema.Alive:
    """It serves."""
    if not api.control.daemon().ready:
        raise refuse(503, "the daemon is still starting")
    return schema.Alive()


async def metrics(api: Api, _: Call) -> str:
    """For Prometheus."""
    return exposition(api.control.daemon(), api.control.machines())
