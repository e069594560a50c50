"""What becomes too old or too much is removed, a bounded number of rows at a time. Blocks."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from pipeline.control.model import JobState
from pipeline.records import chain, queries
from pipeline.records.model import Limits
from pipeline.records.schema import AUDIT, EVENTS, JOBS, TASKS
from pipeline.records.writes import keep_anchor

_DAY_US = 86_400_000_000
_OVER = tuple(state.value for state in JobState if state.is_over)
BATCH = 5000  # rows of one transaction: a writer waits no longer than for these


def prune(connection: Connection, limits: Limits, now_us: int) -> int:
    """Remove up to ``BATCH`` rows of each kind; how many were removed."""
    return (
        _events(connection, limits, now_us)
        + _jobs(connection, limits, now_us)
        + _audit(connection, limits)
    )


def _events(connection: Connection, limits: Limits, now_us: int) -> int:
    old = now_us - int(limits.events_days * _DAY_US)
    floor = connection.execute(
        select(EVENTS.c.id).order_by(EVENTS.c.id.desc()).offset(limits.events).limit(1)
    ).scalar()
    doomed = (
        select(EVENTS.c.id)
        .where((EVENTS.c.at_us < old) | (EVENTS.c.id <= (floor or 0)))
        .order_by(EVENTS.c.id)
        .limit(BATCH)
    )
    # The newest stays, whatever its age: followers go on from its number.
    newest = connection.execute(select(func.max(EVENTS.c.id))).scalar()
    numbers = [number for number in connection.execute(doomed).scalars() if number != newest]
    return _drop(connection, numbers)


def _drop(connection: Connection, numbers: list[int]) -> int:
    for start in range(0, len(numbers), 500):
        connection.execute(delete(EVENTS).where(EVENTS.c.id.in_(numbers[start : start + 500])))
    return len(numbers)


def _jobs(connection: Connection, limits: Limits, now_us: int) -> int:
    old = now_us - int(limits.jobs_days * _DAY_US)
    over = JOBS.c.state.in_(_OVER)
    floor = connection.execute(
        select(JOBS.c.id).where(over).order_by(JOBS.c.id.desc()).offset(limits.jobs).limit(1)
    ).scalar()
    doomed = (
        select(JOBS.c.id)
        .where(over, (JOBS.c.ended_us < old) | (JOBS.c.id <= (floor or 0)))
        .order_by(JOBS.c.id)
        .limit(BATCH)
    )
    numbers = list(connection.execute(doomed).scalars())
    for start in range(0, len(numbers), 500):
        some = numbers[start : start + 500]
        connection.execute(delete(TASKS).where(TASKS.c.job.in_(some)))
        connection.execute(delete(JOBS).where(JOBS.c.id.in_(some)))
    return len(numbers)


def _audit(connection: Connection, limits: Limits) -> int:
    """The oldest entries go; the chain then begins at the digest of the last one that went."""
    floor = connection.execute(
        select(AUDIT.c.seq).order_by(AUDIT.c.seq.desc()).offset(limits.audit).limit(1)
    ).scalar()
    if floor is None:
        return 0
    first = connection.execute(select(func.min(AUDIT.c.seq))).scalar()
    last = min(floor, (first or 0) + BATCH - 1)
    row = connection.execute(
        select(AUDIT.c.seq, AUDIT.c.digest)
        .where(AUDIT.c.seq <= last)
        .order_by(AUDIT.c.seq.desc())
        .limit(1)
    ).one()
    keep_anchor(connection, queries.ANCHOR, chain.Anchor(row.seq, row.digest))
    return connection.execute(delete(AUDIT).where(AUDIT.c.seq <= row.seq)).rowcount
