"""What the vault's failover records make of a source's lifecycle: pure.

A failover is decided with the operator's key, on any host. The daemon of the source only follows:
it reads what the vault says and takes the steps that lead there.
"""

from __future__ import annotations

from pipeline.control.model import Direction, State
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import Situation, is_legal, step
from stages.vault.failover_state import Phase

_MOST = 6  # steps from one place to another
_H = Happening
_WAYS: dict[Phase, tuple[Happening, ...]] = {
    Phase.OPEN: (_H.FAILOVER_BEGUN, _H.FAILED_OVER),
    Phase.COMMITTED: (_H.FAILOVER_BEGUN, _H.FAILED_OVER, _H.COMMITTED),
    Phase.REPROTECTED: (_H.FAILOVER_BEGUN, _H.FAILED_OVER, _H.COMMITTED, _H.REPROTECTED),
    Phase.CLOSED: (_H.FAILOVER_BEGUN, _H.FAILED_OVER, _H.MIGRATED),
}
_THERE: dict[Phase, tuple[State, ...]] = {
    Phase.OPEN: (State.COMMIT_PENDING,),
    Phase.COMMITTED: (State.COMMITTED, State.REPROTECTING),
    Phase.REPROTECTED: (),  # replicating in the reverse direction
    Phase.CLOSED: (State.MIGRATED,),
}


def toward(now: Situation, phase: Phase, *, moved: bool) -> tuple[Happening, ...]:
    """The happenings that lead from ``now`` to where the vault says that the machine is. ``moved``:
    that is said of another group than the one that was failed over, because this side was given
    the branch to go on with.

    Empty where it is there, or where nothing leads there: a machine that is not protected, or one
    that a job of this daemon is moving.
    """
    if not phase.is_over:
        return _home(now, moved=moved)
    taken: list[Happening] = []
    if now.direction is Direction.REVERSE and phase in (Phase.OPEN, Phase.COMMITTED):
        taken += _home(
            now, moved=moved
        )  # it came home, and was failed over anew: nobody was here to see it
        if not taken:
            return ()
        now = step(now, taken[0]).then
    while not _is_there(now, phase) and len(taken) < _MOST:
        ways = [one for one in reversed(_WAYS[phase]) if is_legal(now, one)]
        if not ways:
            break
        now = step(now, ways[0]).then
        taken.append(ways[0])
    return tuple(taken)


def _home(now: Situation, *, moved: bool) -> tuple[Happening, ...]:
    """No failover stands in the vault: it was cancelled, or production came home. What was
    committed is not undone by records that are gone: only the branch leads on from there."""
    event = Happening.FAILED_BACK
    if now.direction is Direction.REVERSE:
        return (event,) if moved and is_legal(now, event) else ()
    if now.state is State.COMMITTED:  # it was failed over to where it was
        return (Happening.REPROTECTED, event) if moved else ()
    if now.state not in (State.FAILING_OVER, State.COMMIT_PENDING):
        return ()  # a prepared one was not recorded yet
    return (Happening.FAILOVER_CANCELLED,)


def _is_there(now: Situation, phase: Phase) -> bool:
    if phase is Phase.REPROTECTED:
        return now.direction is Direction.REVERSE and now.state is State.REPLICATING
    return now.state in _THERE[phase]
