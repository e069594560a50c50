"""The transition table: (state, event, direction) to (next state, effects). Data, and no I/O.

Read a row as: in any of these states, the event leads to that state (None: the same) with these
effects. What is in no row is illegal. An operation that takes time starts a job and leaves the
state alone, or moves it where it truly is meanwhile; what the job reports moves it on. Test
failover has a table of its own, because it does not touch replication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.control.model import Direction, JobKind, Operation, State, TestFailover
from pipeline.lifecycle.events import Do, Effect, Event, Happening, Start


@dataclass(frozen=True, slots=True)
class Row:
    """``direction``: only in this one. ``turns``: the direction is the other one afterwards."""

    states: tuple[State, ...]
    event: Event
    then: State | None
    effects: tuple[Effect, ...] = ()
    direction: Direction | None = None
    turns: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a transition leads."""

    state: State
    effects: tuple[Effect, ...]
    turns: bool = False


_S, _O, _H, _J = State, Operation, Happening, JobKind
_RUNNING = (
    _S.INITIAL_REPLICATION,
    _S.FINALIZING,
    _S.REPLICATING,
    _S.WAITING_FOR_RESYNC,
    _S.RESYNCHRONIZING,
)
_FAILS_OVER = (
    _S.REPLICATING,
    _S.SUSPENDED,
    _S.CRITICAL,
    _S.WAITING_FOR_RESYNC,
    _S.RESYNCHRONIZING,
    _S.RESYNC_SUSPENDED,
)
_UNDONE = (_S.PREPARED, _S.FAILING_OVER, _S.COMMIT_PENDING)  # a failover that can be cancelled
_AGAIN = (Do.WAKE_CAPTURE, Do.START_DELIVERY)
_ANY = tuple(state for state in State if state not in (_S.DISABLED, _S.DISABLING))

_ENABLING = (
    Row((_S.DISABLED,), _O.PROTECT, _S.CHECKING, (Start(_J.ENABLE_PROTECTION),)),
    Row((_S.CHECKING,), _H.PREREQUISITES_PASSED, _S.READY),
    Row((_S.CHECKING,), _H.PREREQUISITES_FAILED, _S.DISABLED, (Do.REST_CAPTURE, Do.FORGET)),
    Row((_S.CHECKING,), _H.JOB_CANCELLED, _S.DISABLED, (Do.REST_CAPTURE, Do.FORGET)),
    Row((_S.READY,), _H.START_SCHEDULED, None, (Do.KEEP_SCHEDULE, Do.REST_CAPTURE)),
    Row(
        (_S.READY,),
        _O.START_REPLICATION,
        _S.INITIAL_REPLICATION,
        (*_AGAIN, Start(_J.INITIAL_REPLICATION)),
    ),
    Row(
        (_S.READY,),
        _H.START_DUE,
        _S.INITIAL_REPLICATION,
        (*_AGAIN, Start(_J.INITIAL_REPLICATION)),
    ),
    Row((_S.INITIAL_REPLICATION,), _H.JOB_CANCELLED, _S.READY, (Do.STOP_DELIVERY, Do.REST_CAPTURE)),
    Row(
        (_S.INITIAL_REPLICATION,),
        _H.SCAN_FINISHED,
        _S.FINALIZING,
        (Start(_J.FINALIZE_PROTECTION),),
    ),
    Row((_S.FINALIZING,), _H.FINALIZED, _S.REPLICATING),
    Row((_S.FINALIZING,), _H.JOB_FAILED, _S.CRITICAL, (Do.GIVE_UP,)),
)

_REPLICATION = (
    Row((_S.REPLICATING,), _O.SUSPEND, _S.SUSPENDED, (Do.STOP_DELIVERY,)),
    Row((_S.SUSPENDED,), _O.RESUME, _S.REPLICATING, (Do.START_DELIVERY,)),
    Row((_S.SUSPENDED,), _H.GAP_OPENED, _S.RESYNC_SUSPENDED, (Do.STOP_DELIVERY,)),
    Row((_S.REPLICATING,), _H.GAP_OPENED, _S.WAITING_FOR_RESYNC),
    Row((_S.RESYNCHRONIZING,), _H.GAP_OPENED, _S.WAITING_FOR_RESYNC),  # tracking again
    Row(
        (_S.WAITING_FOR_RESYNC,),
        _H.RESYNC_BEGUN,
        _S.RESYNCHRONIZING,
        (Start(_J.RESYNCHRONIZE),),
    ),
    Row(
        (_S.WAITING_FOR_RESYNC,),
        _O.RESYNC,
        _S.RESYNCHRONIZING,
        (Do.RELEASE_SCAN, Start(_J.RESYNCHRONIZE)),
    ),
    Row(
        (_S.CRITICAL,),
        _O.RESYNC,
        _S.RESYNCHRONIZING,
        (Do.COMPARE_ALL, Do.RELEASE_SCAN, Do.TRY_NOW, Start(_J.RESYNCHRONIZE)),
    ),
    Row((_S.WAITING_FOR_RESYNC, _S.RESYNCHRONIZING), _H.GAP_CLOSED, _S.REPLICATING),
    Row((_S.RESYNCHRONIZING,), _H.RESYNC_CANCELLED, _S.WAITING_FOR_RESYNC, (Do.HOLD_SCAN,)),
    Row((_S.RESYNCHRONIZING,), _O.SUSPEND, _S.RESYNC_SUSPENDED, (Do.STOP_DELIVERY,)),
    Row(
        (_S.RESYNC_SUSPENDED,),
        _O.RESUME,
        _S.RESYNCHRONIZING,
        (Do.RELEASE_SCAN, Do.START_DELIVERY, Start(_J.RESYNCHRONIZE)),
    ),
    Row((_S.REPLICATING,), _O.MARK, None, (Start(_J.MARK),)),
    Row((*_RUNNING, _S.CRITICAL), _O.RETRY, None, (Do.TRY_NOW,)),
    Row(_RUNNING, _H.RECOVERABLE_ERROR, None, (Do.CLIMB,)),
    Row(_RUNNING, _H.NON_RECOVERABLE_ERROR, _S.CRITICAL, (Do.GIVE_UP,)),
    Row((_S.CRITICAL,), _H.NON_RECOVERABLE_ERROR, None, (Do.GIVE_UP,)),
    Row((_S.CRITICAL,), _H.RECOVERABLE_ERROR, None, (Do.CLIMB,)),
    Row((*_RUNNING, _S.CRITICAL), _H.CREDENTIALS_RELOADED, None, (Do.TRY_ONCE,)),
    Row((_S.CRITICAL,), _H.RECOVERED, _S.REPLICATING),
    Row((_S.CRITICAL,), _H.RECOVERED_IN_GAP, _S.WAITING_FOR_RESYNC),
    Row(
        (_S.CRITICAL,),
        _H.RECOVERED_INITIAL,
        _S.INITIAL_REPLICATION,
        (Start(_J.INITIAL_REPLICATION),),
    ),
)

_FAILOVER = (
    Row(
        (_S.REPLICATING, _S.PREPARED),
        _O.PLANNED_FAILOVER,
        None,
        (Start(_J.PLANNED_FAILOVER),),
        Direction.FORWARD,
    ),
    Row(
        (_S.REPLICATING, _S.PREPARED),
        _O.FAILBACK,
        None,
        (Start(_J.FAILBACK),),
        Direction.REVERSE,
    ),
    Row(
        _FAILS_OVER,
        _O.UNPLANNED_FAILOVER,
        _S.FAILING_OVER,
        (Do.STOP_DELIVERY, Start(_J.UNPLANNED_FAILOVER)),
    ),
    Row(
        (_S.REPLICATING, _S.PREPARED, _S.COMMIT_PENDING, _S.COMMITTED),
        _O.MIGRATE,
        None,
        (Start(_J.MIGRATE),),
    ),
    Row((_S.REPLICATING,), _H.PREPARED, _S.PREPARED, (Do.STOP_DELIVERY,)),
    # The vault says so: somebody with the key decided it, on whatever host.
    Row((_S.PREPARED,), _H.FAILOVER_BEGUN, _S.FAILING_OVER),
    Row(
        (*_RUNNING, _S.CRITICAL, _S.SUSPENDED, _S.RESYNC_SUSPENDED),
        _H.FAILOVER_BEGUN,
        _S.FAILING_OVER,
        (Do.STOP_DELIVERY,),
        Direction.FORWARD,
    ),
    Row((_S.FAILING_OVER,), _H.FAILED_OVER, _S.COMMIT_PENDING),
    Row(
        (_S.REPLICATING, _S.FAILING_OVER, _S.COMMIT_PENDING, _S.COMMITTED),
        _H.FAILED_BACK,
        _S.REPLICATING,
        _AGAIN,
        Direction.REVERSE,
        turns=True,
    ),
    Row((_S.COMMIT_PENDING,), _O.CHANGE_POINT, None, (Start(_J.CHANGE_POINT),)),
    Row((_S.COMMIT_PENDING,), _H.POINT_CHANGED, None),
    Row((_S.COMMIT_PENDING,), _O.COMMIT_FAILOVER, None, (Start(_J.COMMIT_FAILOVER),)),
    Row((_S.COMMIT_PENDING,), _H.COMMITTED, _S.COMMITTED),
    Row(_UNDONE, _O.CANCEL_FAILOVER, None, (Start(_J.CANCEL_FAILOVER),)),
    Row(_UNDONE, _H.FAILOVER_CANCELLED, _S.REPLICATING, _AGAIN),
    Row(
        (_S.COMMIT_PENDING, _S.COMMITTED),
        _O.REPROTECT,
        _S.REPROTECTING,
        (Start(_J.REPROTECT),),
    ),
    Row(
        (_S.COMMITTED, _S.REPROTECTING),
        _H.REPROTECTED,
        _S.REPLICATING,
        (Do.STOP_DELIVERY,),
        Direction.FORWARD,
        turns=True,
    ),
    Row((_S.REPROTECTING,), _H.REPROTECTED, _S.REPLICATING, _AGAIN, Direction.REVERSE, turns=True),
    Row((_S.REPROTECTING,), _H.JOB_FAILED, _S.COMMITTED),
    Row((_S.REPROTECTING,), _H.JOB_CANCELLED, _S.COMMITTED),
    Row((_S.COMMIT_PENDING, _S.COMMITTED), _H.MIGRATED, _S.MIGRATED, (Do.REST_CAPTURE,)),
    Row((_S.REPLICATING,), _H.MIGRATED, _S.MIGRATED, (Do.REST_CAPTURE,), Direction.REVERSE),
    # How these went is shown by the job; the state is still true, and what it allows leads on.
    Row(
        (_S.REPLICATING, _S.PREPARED, _S.FAILING_OVER, _S.COMMIT_PENDING, _S.COMMITTED),
        _H.JOB_FAILED,
        None,
    ),
    Row(
        (_S.REPLICATING, _S.PREPARED, _S.FAILING_OVER, _S.COMMIT_PENDING, _S.COMMITTED),
        _H.JOB_CANCELLED,
        None,
    ),
)

_ENDING = (
    Row(_ANY, _O.UNPROTECT, _S.DISABLING, (Do.STOP_DELIVERY, Start(_J.DISABLE))),
    Row((_S.DISABLING,), _O.UNPROTECT, None, (Start(_J.DISABLE),)),  # again, after a failure
    Row((_S.DISABLING,), _H.JOB_FAILED, None),
    Row((_S.DISABLING,), _H.DISABLED, _S.DISABLED, (Do.REST_CAPTURE, Do.FORGET)),
)

ROWS = (*_ENABLING, *_REPLICATION, *_FAILOVER, *_ENDING)


def _compiled() -> Mapping[tuple[State, Event, Direction], Target]:
    found: dict[tuple[State, Event, Direction], Target] = {}
    for row in ROWS:
        for state in row.states:
            for direction in (row.direction,) if row.direction else tuple(Direction):
                key = state, row.event, direction
                assert key not in found, key  # noqa: S101 - a table with two answers is none
                found[key] = Target(row.then or state, row.effects, row.turns)
    return MappingProxyType(found)


TABLE = _compiled()

_T = TestFailover
TEST_STATES = (_S.REPLICATING, _S.SUSPENDED, _S.CRITICAL)  # in which a test may begin
TEST_TABLE: Mapping[tuple[TestFailover, Event], tuple[TestFailover, tuple[Effect, ...]]] = (
    MappingProxyType(
        {
            (_T.NONE, _O.TEST_FAILOVER): (_T.RUNNING, (Start(_J.TEST_FAILOVER),)),
            (_T.RUNNING, _H.TEST_STARTED): (_T.WAITING_FOR_CLEANUP, ()),
            # What it has begun may be there still: only a clean-up knows.
            (_T.RUNNING, _H.TEST_FAILED): (_T.WAITING_FOR_CLEANUP, ()),
            (_T.WAITING_FOR_CLEANUP, _O.CLEANUP_TEST): (
                _T.CLEANING_UP,
                (Start(_J.CLEANUP_TEST_FAILOVER),),
            ),
            (_T.CLEANING_UP, _H.TEST_CLEANED): (_T.NONE, ()),
            (_T.CLEANING_UP, _H.CLEANUP_FAILED): (_T.WAITING_FOR_CLEANUP, ()),
        }
    )
)
