"""The supervisor's memory in the control database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pipeline.control.model import Direction, JobAction, JobKind, JobState, Problem, State
from pipeline.control.model import TestFailover as Axis
from pipeline.control.views import TaskView
from pipeline.lifecycle.rules import Situation
from pipeline.supervisor.dbrecords import DatabaseRecords
from pipeline.supervisor.records import Ended, MachineRecord, NewJob, Records
from stages.errors import NotFound, StateDamaged, leaves
from stages.system import this_machine

ANN = {"name": "ann", "role": "operator", "address": "unix"}
PROBLEM = Problem("Fenced", "no", "ask", False, 10)
FULL = MachineRecord(
    "web1",
    Situation(State.COMMIT_PENDING, Direction.REVERSE, Axis.RUNNING),
    wanted=False,
    whole=True,
    start_us=5,
    held=True,
    compare=True,
    problem=PROBLEM,
    failover={"branch": "b"},
)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Records]:
    """A life of it."""
    records = DatabaseRecords(this_machine(), lambda: str(path / "control.db"))
    async with trio.open_nursery() as nursery:
        await nursery.start(records.run)
        await records.load()
        yield records
        nursery.cancel_scope.cancel()


async def test_machines_and_jobs_survive(tmp_path: Path) -> None:
    async with opened(tmp_path) as records:
        assert await records.save(FULL) is None
        new = NewJob(JobKind.COMMIT_FAILOVER, "web1", "ann", {"a": [1]})
        made = await records.save(FULL, new)
        assert made is not None
        assert (made.kind, made.by, made.state) == (new.kind, "ann", JobState.IN_PROGRESS)
        assert made.allowed == (JobAction.CANCEL,)
        await records.progress(made.id, tasks=[TaskView("one", JobState.IN_PROGRESS)], percent=5.0)
        await records.note(made.id, "careful")
        test = await records.save(
            replace(FULL, job=made.id), NewJob(JobKind.TEST_FAILOVER, "web1", "bob")
        )
        assert test is not None
        await records.append_event("state", "web1", None, "hello", {"x": 1})
        await records.append_audit({"caller": ANN, "operation": "x", "machine": "web1"})
        await records.append_audit({"caller": ANN, "operation": "y", "outcome": "done", "more": 1})
        shown = await records.job(made.id)
    async with opened(tmp_path) as records:
        (found,) = records.machines()
        assert found == replace(FULL, job=made.id, test_job=test.id)
        assert await records.job(made.id) == shown
        assert await records.parameters(made.id) == {"a": [1]}
        assert [one.id for one in await records.jobs(active=True)] == [test.id, made.id]
        assert [one.id for one in await records.jobs(before=test.id)] == [made.id]
        assert await records.jobs(machine="web2") == []
        ended = Ended(made.id, JobState.FAILED, "no", PROBLEM, {"r": 1})
        await records.save(found, ended=ended)
        after = await records.job(made.id)
        assert (after.state, after.problem, after.result) == (JobState.FAILED, PROBLEM, {"r": 1})
        assert after.allowed == (JobAction.RESTART,)
        await records.save(found, ended=Ended(test.id, JobState.SUCCEEDED))
        (event,) = await records.events()
        assert (event.message, event.fields) == ("hello", {"x": 1})
        assert await records.events(after=event.id) == []
        second, first = await records.audit()
        assert second["previous"] == first["digest"]
        assert (await records.audit(before=second["seq"]))[0] == first
    async with opened(tmp_path) as records:
        (found,) = records.machines()
        assert found.job is None
        assert await records.jobs(active=True) == []
        another = await records.save(found, NewJob(JobKind.MARK, "web1", "ann"))
        assert another is not None
        assert another.id > test.id
        with pytest.raises(NotFound):
            await records.job(99)
        with pytest.raises(NotFound):
            await records.parameters(99)


async def test_what_ends_and_begins_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as records:
        first = await records.save(FULL, NewJob(JobKind.INITIAL_REPLICATION, "web1", "daemon"))
        assert first is not None
        second = await records.save(
            replace(FULL, job=first.id),
            NewJob(JobKind.FINALIZE_PROTECTION, "web1", "daemon", cancellable=False),
            Ended(first.id, JobState.SUCCEEDED),
        )
        assert second is not None
        assert second.allowed == ()
    async with opened(tmp_path) as records:
        (found,) = records.machines()
        assert found.job == second.id
        assert (await records.job(first.id)).state is JobState.SUCCEEDED


async def test_progress_is_written_now_and_then(tmp_path: Path) -> None:
    async with opened(tmp_path) as records:
        made = await records.save(FULL, NewJob(JobKind.RESYNCHRONIZE, "web1", "daemon"))
        assert made is not None
        for percent in range(1, 50):
            await records.progress(made.id, percent=float(percent), bytes_done=percent)
        shown = await records.job(made.id)
        assert (shown.percent, shown.bytes_done) == (49.0, 49)
        assert (await records.jobs())[0] == shown
    async with opened(tmp_path) as records:
        assert (await records.job(made.id)).percent == 49.0
        await records.save(FULL, ended=Ended(made.id, JobState.SUCCEEDED, "done"))
        after = await records.progress(made.id, percent=1.0)
        assert (after.percent, after.state, after.description) == (
            49.0,
            JobState.SUCCEEDED,
            "done",
        )


async def test_many_machines_at_the_same_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as records, trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(records.save, MachineRecord(f"m{number}"))
    async with opened(tmp_path) as records:
        assert len(records.machines()) == 300


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"hello" * 5000)
    with pytest.raises(ExceptionGroup) as raised:
        async with opened(tmp_path):
            pass
    (failed,) = leaves(raised.value)
    assert isinstance(failed, StateDamaged)
    assert failed.hint


async def test_a_request_that_comes_again_is_known_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as records:
        made = await records.save(FULL, NewJob(JobKind.MARK, "web1", "ann", key="k1"))
        assert made is not None
        assert await records.job_of("bob", "k1") is None
    async with opened(tmp_path) as records:
        found = await records.job_of("ann", "k1")
        assert found is not None
        assert found.id == made.id
