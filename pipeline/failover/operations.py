"""Fail over, change the point, commit, cancel, test, clean up, and where a machine stands (R14).

Each operation looks, says what is at stake, asks, and puts one record; only then follow fence and
branch. So a crash after any single store operation leaves the record, which whoever gives the
command again finishes, or nothing. Given again by the same host, a command that was done says so.

Errors: ``IllegalOperation`` names the state and what is allowed in it; ``WrongKey`` for a key that
is not the operator's; ``BrokenChain`` where the records do not say for sure where things stand;
``NotFound``, ``Damage`` and store errors from choosing a point.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.control.model import Operation, Stake
from pipeline.failover.ground import Ground, stand_on
from pipeline.failover.model import Approve, Chosen, Done, Standing, Wanted, Who, accept
from pipeline.failover.points import as_recorded, check_drained, pick, recorded
from pipeline.failover.stakes import stake
from pipeline.recovery import Access
from stages.errors import UNREADABLE, IllegalOperation
from stages.vault.failover_state import FailoverState, Phase, refusal
from stages.vault.failovers import Event

_BRANCH_ID = 16
_FINISHES = "it was begun before and not finished: this finishes it, on the point it was opened on"
_DONE = "this host has done it already: nothing is done again"
_EVENTS: Mapping[Operation, Event] = {
    Operation.PLANNED_FAILOVER: Event.OPENED,
    Operation.UNPLANNED_FAILOVER: Event.OPENED,
    Operation.CHANGE_POINT: Event.CHANGED,
    Operation.COMMIT_FAILOVER: Event.COMMITTED,
    Operation.CANCEL_FAILOVER: Event.CANCELLED,
    Operation.TEST_FAILOVER: Event.TEST_OPENED,
    Operation.CLEANUP_TEST: Event.TEST_CLEANED,
}


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
        job = _Job(ground, operation, who, approve, rehearse)
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
        job = _Job(ground, Operation.CHANGE_POINT, who, approve, rehearse)
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
            if job.ask(chosen, _DONE):
                await ground.finish()
        elif job.ask(chosen):
            await _record_branch(job, chosen, planned=False, note=note)
        return job.done()


async def commit(
    access: Access,
    machine: str,
    who: Who,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """Make the failover final. What of it was not finished is finished first."""
    async with stand_on(access, machine) as ground:
        job = _Job(ground, Operation.COMMIT_FAILOVER, who, approve, rehearse)
        if job.begin():
            chosen = await _recorded(ground)
            if job.ask(chosen):
                await ground.finish()
                await job.record(note=note)
        return job.done()


async def cancel(
    access: Access,
    machine: str,
    who: Who,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """Take the failover back: the source's daemon protects it again at its next start."""
    async with stand_on(access, machine) as ground:
        job = _Job(ground, Operation.CANCEL_FAILOVER, who, approve, rehearse)
        if job.begin():
            chosen = await _recorded(ground)
            if job.ask(chosen):
                await job.record(note=note)
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
        job = _Job(ground, Operation.TEST_FAILOVER, who, approve, rehearse)
        if job.begin():
            chosen = await pick(ground.group, ground.machine, wanted)
            if job.ask(chosen):
                await ground.record(
                    Event.TEST_OPENED, who, point=as_recorded(chosen.point), note=note
                )
        return job.done()


async def cleanup(
    access: Access,
    machine: str,
    who: Who,
    *,
    note: str = "",
    approve: Approve = accept,
    rehearse: bool = False,
) -> Done:
    """End a test; ``note`` says how it went. Only then has it passed."""
    async with stand_on(access, machine) as ground:
        job = _Job(ground, Operation.CLEANUP_TEST, who, approve, rehearse)
        if job.begin():
            test = ground.state.test
            if job.ask(None):
                await ground.record(
                    Event.TEST_CLEANED, who, point=test.point if test else None, note=note
                )
        return job.done()


class _Job:
    """One operation on its way: asked, recorded, told."""

    def __init__(
        self, ground: Ground, operation: Operation, who: Who, approve: Approve, rehearse: bool
    ):
        self.ground = ground
        self.operation = operation
        self.who = who
        self.before: FailoverState = ground.state
        self.again = False
        self._approve = approve
        self._rehearse = rehearse
        self._chosen: Chosen | None = None
        self._notes: tuple[str, ...] = ()

    @property
    def event(self) -> Event:
        """What the operation records."""
        return _EVENTS[self.operation]

    def begin(self) -> bool:
        """Check key, records and state; False if this host has done it already."""
        self.ground.check_operator()
        self.ground.check_sure()
        if self.ground.is_own_last(self.event, self.who):
            self.again = True
            self._notes = (_DONE,)
            return False
        self.check_allowed()
        return True

    def check_allowed(self) -> None:
        """Raise ``IllegalOperation`` unless the state allows it."""
        if not self.ground.state.allows(self.event):
            raise refusal(self.ground.state, self.event, self.ground.machine)

    def ask(self, chosen: Chosen | None, *notes: str) -> bool:
        """Say what is at stake; the caller may raise. False for a rehearsal."""
        self._chosen, self._notes = chosen, (*notes, *self._of_choice(chosen))
        if not self._rehearse:
            self._approve(self._stake())
        return not self._rehearse

    async def record(self, *, note: str) -> None:
        """The event, on point and branch of the failover that is open."""
        state = self.ground.state
        await self.ground.record(
            self.event,
            self.who,
            point=state.point,
            branch=state.branch,
            planned=state.planned,
            note=note,
        )

    def done(self, *notes: str) -> Done:
        """The result."""
        ground = self.ground
        return Done(
            self.operation,
            ground.machine,
            ground.group.scope.group,
            self.before,
            ground.state,
            self._stake(),
            self._chosen,
            tuple(dict.fromkeys((*self._notes, *filter(None, notes)))),
            self._rehearse,
            self.again,
        )

    def _of_choice(self, chosen: Chosen | None) -> tuple[str, ...]:
        return (*(chosen.notes if chosen else ()), *self.ground.notes())

    def _stake(self) -> Stake:
        ground = self.ground
        return stake(
            self.operation,
            ground.machine,
            self.before,
            self._chosen,
            ground.newest,
            ground.ports.clock.wall_us(),
            self._notes,
        )


async def _opened_before(job: _Job, wanted: Wanted) -> Done:
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
            job.ask(chosen, _DONE)
            return job.done()
    raise refusal(ground.state, Event.OPENED, ground.machine)


async def _record_branch(job: _Job, chosen: Chosen, *, planned: bool, note: str) -> None:
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


async def _arrived_since(job: _Job) -> str:
    """A source that was alive may have committed between the choice and the fence."""
    arrived = await job.ground.refresh()
    if not arrived:
        return ""
    return (
        f"{arrived} commits of the source arrived before it was fenced; "
        "'failover change-point --point latest' takes them"
    )
