"""Fail over, change the point, commit, cancel, test, clean up, and where a machine stands (R14).

Each operation looks, says what is at stake, asks, and puts one record; only then follow fence and
branch. So a crash after any single store operation leaves the record, which whoever gives the
command again finishes, or nothing. Given again by the same host, a command that was done says so.

Errors: ``IllegalOperation`` names the state and what is allowed in it; ``WrongKey`` for a key that
is not the operator's; ``BrokenChain`` where the records do not say for sure where things stand;
``NotFound``, ``Damage`` and store errors from choosing a point.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from pipeline.control.model import Operation
from pipeline.failover.ground import Ground, stand_on
from pipeline.failover.job import DONE, Job
from pipeline.failover.model import Approve, Chosen, Done, Standing, Wanted, Who, accept
from pipeline.failover.points import as_recorded, check_drained, pick, recorded
from pipeline.recovery import Access
from stages.errors import UNREADABLE, IllegalOperation
from stages.vault.failover_state import Phase, refusal
from stages.vault.failovers import Event

_BRANCH_ID = 16
Around = Callable[[Ground], AbstractAsyncContextManager[None]]
_FINISHES = "it was begun before and not finished: this finishes it, on the point it was opened on"


async def state(access: Access, machine: str) -> Standing:
    """Where a machine stands. Any recipient's key will do."""
    async with stand_on(access, machine) as ground:
        return await ground.standing()


async def open_failover(
    access: Access,
    machine: str,
    wanted: Wanted,
    who: Who,
    *,
    planned: bool,
    drained: bool = False,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """Fail a machine over to a point: from here on production is on the replica.

    ``planned`` takes the newest point and wants the source drained: the vault has to show it, or
    the caller vouches for it with ``drained``.
    """
    operation = Operation.PLANNED_FAILOVER if planned else Operation.UNPLANNED_FAILOVER
    async with stand_on(access, machine) as ground:
        ground.check_operator()
        job = Job(ground, operation, who, approve, rehearse)
        if ground.state.phase is Phase.OPEN:
            return await _opened_before(job, wanted)
        job.check_allowed()
        chosen = await pick(ground.group, ground.machine, wanted)
        if planned and not drained:
            check_drained(ground.machine, ground.group, chosen)
        if job.ask(chosen):
            await _record_branch(job, chosen, planned=planned, note=note)
        return job.done(await _arrived_since(job))


async def change_point(
    access: Access,
    machine: str,
    wanted: Wanted,
    who: Who,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """Take another point for the open failover: another branch, another overlay."""
    async with stand_on(access, machine) as ground:
        ground.check_operator()
        job = Job(ground, Operation.CHANGE_POINT, who, approve, rehearse)
        job.check_allowed()
        ground.check_sure()
        if ground.state.planned:
            raise IllegalOperation(
                "a planned failover takes the point at which the source was drained",
                operation="failover change-point",
                subject=ground.machine,
                hint="allowed now: failover commit, failover cancel; after a cancel an unplanned "
                "failover takes any point",
            )
        chosen = await pick(ground.group, ground.machine, wanted)
        point = ground.state.point
        if point is not None and point.seq == chosen.point.seq:
            job.again = True
            if job.ask(chosen, DONE):
                await ground.finish()
        elif job.ask(chosen):
            await _record_branch(job, chosen, planned=False, note=note)
        return job.done()


async def test(
    access: Access,
    machine: str,
    wanted: Wanted,
    who: Who,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """Open a test: a point to be served in isolation, while replication goes on."""
    async with stand_on(access, machine) as ground:
        job = Job(ground, Operation.TEST_FAILOVER, who, approve, rehearse)
        if job.begin():
            chosen = await pick(ground.group, ground.machine, wanted)
            if job.ask(chosen):
                await ground.record(
                    Event.TEST_OPENED, who, point=as_recorded(chosen.point), note=note
                )
        return job.done()


async def conclude(
    access: Access,
    machine: str,
    who: Who,
    *,
    operation: Operation,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
    around: Around = lambda _: nullcontext(),
) -> Done:
    """One more event of what is open, a failover or a test: no point is to be chosen.

    ``COMMIT_FAILOVER`` makes it final; what of it was not finished is finished first.
    ``CANCEL_FAILOVER`` takes it back: the source's daemon protects the machine again at its next
    start. ``REPROTECT`` notes that the branch of a committed one has a writer: from here on its
    group is a machine of its own, with failovers of its own. ``MIGRATE`` notes that nothing will
    come back to the source. ``CLEANUP_TEST`` ends a test; ``note`` says how it went, and only then
    has it passed. ``around``: entered once it is agreed to, left when it is recorded.
    """
    async with stand_on(access, machine) as ground:
        job = Job(ground, operation, who, approve, rehearse)
        if job.begin():
            test = ground.state.test if operation is Operation.CLEANUP_TEST else None
            chosen = None if operation is Operation.CLEANUP_TEST else await _recorded(ground)
            if job.ask(chosen):
                if operation is Operation.COMMIT_FAILOVER:
                    await ground.finish()
                async with around(ground):
                    if test is not None:
                        await ground.record(job.event, who, point=test.point, note=note)
                    else:
                        await job.record(note=note)
        return job.done()


async def _opened_before(job: Job, wanted: Wanted) -> Done:
    """The command is given again, or somebody was faster."""
    ground = job.ground
    chosen = await _recorded(ground)
    if not await ground.is_whole():
        job.again = True
        if job.ask(chosen, _FINISHES):
            await ground.finish()
        return job.done(await _arrived_since(job))
    planned = job.operation is Operation.PLANNED_FAILOVER
    point = ground.state.point
    if ground.is_own_last(Event.OPENED, job.who) and ground.state.planned == planned:
        again = await pick(ground.group, ground.machine, wanted)
        if point is not None and point.seq == again.point.seq:
            job.again = True
            job.ask(chosen, DONE)
            return job.done()
    raise refusal(ground.state, Event.OPENED, ground.machine)


async def _record_branch(job: Job, chosen: Chosen, *, planned: bool, note: str) -> None:
    """The record first, then what it promises."""
    ground = job.ground
    await ground.record(
        job.event,
        job.who,
        point=as_recorded(chosen.point),
        branch=ground.ports.entropy.token(_BRANCH_ID),
        planned=planned,
        note=note,
    )
    await ground.finish()


async def _recorded(ground: Ground) -> Chosen | None:
    """The open failover's point, or None where it cannot be read: that stops nobody."""
    point = ground.state.point
    try:
        return await recorded(ground.group, point) if point is not None else None
    except UNREADABLE as error:
        ground.vault.problems.append(str(error))
        return None


async def _arrived_since(job: Job) -> str:
    """A source that was alive may have committed between the choice and the fence."""
    arrived = await job.ground.refresh()
    if not arrived:
        return ""
    return (
        f"{arrived} commits of the source arrived before it was fenced; "
        "'failover change-point --point latest' takes them"
    )
