"""What an operation would do, said before it is confirmed."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.control.model import Operation, Stake
from pipeline.failover.model import Chosen
from stages.recover.ahead import clock_note
from stages.recover.points import Point
from stages.vault.failover_state import FailoverState

_STALE_SECONDS = 120  # after so long without a commit a source that ships has probably stopped
_NEXT = {
    Operation.PLANNED_FAILOVER: "failover serve",
    Operation.UNPLANNED_FAILOVER: "failover serve",
    Operation.CHANGE_POINT: "failover serve",
    Operation.COMMIT_FAILOVER: "failover reprotect at the replica, or failover migrate",
    Operation.CANCEL_FAILOVER: "run (at the source)",
    Operation.TEST_FAILOVER: "failover serve, then failover cleanup",
    Operation.CLEANUP_TEST: "failover status",
    Operation.REPROTECT: "run (at the replica); production comes home with failover planned",
    Operation.MIGRATE: "failover status",
}
_BACK = {
    Operation.PLANNED_FAILOVER: "until 'failover commit': 'failover cancel' undoes it",
    Operation.UNPLANNED_FAILOVER: "until 'failover commit': 'failover cancel' undoes it",
    Operation.CHANGE_POINT: "until 'failover commit'; what was written on the replica of the "
    "point before stays in its own overlay and is not carried over",
    Operation.COMMIT_FAILOVER: "NO: the point cannot be changed and the failover not cancelled "
    "any more",
    Operation.CANCEL_FAILOVER: "NO: what was written on the replica does not come back to the "
    "source, and is dropped",
    Operation.TEST_FAILOVER: "'failover cleanup' ends it; replication goes on meanwhile",
    Operation.CLEANUP_TEST: "NO: what was written in the test is dropped",
    Operation.REPROTECT: "production comes home by another planned failover",
    Operation.MIGRATE: "NO: the source never takes this machine back",
}
IRREVERSIBLE = frozenset(
    {Operation.COMMIT_FAILOVER, Operation.CANCEL_FAILOVER, Operation.MIGRATE, Operation.REPROTECT}
)


def stake(
    operation: Operation,
    machine: str,
    state: FailoverState,
    chosen: Chosen | None,
    newest: Point | None,
    now: int,
    notes: tuple[str, ...] = (),
) -> Stake:
    """Everything to be weighed, in the order in which it matters. ``now``: wall time in µs."""
    quiet = None if newest is None else max(0.0, (now - newest.stamp) / 1e6)
    alive = quiet is not None and quiet < _STALE_SECONDS
    irreversible = operation in IRREVERSIBLE or (
        operation is Operation.UNPLANNED_FAILOVER and alive
    )
    lines = [f"state: {state.described()}"]
    if quiet is not None and newest is not None:
        lines.append(_source(operation, newest, quiet, alive=alive))
        if told := clock_note(newest.seq, newest.stamp, now):
            lines.append(f"clock: {told}")
    if chosen is not None:
        lines += _point_lines(chosen)
    lines.append(f"reversible: {_BACK[operation]}")
    lines += [f"note: {note}" for note in notes]
    lines.append(f"next: backstay {_NEXT[operation]}")
    facts = {
        "state": state.phase.value,
        "test": state.test is not None,
        "source_quiet_seconds": quiet,
        "source_may_be_alive": alive,
        "point": chosen and _point_facts(chosen),
        "notes": list(notes),
    }
    return Stake(operation, machine, irreversible, tuple(lines), facts)


def both_times(stamp: int) -> str:
    """A stamp in µs as UTC and local time."""
    moment = datetime.fromtimestamp(stamp / 1e6, UTC)
    local = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC ({local:%Y-%m-%d %H:%M:%S %Z})"


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _source(operation: Operation, newest: Point, quiet: float, *, alive: bool) -> str:
    said = f"source: newest commit #{newest.seq} is {span(quiet)} old"
    if not alive:
        return f"{said}: it has not shipped anything since"
    if operation in (Operation.PLANNED_FAILOVER, Operation.UNPLANNED_FAILOVER):
        return f"{said}: it MAY BE ALIVE; make sure its guest is off, or two will be production"
    return f"{said}: it is probably alive"


def _point_lines(chosen: Chosen) -> list[str]:
    point, lost = chosen.point, chosen.lost
    lines = [f"point: #{point.seq} of {both_times(point.stamp)}"]
    if lost.commits:
        more = "" if lost.counted >= lost.commits else "more than "
        lines.append(
            f"lost: {lost.commits} commits after it, {span(lost.span / 1e6)}, "
            f"{more}{lost.stored} bytes stored"
        )
    else:
        lines.append("lost: nothing that reached the vault")
    kind = "consistent" if point.consistent else "NOT consistent"
    lines.append(f"consistency: {kind}, class '{point.grade}'")
    lines.append("proof: not verified here; 'backstay verify' opens every frame of it")
    return lines


def _point_facts(chosen: Chosen) -> dict[str, object]:
    point, lost = chosen.point, chosen.lost
    return {
        "seq": point.seq,
        "stamp": point.stamp,
        "digest": point.digest.hex(),
        "grade": point.grade,
        "consistent": point.consistent,
        "lost_commits": lost.commits,
        "lost_seconds": lost.span / 1e6,
        "lost_stored_bytes": lost.stored,
    }
