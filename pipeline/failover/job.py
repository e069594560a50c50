"""One operation on its way: checked, asked, recorded, told."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.control.model import Operation, Stake
from pipeline.failover.ground import Ground
from pipeline.failover.model import Approve, Chosen, Done, Who
from pipeline.failover.stakes import stake
from stages.vault.failover_state import FailoverState, refusal
from stages.vault.failovers import Event

DONE = "this host has done it already: nothing is done again"
_EVENTS: Mapping[Operation, Event] = {
    Operation.PLANNED_FAILOVER: Event.OPENED,
    Operation.UNPLANNED_FAILOVER: Event.OPENED,
    Operation.CHANGE_POINT: Event.CHANGED,
    Operation.COMMIT_FAILOVER: Event.COMMITTED,
    Operation.CANCEL_FAILOVER: Event.CANCELLED,
    Operation.TEST_FAILOVER: Event.TEST_OPENED,
    Operation.CLEANUP_TEST: Event.TEST_CLEANED,
    Operation.REPROTECT: Event.REPROTECTED,
    Operation.MIGRATE: Event.CLOSED,
}


class Job:
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
            self._notes = (DONE,)
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
