"""A process that writes until it is killed: it says a number when that change is durable."""

from __future__ import annotations

import sys
from functools import partial

import trio

from pipeline.control.jobs import JobEvent
from pipeline.control.model import JobKind, State
from pipeline.control.model import JobState as Job
from pipeline.control.views import TaskView
from pipeline.records.model import (
    NEW_JOB,
    Change,
    JobChange,
    Limits,
    MachineRecord,
    NewEvent,
    NewJob,
)
from pipeline.records.records import Records
from stages.system import this_machine
from tests.records.support import audit


def change(number: int, job: int | None) -> Change:
    """The change of this number: all that is written names it."""
    fields = {"number": number}
    return Change(
        machines=(MachineRecord("web1", State.REPLICATING, extra=fields),),
        new_job=NewJob(JobKind.MARK, "web1", f"{number}", parameters=fields),
        jobs=() if job is None else (JobChange(job, JobEvent.START, tasks=_tasks(number)),),
        events=(NewEvent("job", f"{number}", "web1", NEW_JOB, fields),) * 2,
        audit=(audit(number),),
    )


def _tasks(number: int) -> tuple[TaskView, ...]:
    return tuple(TaskView(f"{number}.{each}", Job.IN_PROGRESS) for each in range(3))


async def write(address: str, limits: Limits) -> None:
    """Until the end."""
    records = await Records.open(this_machine(), address, limits)
    machines = await records.machines()
    number = int(machines["web1"].extra["number"]) + 1 if machines else 1
    job = None
    while True:
        applied = await records.apply(change(number, job))
        assert applied.new_job is not None
        job = applied.new_job.id
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1
        if number % 7 == 0:
            await records.retain()


if __name__ == "__main__":
    trio.run(partial(write, sys.argv[1], Limits(events=40, audit=30)))
