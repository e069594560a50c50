"""The supervisor's memory: what any place for it must do, and a disk that fails at every step."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from pipeline.control.model import Direction, JobAction, JobKind, JobState, Problem, State, TaskView
from pipeline.control.model import TestFailover as Axis
from pipeline.lifecycle.rules import Situation
from pipeline.supervisor import filerecords
from pipeline.supervisor.filerecords import FileRecords
from pipeline.supervisor.records import Ended, MachineRecord, NewJob, Records
from stages import durable
from stages.errors import BackstayError, NotFound, StateDamaged
from stages.ports import Files
from tests.ports.watched import Tripwire, WatchedFiles, machine
from tests.whole.memfiles import MemFiles

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
async def opened(files: Files) -> AsyncIterator[Records]:
    """A life of it."""
    records = FileRecords(machine(files), "/state")
    async with trio.open_nursery() as nursery:
        await nursery.start(records.run)
        await records.load()
        yield records
        nursery.cancel_scope.cancel()


@pytest.fixture
def files() -> MemFiles:
    found = MemFiles()
    durable.make_dirs(found, "/state")
    return found


async def test_machines_and_jobs_survive(files: MemFiles) -> None:
    async with opened(files) as records:
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
        await records.append_audit({"who": "ann"})
        await records.append_audit({"who": "bob"})
        shown = await records.job(made.id)
    async with opened(files) as records:
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
        await records.end_job(Ended(test.id, JobState.SUCCEEDED))
        (event,) = await records.events()
        assert (event.message, event.fields) == ("hello", {"x": 1})
        assert await records.events(after=event.id) == []
        second, first = await records.audit()
        assert second["previous"] == first["digest"]
        assert (await records.audit(before=second["number"]))[0] == first
    async with opened(files) as records:
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


async def test_what_ends_and_begins_together(files: MemFiles) -> None:
    async with opened(files) as records:
        first = await records.save(FULL, NewJob(JobKind.INITIAL_REPLICATION, "web1", "daemon"))
        assert first is not None
        second = await records.save(
            replace(FULL, job=first.id),
            NewJob(JobKind.FINALIZE_PROTECTION, "web1", "daemon", cancellable=False),
            Ended(first.id, JobState.SUCCEEDED),
        )
        assert second is not None
        assert second.allowed == ()
    async with opened(files) as records:
        (found,) = records.machines()
        assert found.job == second.id
        assert (await records.job(first.id)).state is JobState.SUCCEEDED


async def test_old_jobs_and_events_go(files: MemFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filerecords, "MAX_JOBS", 3)
    async with opened(files) as records:
        stays = await records.save(FULL, NewJob(JobKind.RESYNCHRONIZE, "web1", "daemon"))
        for _ in range(10):
            made = await records.save(FULL, NewJob(JobKind.MARK, "web1", "ann"))
            assert made is not None
            await records.end_job(Ended(made.id, JobState.SUCCEEDED))
            await records.append_event("job", "web1", made.id, "ended", {})
        found = await records.jobs()
        assert len(found) <= 4
        assert found[-1] == stays
        assert len(await records.events(limit=5)) == 5


@pytest.mark.parametrize("late", [False, True])
async def test_a_disk_that_fails_at_every_step(late: bool) -> None:
    """What was saved is there, or it was said that it is not; the next save heals it."""
    at = 0
    while True:
        files = MemFiles()
        durable.make_dirs(files, "/state")
        async with opened(files) as records:
            await records.save(replace(FULL, name="old"))
        wire = Tripwire(None, errno.EIO, late)
        saved = False
        async with opened(WatchedFiles(wire, files)) as records:
            wire.at = len(wire.names) + at  # from the save on
            try:
                await records.save(replace(FULL, name="new"), NewJob(JobKind.MARK, "new", "ann"))
                saved = True
            except BackstayError:
                pass
            wire.at = None
            if not wire.tripped:
                break
            if not saved:
                assert await records.jobs() == []
                await records.save(replace(FULL, name="new"), NewJob(JobKind.MARK, "new", "ann"))
        async with opened(files) as records:
            assert {"old", "new"} <= {record.name for record in records.machines()}
            (job,) = await records.jobs()
            assert job.machine == "new"
        at += 1
    assert at > 4


async def test_saves_at_the_same_time_share_a_write(files: MemFiles) -> None:
    wire = Tripwire()
    async with opened(WatchedFiles(wire, files)) as records:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(records.save, MachineRecord(f"m{number}"))
        assert wire.names.count("rename") < 10
    async with opened(files) as records:
        assert len(records.machines()) == 500


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machines": [{"name": "x"}]}'])
async def test_a_file_that_is_none(files: MemFiles, text: str) -> None:
    files.put(f"/state/{filerecords.FILE}", text.encode())
    with pytest.raises(StateDamaged) as raised:
        await FileRecords(machine(files), "/state").load()
    assert "move it away" in raised.value.hint
