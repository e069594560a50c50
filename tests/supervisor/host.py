"""``backstay run`` with a way in: what the API asks of the supervisor, as lines of JSON.

Run as ``python -m tests.supervisor.host CONFIG``. Failovers are carried out by what is below, which
only goes through the states: the real ones take a vault and its private key.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import trio

from pipeline.config import load
from pipeline.control.model import Caller, JobAction, JobKind, Operation, State
from pipeline.lifecycle.events import Happening
from pipeline.state import StateFolder
from pipeline.supervisor.jobs import built_in
from pipeline.supervisor.machine import Protected
from pipeline.supervisor.notify import this_process
from pipeline.supervisor.parts import Parts
from pipeline.supervisor.service import Service
from pipeline.supervisor.supervisor import Supervisor
from pipeline.supervisor.work import Carrier, Carriers, Outcome, Work
from stages.errors import BackstayError, StoreUnreachable
from stages.system import this_machine

ME = Caller("test", "approver", "here")
FAILOVER = {"point": 7, "stamp_us": 1, "branch": "b1", "planned": True}


async def planned(work: Work) -> Outcome:
    """Prepare, fail over, from whatever an earlier life had come to; ``hang`` and ``fail`` are
    steps to do that at."""
    if work.record.situation.state is State.REPLICATING:
        await _step(work, "prepare")
        await work.happen(Happening.PREPARED)
    if work.record.situation.state is State.PREPARED:
        await _step(work, "fail over")
        await work.happen(Happening.FAILOVER_BEGUN)
    await _step(work, "start")
    await work.happen(Happening.FAILED_OVER, failover=FAILOVER)
    return Outcome(None)


async def _step(work: Work, name: str) -> None:
    await work.task(name)
    if work.parameters.get("fail") == name:
        raise StoreUnreachable("the vault is away", operation=name)
    if work.parameters.get("hang") == name:
        await trio.sleep_forever()


def simple(happening: Happening) -> Carrier:
    async def carry(work: Work) -> Outcome:
        await _step(work, "only")
        return Outcome(happening)

    return Carrier(carry)


def carriers() -> Carriers:
    found = built_in()
    found.add(JobKind.PLANNED_FAILOVER, Carrier(planned))
    found.add(JobKind.COMMIT_FAILOVER, simple(Happening.COMMITTED))
    found.add(JobKind.CANCEL_FAILOVER, simple(Happening.FAILOVER_CANCELLED))
    found.add(JobKind.REPROTECT, simple(Happening.REPROTECTED))
    found.add(JobKind.TEST_FAILOVER, simple(Happening.TEST_STARTED))
    found.add(JobKind.CLEANUP_TEST_FAILOVER, simple(Happening.TEST_CLEANED))
    return found


async def answer(service: Service, asked: dict[str, Any]) -> Any:
    match asked["do"]:
        case "view":
            return asdict(service.machine(asked["machine"]))
        case "look":  # when intake was looked at last
            return service._all.machines[asked["machine"]].look.at
        case "views":
            return [asdict(one) for one in service.machines()]
        case "daemon":
            return asdict(service.daemon())
        case "operate":
            operation = Operation(asked["operation"])
            made = await service.operate(operation, asked["machine"], asked["parameters"], ME)
            return None if made is None else asdict(made)
        case "stake":
            operation = Operation(asked["operation"])
            return asdict(await service.stake(operation, asked["machine"], asked["parameters"]))
        case "job":
            return asdict(await service.job(asked["number"]))
        case "jobs":
            return [asdict(one) for one in await service.jobs()]
        case "act":
            return asdict(
                await service.act(asked["number"], JobAction(asked["action"]), "a note", ME)
            )
        case "events":
            return [asdict(one) for one in await service.events(limit=1000)]
        case "audit":
            return list(await service.audit())
        case "reload":
            return list(await service.reload(ME))
    raise AssertionError(asked)


async def serve(supervisor: Supervisor) -> None:
    service = Service(supervisor)
    said = b""
    await supervisor.until_ready()
    print(json.dumps("ready"), flush=True)  # noqa: T201
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        while data := await stream.receive_some(65536):
            said += data
            *lines, said = said.split(b"\n")
            for line in lines:
                found: dict[str, Any]
                try:
                    found = {"answer": await answer(service, json.loads(line))}
                except BackstayError as error:
                    found = {
                        "error": type(error).__name__,
                        "message": str(error),
                        "hint": error.hint,
                    }
                print(json.dumps(found), flush=True)  # noqa: T201
    await trio.sleep_forever()


async def nobody(parts: Parts, machines: Mapping[str, Protected]) -> None:
    """The failovers here are in no vault that could be followed."""


async def main(path: str) -> None:
    config, ports, notifier = load(path), this_machine(), this_process()
    state = StateFolder.open(ports, config.daemon.state)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    supervisor = Supervisor(
        ports, config, state, tell, 30.0, carriers=carriers(), follow=nobody, notifier=notifier
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, supervisor)
        await supervisor.run()
        nursery.cancel_scope.cancel()
