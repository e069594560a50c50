"""Changes that come together share a transaction, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pipeline.control.model import JobKind
from pipeline.records.grouped import MOST, Grouped, Outcome
from pipeline.records.model import Applied, Change, JobChange, MachineRecord, NewJob
from stages.errors import BackstayError, NotFound, StateError
from tests.records.support import audit, machine, opened


@dataclass
class Slow:
    """A writer that waits for ``go``; remembers what it was given, and how it came."""

    groups: list[list[str]] = field(default_factory=list)
    go: trio.Event = field(default_factory=trio.Event)
    error: BackstayError | None = None
    busy: bool = False

    async def write_all(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        assert not self.busy, "two at a time"
        self.busy = True
        await self.go.wait()
        self.busy = False
        if self.error is not None:
            raise self.error
        self.groups.append([change.forget[0] for change in changes])
        return [_outcome(change.forget[0]) for change in changes]


def _outcome(name: str) -> Outcome:
    return NotFound(name) if name.startswith("bad") else Applied(None, (), (), (len(name),))


async def test_those_who_wait_go_together_and_each_hears_of_its_own() -> None:
    slow = Slow()
    grouped, heard = Grouped(slow.write_all), dict[str, object]()

    async def one(name: str) -> None:
        try:
            heard[name] = (await grouped.write(Change(forget=(name,)))).audit
        except NotFound as error:
            heard[name] = str(error)

    names = [f"{'bad' if number % 7 == 0 else 'm'}{number}" for number in range(MOST + 20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "first")
        await wait_all_tasks_blocked()
        for name in names:
            nursery.start_soon(one, name)
        await wait_all_tasks_blocked()
        slow.go.set()
    assert slow.groups[0] == ["first"]
    assert [len(group) for group in slow.groups] == [1, MOST, 20]
    assert {name for group in slow.groups for name in group} == {"first", *names}
    assert heard["m1"] == (2,)
    assert "bad0" in str(heard["bad0"])
    assert len(heard) == len(names) + 1
    assert (await grouped.write(Change(forget=("alone",)))).audit == (5,)


async def test_cancelled_before_its_turn_it_is_not_written_and_after_that_it_is() -> None:
    slow = Slow()
    grouped, ended = Grouped(slow.write_all), list[str]()
    scopes = {name: trio.CancelScope() for name in ("writing", "waits", "goes")}

    async def one(name: str) -> None:
        with scopes[name]:
            await grouped.write(Change(forget=(name,)))
            ended.append(name)

    async with trio.open_nursery() as nursery:
        for name in scopes:
            nursery.start_soon(one, name)
            await wait_all_tasks_blocked()
        scopes["writing"].cancel()
        scopes["waits"].cancel()
        await wait_all_tasks_blocked()
        assert ended == []
        slow.go.set()
    assert slow.groups == [["writing"], ["goes"]]
    assert sorted(ended) == ["goes", "writing"]


async def test_who_leads_is_cancelled_and_the_others_go_on() -> None:
    slow = Slow()
    slow.go.set()
    grouped = Grouped(slow.write_all)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leads() -> None:
            with scope:
                scope.cancel()
                await grouped.write(Change(forget=("leads",)))

        nursery.start_soon(leads)
        for name in ("a", "b"):
            nursery.start_soon(grouped.write, Change(forget=(name,)))
    assert sorted(name for group in slow.groups for name in group) == ["a", "b"]


async def test_a_transaction_that_fails_fails_for_all_in_it_and_no_other() -> None:
    slow = Slow(error=StateError("full"))
    grouped, failed = Grouped(slow.write_all), list[str]()

    async def one(name: str) -> None:
        try:
            await grouped.write(Change(forget=(name,)))
        except StateError:
            failed.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(one, name)
        await wait_all_tasks_blocked()
        slow.go.set()
    assert sorted(failed) == ["a", "b", "c"]
    slow.error = None
    await grouped.write(Change(forget=("d",)))
    assert slow.groups == [["d"]]


async def test_in_the_database_one_wrong_change_undoes_itself_only(address: str) -> None:
    async with opened(address) as records:
        wrong: list[str] = []

        async def bad(number: int) -> None:
            name = f"half{number}"
            with pytest.raises(NotFound):
                await records.apply(
                    Change(machines=(machine(name),), jobs=(JobChange(10_000 + number),))
                )
            wrong.append(name)

        async def good(number: int) -> None:
            new = NewJob(JobKind.RESYNCHRONIZE, f"m{number}")
            made = await records.apply(Change(machines=(machine(f"m{number}"),), new_job=new))
            assert made.new_job is not None
            assert made.new_job.machine == f"m{number}"
            await records.audited(audit(number))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(good, number)
                nursery.start_soon(bad, number)
        found = await records.machines()
        assert sorted(found) == sorted(f"m{number}" for number in range(20))
        assert all(isinstance(one, MachineRecord) for one in found.values())
        assert len(wrong) == 20
        assert len(await records.jobs(limit=100)) == 20
        assert (await records.verify_audit()).checked == 20
