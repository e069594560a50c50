"""kill -9 of the process that writes, at any moment: all of a change is there, or nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading

from pipeline.control.model import JobState
from pipeline.records.model import Limits
from pipeline.records.records import Records
from stages.system import this_machine

ROUNDS = 4


def _killed_after(address: str, lines: int, delay: float) -> int:
    """The last number that the process said before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.records.killed", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    if not said[-1]:
        raise AssertionError(process.communicate()[1])
    timer = threading.Timer(delay, process.kill)  # some instruction between two lines
    timer.start()
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    timer.join()
    process.communicate()
    return int([line for line in [*said, *rest] if line.endswith("\n")][-1])


async def test_all_or_nothing(address: str) -> None:
    chance = random.Random(os.urandom(4))
    for _ in range(ROUNDS):
        lines, delay = chance.randint(1, 30), chance.random() / 100
        said = _killed_after(address, lines, delay)
        records = await Records.open(this_machine(), address, Limits())
        try:
            await _check(records, said, f"{lines} lines and {delay} s")
        finally:
            await records.close()


async def _check(records: Records, said: int, when: str) -> None:
    newest = (await records.machines())["web1"].extra["number"]
    # One more may be durable that it had no time to say.
    assert newest in (said, said + 1), when
    events = await records.events(limit=1000)
    assert [event.fields["number"] for event in events[-2:]] == [newest, newest], when
    (entry,) = await records.audit(limit=1)
    assert f'"n":{newest}' in entry.detail, when
    assert (await records.verify_audit()).broken is None, when
    job, *before = await records.jobs(limit=2)
    assert (job.description, job.id) == (f"{newest}", events[-1].job), when
    for each in before:
        if each.state is not JobState.IN_PROGRESS:
            continue  # its process was killed before it began
        assert [task.name for task in each.tasks] == [f"{newest}.{n}" for n in range(3)], when
    found = await records.interrupted()
    assert found[-1].view == job
    assert found[-1].parameters == {"number": newest}
