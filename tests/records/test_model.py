"""Random changes, refused ones among them, against a model in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from pipeline.control.jobs import JobEvent, allowed_actions, follows
from pipeline.control.model import JobKind, JobState, State
from pipeline.control.views import TaskView
from pipeline.records.engine import parse_address
from pipeline.records.model import (
    NEW_JOB,
    Change,
    JobChange,
    MachineRecord,
    NewEvent,
    NewJob,
)
from pipeline.records.records import Records
from pipeline.records.schema import METADATA
from stages.errors import BackstayError, IllegalOperation, NotFound
from tests.records.postgres import Server
from tests.records.support import audit, opened

_NAMES = st.sampled_from(["web1", "db", "é"])
_TEXT = st.text(st.characters(codec="utf-8"), max_size=4)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _FLOATS | _TEXT
_JSON = st.dictionaries(_TEXT, _VALUES, max_size=3)
_PERCENT = st.none() | st.floats(0, 100)
_TASKS = st.lists(
    st.builds(TaskView, _NAMES, st.sampled_from(JobState), _PERCENT, st.just("now")), max_size=3
).map(tuple)
_MACHINES = st.builds(MachineRecord, _NAMES, st.sampled_from(State), extra=_JSON)
_NEW = st.builds(
    NewJob,
    st.sampled_from(JobKind),
    _NAMES,
    by=st.sampled_from(["anna", "bert"]),
    key=st.sampled_from(["", "", "k1", "k2"]),
    parameters=st.sampled_from([{}, {"a": 1}]),
    tasks=_TASKS,
    cancellable=st.booleans(),
)
_JOB = st.builds(
    JobChange,
    st.integers(1, 6),
    st.none() | st.sampled_from(JobEvent),
    percent=_PERCENT,
    bytes_done=st.none() | st.integers(0, 2**62),
    tasks=st.none() | _TASKS,
    note=st.none() | st.just("said"),
    result=st.none() | _JSON,
    cancellable=st.none() | st.booleans(),
)
_CHANGES = st.builds(
    Change,
    machines=st.lists(_MACHINES, max_size=2).map(tuple),
    forget=st.lists(_NAMES, max_size=1).map(tuple),
    new_job=st.none() | _NEW,
    jobs=st.lists(_JOB, max_size=1).map(tuple),
    events=st.lists(
        st.builds(NewEvent, st.just("job"), _NAMES, _NAMES, st.none() | st.just(NEW_JOB), _JSON),
        max_size=2,
    ).map(tuple),
    audit=st.lists(st.builds(audit, st.integers(0, 9)), max_size=2).map(tuple),
)


@dataclass
class _Job:
    new: NewJob
    state: JobState = JobState.NOT_STARTED
    percent: float | None = None
    done: int = 0
    tasks: tuple[TaskView, ...] = ()
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    cancellable: bool = True


@dataclass
class _Model:
    """What must be in the database, without its times."""

    machines: dict[str, MachineRecord] = field(default_factory=dict)
    jobs: dict[int, _Job] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    audit: int = 0

    def copy(self) -> _Model:
        jobs = {number: replace(job) for number, job in self.jobs.items()}
        return _Model(dict(self.machines), jobs, list(self.events), self.audit)

    def apply(self, change: Change, number: int) -> bool:
        """``number``: of a job that is made now. False: nothing was done, it was a repetition."""
        made = None
        if change.new_job is not None:
            new = change.new_job
            for job in self.jobs.values():
                if new.key and (job.new.by, job.new.key) == (new.by, new.key):
                    if replace(job.new, tasks=(), cancellable=True) != replace(
                        new, tasks=(), cancellable=True
                    ):
                        raise IllegalOperation("another")
                    return False
            made = number
            self.jobs[made] = _Job(new, tasks=new.tasks, cancellable=new.cancellable)
        for name in change.forget:
            self.machines.pop(name, None)
        self.machines |= {record.name: record for record in change.machines}
        for each in change.jobs:
            self._job(each)
        for event in change.events:
            self.events.append(replace(event, job=made if event.job == NEW_JOB else event.job))
        self.audit += len(change.audit)
        return True

    def _job(self, change: JobChange) -> None:
        if change.id not in self.jobs:
            raise NotFound("no")
        job = self.jobs[change.id]
        if change.event is not None:
            job.state = follows(job.state, change.event)
            if change.event is JobEvent.RESTART:
                job.percent, job.done = None, 0
                job.tasks = tuple(TaskView(t.name, JobState.NOT_STARTED) for t in job.tasks)
        job.percent = job.percent if change.percent is None else change.percent
        job.done = job.done if change.bytes_done is None else change.bytes_done
        job.tasks = job.tasks if change.tasks is None else change.tasks
        job.cancellable = job.cancellable if change.cancellable is None else change.cancellable
        job.notes += () if change.note is None else (change.note,)
        job.result = {**job.result, **(change.result or {})}


async def _compare(records: Records, model: _Model) -> None:
    machines = await records.machines()
    assert {n: replace(m, updated_us=0) for n, m in machines.items()} == model.machines
    jobs = {job.id: job for job in await records.jobs(limit=1000)}
    assert set(jobs) == set(model.jobs)
    for number, job in model.jobs.items():
        found = jobs[number]
        assert (found.state, found.kind, found.machine) == (
            job.state,
            job.new.kind,
            job.new.machine,
        )
        assert (found.percent, found.bytes_done) == (job.percent, job.done)
        assert (found.tasks, found.notes, found.result) == (job.tasks, job.notes, job.result)
        assert found.allowed == allowed_actions(job.state, job.cancellable)
    events = await records.events(limit=1000)
    shown = [NewEvent(e.kind, e.message, e.machine, e.job, e.fields) for e in events]
    assert shown == model.events
    verdict = await records.verify_audit()
    assert (verdict.checked, verdict.broken) == (model.audit, None)
    active = {job.id for job in await records.jobs(active=True, limit=1000)}
    assert active == {n for n, job in model.jobs.items() if not job.state.is_over}


def _meant(change: Change, model: _Model) -> Change:
    """Jobs by their place among those that are there: a refused change uses a number up in one
    database and not in the other."""
    numbers = sorted(model.jobs)
    return replace(
        change,
        jobs=tuple(
            replace(each, id=numbers[each.id - 1] if each.id <= len(numbers) else 10**6)
            for each in change.jobs
        ),
    )


async def _tell(address: str, changes: list[Change]) -> None:
    model = _Model()
    async with opened(address) as records:
        for each in changes:
            model = await _apply(records, model, _meant(each, model))
        await _compare(records, model)
    async with opened(address) as records:
        await _compare(records, model)


async def _apply(records: Records, model: _Model, change: Change) -> _Model:
    newest = max(model.jobs, default=0)
    expected = model.copy()
    try:
        fresh = expected.apply(change, newest + 1)
    except BackstayError as wrong:
        with pytest.raises(type(wrong)):
            await records.apply(change)
        return model
    applied = await records.apply(change)
    assert applied.repeated is not fresh
    if applied.new_job is not None and fresh:
        assert applied.new_job.id > newest
        expected = model.copy()
        expected.apply(change, applied.new_job.id)
    return expected


@settings(max_examples=40, deadline=None)
@given(st.lists(_CHANGES, max_size=12))
async def test_sqlite(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as place:
        await _tell(str(Path(place) / "control.db"), changes)


@pytest.fixture(scope="module")
def emptied(server: Server) -> str:
    return server.fresh()


@settings(max_examples=15, deadline=None)
@given(st.lists(_CHANGES, max_size=12))
async def test_postgresql(emptied: str, changes: list[Change]) -> None:
    await trio.to_thread.run_sync(_empty, emptied)
    await _tell(emptied, changes)


def _empty(address: str) -> None:
    engine = create_engine(parse_address(address))
    METADATA.drop_all(engine)
    engine.dispose()
