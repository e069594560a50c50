"""What every ``Control`` must do, asked of it directly and over HTTP.

A test module gives a factory of ``Subject`` and runs each of ``CHECKS`` with one::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_it(check, tmp_path):
        async with my_subject(tmp_path) as subject:
            await check(subject)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from pydantic import TypeAdapter

from pipeline.api.guard import Audit
from pipeline.control.model import Caller, JobAction, Operation, Stake
from pipeline.control.service import Control
from pipeline.control.views import DaemonView, EventView, JobView, MachineView
from stages.errors import BackstayError, IllegalOperation, NotFound
from tests.api.serving import served

PATIENCE = 60.0
_ANNA = Caller("anna", "approver", "test", "")
_AUDITED = ("seq", "at_us", "who", "role", "address", "operation", "subject", "outcome")


@dataclass
class Subject:
    """A ``Control`` with a machine on which, at the beginning, ``long`` is allowed and begins a job
    that goes on until ``finish`` is called with its number; ``illegal`` is not allowed; ``forever``
    is allowed and cannot be undone (None: there is none). ``audit`` is what ``serve_api`` gets."""

    control: Control
    audit: Audit
    place: Path
    machine: str
    long: Operation
    illegal: Operation
    forever: Operation | None
    finish: Callable[[int], Awaitable[None]]
    parameters: Mapping[str, Any]


async def _begin(subject: Subject, caller: Caller = _ANNA) -> JobView:
    job = await subject.control.operate(subject.long, subject.machine, subject.parameters, caller)
    assert job is not None
    return job


async def _over(subject: Subject, number: int) -> JobView:
    await subject.finish(number)
    with trio.fail_after(PATIENCE):
        while not (job := await subject.control.job(number)).state.is_over:  # noqa: ASYNC110
            await trio.sleep(0.01)
    return job


async def views_are_whole_and_in_order(subject: Subject) -> None:
    control = subject.control
    daemon = control.daemon()
    machines = control.machines()
    names = [one.name for one in machines]
    assert subject.machine in names
    assert names == sorted(names)
    assert control.machine(subject.machine).name == subject.machine
    for kind, value in ((DaemonView, daemon), *((MachineView, one) for one in machines)):
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        assert adapter.validate_json(adapter.dump_json(value)) == value
    one = control.machine(subject.machine)
    assert subject.long in one.allowed
    assert subject.illegal not in one.allowed


async def what_is_not_there_is_not_found(subject: Subject) -> None:
    control = subject.control
    with pytest.raises(NotFound):
        control.machine("nobody")
    for call in (
        control.stake(subject.long, "nobody", {}),
        control.operate(subject.long, "nobody", {}, _ANNA),
        control.job(10**9),
        control.act(10**9, JobAction.CANCEL, "", _ANNA),
    ):
        with pytest.raises(NotFound):
            await call


async def a_stake_changes_nothing(subject: Subject) -> None:
    control = subject.control
    before = await _everything(subject)
    stake = await control.stake(subject.long, subject.machine, subject.parameters)
    assert (stake.operation, stake.machine) == (subject.long, subject.machine)
    assert stake.lines
    adapter: TypeAdapter[Stake] = TypeAdapter(Stake)
    assert adapter.dump_json(stake)
    if subject.forever is not None:
        assert (await control.stake(subject.forever, subject.machine, {})).irreversible
    with pytest.raises(IllegalOperation) as refused:
        await control.stake(subject.illegal, subject.machine, {})
    assert str(control.machine(subject.machine).state) in str(refused.value)
    assert await _everything(subject) == before


async def _everything(subject: Subject) -> Any:
    control = subject.control
    return (
        control.machine(subject.machine).state,
        list(await control.jobs()),
        list(await control.audit()),
    )


async def an_operation_is_a_job(subject: Subject) -> None:
    control = subject.control
    caller = Caller("anna", "approver", "test", "a-key")
    job = await _begin(subject, caller)
    assert (job.machine, job.by, job.key) == (subject.machine, "anna", "a-key")
    assert not job.state.is_over
    assert (await control.job(job.id)).id == job.id
    assert [each.id for each in await control.jobs(machine=subject.machine, active=True)] == [
        job.id
    ]
    assert control.machine(subject.machine).job == job.id
    with pytest.raises(IllegalOperation) as refused:
        await _begin(subject)
    assert refused.value.exit_code == 11
    over = await _over(subject, job.id)
    assert over.ended_us is not None
    assert over.ended_us >= over.created_us
    assert job.id not in [each.id for each in await control.jobs(active=True)]
    assert control.machine(subject.machine).job != job.id


async def an_action_that_is_not_allowed_says_what_is(subject: Subject) -> None:
    job = await _begin(subject)
    over = await _over(subject, job.id)
    for action in JobAction:
        if action not in over.allowed:
            with pytest.raises(IllegalOperation) as refused:
                await subject.control.act(job.id, action, "", _ANNA)
            assert over.state.value in str(refused.value)


async def jobs_come_in_pages(subject: Subject) -> None:
    control = subject.control
    job = await _begin(subject)
    await _over(subject, job.id)
    found = list(await control.jobs())
    ids = [each.id for each in found]
    assert ids == sorted(ids, reverse=True)
    assert [each.id for each in await control.jobs(limit=1)] == ids[:1]
    assert [each.id for each in await control.jobs(before=ids[0])] == ids[1:]
    assert await control.jobs(machine="nobody") == []


async def events_count_up_and_are_followed(subject: Subject) -> None:
    control = subject.control
    before = [each.id for each in await control.events(limit=1000)]
    heard: list[EventView] = []

    async def follow() -> None:
        events = cast(AsyncGenerator[EventView, None], control.follow(after=0))
        async with aclosing(events):
            async for event in events:
                heard.append(event)  # noqa: PERF401 - it is read meanwhile

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            job = await _begin(subject)
            await _over(subject, job.id)
            events = await control.events(limit=1000)
            while len(heard) < len(events):  # noqa: ASYNC110 - the follower has no event
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    ids = [each.id for each in events]
    assert ids == sorted(set(ids))
    assert len(ids) > len(before)
    assert [each.id for each in heard[: len(ids)]] == ids
    assert job.id in [each.job for each in events]
    some = await control.events(after=ids[0], limit=2)
    assert [each.id for each in some] == ids[1:3]
    assert await control.events(after=ids[-1] + 10**6) == []


async def all_that_is_asked_is_audited(subject: Subject) -> None:
    control = subject.control
    before = len(await control.audit(limit=1000))
    job = await _begin(subject)
    for refused in (
        control.operate(subject.illegal, subject.machine, {}, _ANNA),
        control.act(job.id, JobAction.RESTART, "", _ANNA),
    ):
        with pytest.raises(BackstayError):
            await refused
    entries = list(await control.audit(limit=1000))
    assert len(entries) == before + 3
    new = entries[: len(entries) - before][::-1]
    for entry in new:
        assert set(_AUDITED) <= set(entry)
        assert (entry["who"], entry["role"], entry["address"]) == ("anna", "approver", "test")
    assert new[0]["operation"] == subject.long
    assert not str(new[0]["outcome"]).startswith("refused")
    assert all(str(entry["outcome"]).startswith("refused") for entry in new[1:])
    for newer, older in pairwise(entries):
        assert (newer["seq"], newer["previous"]) == (older["seq"] + 1, older["digest"])
    page = await control.audit(before=entries[0]["seq"], limit=1)
    assert [entry["seq"] for entry in page] == [entries[1]["seq"]]
    await _over(subject, job.id)


async def it_is_served(subject: Subject) -> None:
    """The same over HTTP: a job, its repetition, a refusal, the events of it."""
    async with (
        served(subject.control, subject.audit, subject.place / "http") as serving,
        serving.client() as http,
    ):
        where = f"/v1/machines/{subject.machine}/operations"
        body, key = {"parameters": dict(subject.parameters)}, {"Idempotency-Key": "k"}
        asked = body | {"confirm": subject.machine}
        first = await http.post(f"{where}/{subject.long}", json=asked, headers=key)
        again = await http.post(f"{where}/{subject.long}", json=asked, headers=key)
        assert (first.status_code, again.status_code) == (202, 202), first.text
        number = first.json()["job"]["id"]
        assert again.json()["job"]["id"] == number
        refused = await http.post(f"{where}/{subject.long}", json=asked)
        assert (refused.status_code, refused.json()["exit_code"]) == (409, 11)
        for path in ("/v1/daemon", "/v1/machines", "/v1/health", "/v1/audit", "/v1/events"):
            assert (await http.get(path)).status_code == 200
        assert f'machine="{subject.machine}"' in (await http.get("/metrics")).text
        assert (await http.get("/readyz")).status_code == 200
    async with (  # a daemon that was started again knows the request too
        served(subject.control, subject.audit, subject.place / "http") as serving,
        serving.client() as http,
    ):
        again = await http.post(f"{where}/{subject.long}", json=asked, headers=key)
        assert again.json()["job"]["id"] == number
    await _over(subject, number)


CHECKS: tuple[Callable[[Subject], Awaitable[None]], ...] = (
    views_are_whole_and_in_order,
    what_is_not_there_is_not_found,
    a_stake_changes_nothing,
    an_operation_is_a_job,
    an_action_that_is_not_allowed_says_what_is,
    jobs_come_in_pages,
    events_count_up_and_are_followed,
    all_that_is_asked_is_audited,
    it_is_served,
)
