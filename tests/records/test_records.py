"""The control database keeps what it is told, all of a change or nothing, on both databases."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pipeline.control.jobs import JobEvent
from pipeline.control.model import Direction, JobAction, JobKind, JobState, Problem, State
from pipeline.control.model import TestFailover as Trial
from pipeline.control.views import EventView, TaskView
from pipeline.records.model import (
    NEW_JOB,
    Change,
    JobChange,
    Limits,
    MachineRecord,
    NewEvent,
    NewJob,
)
from pipeline.records.records import FollowerTooSlow, Records
from stages.errors import IllegalOperation, NotFound, StateError
from stages.system import this_machine
from tests.records.support import DAY_US, audit, machine, new_job, opened, stepped


async def test_machines_are_kept(address: str) -> None:
    first = machine("web1")
    second = MachineRecord("db", State.CRITICAL, Direction.REVERSE, Trial.RUNNING)
    async with opened(address) as records:
        await records.apply(Change(machines=(first, second)))
        await records.apply(Change(machines=(replace(second, state=State.SUSPENDED),)))
    async with opened(address) as records:
        found = await records.machines()
        assert list(found) == ["db", "web1"]
        assert found["web1"] == replace(first, updated_us=found["web1"].updated_us)
        assert found["db"].state is State.SUSPENDED
        assert (found["db"].direction, found["db"].test) == (second.direction, second.test)
        assert found["db"].updated_us > found["web1"].updated_us > 0
        await records.apply(Change(forget=("db", "nobody")))
        assert list(await records.machines()) == ["web1"]


async def test_a_job_from_begin_to_end(address: str) -> None:
    tasks = (TaskView("scan", JobState.NOT_STARTED), TaskView("ship", JobState.NOT_STARTED))
    new = NewJob(JobKind.RESYNCHRONIZE, "web1", "all of it", "anna", "k1", {"at": [1, "é"]}, tasks)
    async with opened(address) as records:
        made = (await records.apply(Change(new_job=new))).new_job
        assert made is not None
        assert (made.state, made.allowed) == (JobState.NOT_STARTED, (JobAction.CANCEL,))
        assert (made.tasks, made.by, made.description) == (tasks, "anna", "all of it")
        assert made.started_us is None
        scanned = (replace(tasks[0], state=JobState.SUCCEEDED, percent=100.0), tasks[1])
        change = JobChange(
            made.id,
            JobEvent.START,
            percent=12.5,
            bytes_done=1 << 40,
            bytes_total=1 << 43,
            tasks=scanned,
            note="begun",
            result={"a": 1},
        )
        (begun,) = (await records.apply(Change(jobs=(change,)))).jobs
        assert (begun.state, begun.percent, begun.tasks) == (JobState.IN_PROGRESS, 12.5, scanned)
        assert (begun.bytes_done, begun.bytes_total) == (1 << 40, 1 << 43)
        assert begun.started_us is not None
        ended = JobChange(made.id, JobEvent.SUCCEED, note="done", result={"b": [2]})
        (over,) = (await records.apply(Change(jobs=(ended,)))).jobs
        assert (over.state, over.allowed) == (JobState.SUCCEEDED, ())
        assert (over.notes, over.result) == (("begun", "done"), {"a": 1, "b": [2]})
        assert over.ended_us is not None
        assert over.ended_us > begun.started_us
        assert await records.job(made.id) == over
        stored = await records.stored(made.id)
        assert (stored.parameters, stored.cancellable) == ({"at": [1, "é"]}, True)
        assert over.key == "k1"


async def test_a_failed_job_begun_again_is_the_same_job(address: str) -> None:
    problem = Problem("StoreDenied", "no", "look", False, 4)
    async with opened(address) as records:
        made = await new_job(records, "web1", JobEvent.START)
        task = TaskView("scan", JobState.FAILED, 4.0, "no")
        failed = JobChange(made.id, JobEvent.FAIL, problem=problem, tasks=(task,), percent=4.0)
        (over,) = (await records.apply(Change(jobs=(failed,)))).jobs
        assert (over.problem, over.allowed) == (problem, (JobAction.RESTART,))
        restart = JobChange(made.id, JobEvent.RESTART, note="again")
        (again,) = (await records.apply(Change(jobs=(restart,)))).jobs
        assert (again.id, again.state, again.problem) == (made.id, JobState.NOT_STARTED, None)
        assert (again.started_us, again.ended_us, again.percent) == (None, None, None)
        assert again.tasks == (TaskView("scan", JobState.NOT_STARTED),)


async def test_one_change_is_one_transaction(address: str) -> None:
    async with opened(address) as records:
        made = await new_job(records)
        change = Change(
            machines=(machine("other"),),
            new_job=NewJob(JobKind.MARK, "web1"),
            jobs=(JobChange(made.id, JobEvent.SUCCEED),),  # it has not begun
            events=(NewEvent("job", "never", "web1", NEW_JOB),),
            audit=(audit(),),
        )
        with pytest.raises(IllegalOperation, match="not started cannot succeed"):
            await records.apply(change)
        with pytest.raises(NotFound):
            await records.apply(replace(change, jobs=(JobChange(99, JobEvent.START),)))
        assert await records.machines() == {}
        assert [job.id for job in await records.jobs()] == [made.id]
        assert list(await records.events()) == []
        assert list(await records.audit()) == []
        applied = await records.apply(replace(change, jobs=()))
        assert applied.new_job is not None
        assert applied.events[0].job == applied.new_job.id
        assert applied.audit == (1,)
        assert list(await records.events()) == list(applied.events)


async def test_a_request_that_is_repeated_begins_one_job(address: str) -> None:
    new = NewJob(JobKind.MARK, "web1", by="anna", key="k", parameters={"a": 1})
    event = NewEvent("job", "begun", "web1", NEW_JOB)
    async with opened(address) as records:
        first = await records.apply(Change(new_job=new, events=(event,)))
        again = await records.apply(Change(new_job=new, events=(event,)))
        assert (first.repeated, again.repeated) == (False, True)
        assert again.new_job == first.new_job
        assert len(await records.events()) == 1
        with pytest.raises(IllegalOperation, match="belongs to job #1 already"):
            await records.apply(Change(new_job=replace(new, parameters={"a": 2})))
        other = await records.apply(Change(new_job=replace(new, by="bert")))
        assert not other.repeated
        found = await records.job_of("bert", "k")
        assert found is not None
        assert found.view == other.new_job
        assert await records.job_of("bert", "j") is None


async def test_pages(address: str) -> None:
    async with opened(address, Limits(page=7)) as records:
        for number in range(10):
            await new_job(records, f"web{number % 2}")
            events = tuple(NewEvent("job", f"{number}", f"web{number % 2}") for _ in range(2))
            await records.apply(Change(events=events, audit=(audit(number),)))
        assert [job.id for job in await records.jobs(limit=3)] == [10, 9, 8]
        assert [job.id for job in await records.jobs(before=8, limit=2)] == [7, 6]
        assert [job.id for job in await records.jobs(machine="web0", limit=99)] == [9, 7, 5, 3, 1]
        assert len(await records.jobs(limit=1000)) == 7
        page = await records.events(after=0, limit=1000)
        assert [event.id for event in page] == list(range(1, 8))
        page = await records.events(after=17, machine="web1")
        assert [(event.id, event.machine) for event in page] == [(19, "web1"), (20, "web1")]
        assert [entry.seq for entry in await records.audit(before=4, limit=2)] == [3, 2]
        await records.apply(Change(jobs=(JobChange(3, JobEvent.CANCEL),)))
        assert 3 not in [job.id for job in await records.jobs(active=True, before=5)]


async def test_what_the_last_daemon_left_under_way_is_found(address: str) -> None:
    async with opened(address) as records:
        waits = await new_job(records)
        runs = await new_job(records, "db", JobEvent.START)
        await new_job(records, "db", JobEvent.START, JobEvent.SUCCEED)
        await new_job(records, "db", JobEvent.START, JobEvent.WAIT)
    async with opened(address) as records:
        found = await records.interrupted()
        assert [stored.view for stored in found] == [waits, runs]


async def test_texts_are_bounded_and_clean(address: str) -> None:
    async with opened(address, Limits(text=100)) as records:
        nasty = "\x00a\ud800b" + "é" * 200
        new = NewJob(JobKind.MARK, "web1", nasty)
        applied = await records.apply(
            Change(
                new_job=new, events=(NewEvent("job", nasty),), audit=(replace(audit(), who=nasty),)
            )
        )
        assert applied.new_job is not None
        for text in (applied.new_job.description, applied.events[0].message):
            assert text.startswith("\ufffda?b")
            assert text.endswith("…")
            assert len(text.encode()) <= 100
        assert (await records.verify_audit()).broken is None
        for bad in ({"a": "x" * 200}, {"a": object()}, {"a": float("nan")}, {"a": "\ud800"}):
            with pytest.raises(StateError):
                await records.apply(Change(events=(NewEvent("job", "m", fields=bad),)))
        control = await records.apply(Change(events=(NewEvent("job", "m", fields={"a": "\x00"}),)))
        assert (await records.events(after=1)) == list(control.events)


async def test_what_is_old_or_too_much_goes(address: str) -> None:
    ports, clock = stepped()
    limits = Limits(events=5, events_days=10, jobs=3, jobs_days=10, audit=4)
    records = await Records.open(ports, address, limits)
    open_job = await new_job(records)
    for number in range(8):
        await new_job(records, "web1", JobEvent.START, JobEvent.SUCCEED)
        await records.apply(Change(events=(NewEvent("job", f"{number}"),), audit=(audit(number),)))
    assert await records.retain() == 3 + 5 + 4
    assert [event.id for event in await records.events()] == [4, 5, 6, 7, 8]
    assert [job.id for job in await records.jobs()] == [9, 8, 7, open_job.id]
    assert [entry.seq for entry in await records.audit()] == [8, 7, 6, 5]
    verdict = await records.verify_audit()
    assert (verdict.checked, verdict.last.seq, verdict.broken) == (4, 8, None)
    clock.now_us += 11 * DAY_US
    assert await records.retain() == 4 + 3
    assert [event.id for event in await records.events()] == [8]  # its number is remembered
    assert [job.id for job in await records.jobs()] == [open_job.id]
    await records.close()
    records = await Records.open(ports, address, limits)
    (event,) = (await records.apply(Change(events=(NewEvent("job", "next"),)))).events
    assert event.id == 9
    assert (await new_job(records)).id == 10
    await records.close()


async def _first(records: Records, count: int, after: int, into: list[EventView]) -> None:
    async with aclosing(records.follow(after=after)) as events:
        async for event in events:
            into.append(event)
            if len(into) == count:
                return


async def test_followers_hear_what_was_and_what_comes(address: str) -> None:
    heard: list[EventView] = []
    late: list[EventView] = []
    async with opened(address) as records:
        for number in range(3):
            await records.apply(Change(events=(NewEvent("job", f"{number}"),)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_first, records, 6, 0, heard)
            nursery.start_soon(_first, records, 4, 2, late)
            with trio.fail_after(30):
                while len(heard) < 3:  # noqa: ASYNC110 - the follower has no event to wait for
                    await trio.sleep(0.001)
            for number in range(3, 6):
                await records.apply(Change(events=(NewEvent("job", f"{number}"),)))
        assert [event.message for event in heard] == list("012345")
        assert [event.message for event in late] == list("2345")


async def test_a_follower_that_is_too_slow_is_cut_off(address: str) -> None:
    async with opened(address, Limits(follower_lag=10)) as records:
        events = records.follow()
        await records.apply(Change(events=(NewEvent("job", "0"),)))
        assert (await anext(events)).message == "0"
        for _ in range(12):
            await records.apply(Change(events=(NewEvent("job", "x"),)))
        with pytest.raises(FollowerTooSlow):
            for _ in range(3):
                await anext(events)


async def test_one_that_reads_what_is_old_is_not_too_slow(address: str) -> None:
    async with opened(address) as records:
        await records.apply(Change(events=tuple(NewEvent("job", f"{n}") for n in range(50))))
    async with opened(address, Limits(follower_lag=10)) as records:
        heard: list[EventView] = []
        await _first(records, 50, 0, heard)
        assert [event.message for event in heard] == [f"{n}" for n in range(50)]


async def test_many_at_once(address: str) -> None:
    """Writers queue, readers see whole changes."""
    async with opened(address) as records:

        async def write(number: int) -> None:
            for _ in range(5):
                change = Change(
                    machines=(machine(f"m{number}"),),
                    events=(NewEvent("state", "a"), NewEvent("state", "b")),
                    audit=(audit(number),),
                )
                await records.apply(change)

        async def read() -> None:
            for _ in range(20):
                assert len(await records.events()) % 2 == 0

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(write, number)
                nursery.start_soon(read)
        found = await records.events()
        assert [event.id for event in found] == sorted(event.id for event in found)
        assert (len(found), (await records.verify_audit()).checked) == (60, 30)


async def test_a_change_is_not_cut_in_two_by_cancelling(address: str) -> None:
    async with opened(address) as records:
        for _ in range(10):
            with trio.move_on_after(0.0005):
                await records.apply(Change(events=(NewEvent("state", "a"),), audit=(audit(),)))
        assert len(await records.events()) == len(await records.audit())
        assert (await records.verify_audit()).broken is None


async def test_it_is_closed_after_what_is_being_written(address: str) -> None:
    records = await Records.open(this_machine(), address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(records.apply, Change(audit=(audit(),)))
        for _ in range(6):
            nursery.start_soon(records.machines)
        await wait_all_tasks_blocked()
        await records.close()
    await records.close()
    for call in (records.machines(), records.apply(Change()), records.retain()):
        with pytest.raises(StateError, match="closed"):
            await call
    async with opened(address) as again:
        assert (await again.verify_audit()).checked == 1
