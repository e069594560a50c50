"""What the tests of the control database share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from pipeline.control.jobs import JobEvent
from pipeline.control.model import JobKind, State
from pipeline.control.views import JobView
from pipeline.records.model import Change, JobChange, Limits, MachineRecord, NewAudit, NewJob
from pipeline.records.records import Records
from stages.ports import Clock, Machine
from stages.system import this_machine

DAY_US = 86_400_000_000


class Stepped:
    """A clock that tests set; all else is the machine's."""

    def __init__(self, real: Clock, now_us: int = 1_700_000_000_000_000):
        self._real = real
        self.now_us = now_us

    def monotonic(self) -> float:
        return self._real.monotonic()

    def wall_us(self) -> int:
        self.now_us += 1
        return self.now_us

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


def stepped() -> tuple[Machine, Stepped]:
    machine = this_machine()
    clock = Stepped(machine.clock)
    return replace(machine, clock=clock), clock


@asynccontextmanager
async def opened(address: str, limits: Limits | None = None) -> AsyncIterator[Records]:
    records = await Records.open(this_machine(), address, limits)
    try:
        yield records
    finally:
        await records.close()


async def new_job(records: Records, machine: str = "web1", *events: JobEvent) -> JobView:
    made = (await records.apply(Change(new_job=NewJob(JobKind.RESYNCHRONIZE, machine)))).new_job
    assert made is not None
    for event in events:
        (made,) = (await records.apply(Change(jobs=(JobChange(made.id, event),)))).jobs
    return made


def machine(name: str = "web1", state: State = State.REPLICATING) -> MachineRecord:
    return MachineRecord(name, state, extra={"attempt": 3, "words": ["é", None, 1.5]})


def audit(number: int = 0) -> NewAudit:
    return NewAudit(f"anna{number}", "operator", "unix", "suspend", "web1", "done", {"n": number})
