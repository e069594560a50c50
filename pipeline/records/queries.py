"""Reading the control database, in pages. All of it blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, Select, bindparam, func, select

from pipeline.control.model import JobState
from pipeline.control.views import EventView
from pipeline.records import chain
from pipeline.records.codec import audit_entry, event_view, machine_record, stored_job
from pipeline.records.engine import damaged
from pipeline.records.model import AuditEntry, MachineRecord, StoredJob
from pipeline.records.schema import AUDIT, EVENTS, JOBS, MACHINES, META, TASKS
from stages.errors import NotFound

ACTIVE = tuple(state.value for state in JobState if not state.is_over)
UNFINISHED = (JobState.NOT_STARTED.value, JobState.IN_PROGRESS.value)
ANCHOR = "audit anchor"  # the newest entry that was removed for its age
TAIL = "audit tail"

# Made once: to put a statement together takes longer than SQLite takes to answer it.
_NUMBER: BindParameter[int] = bindparam("number")
_JOB = select(JOBS).where(JOBS.c.id == _NUMBER)
_TASKS = select(TASKS).where(TASKS.c.job == _NUMBER).order_by(TASKS.c.position)


def machines(connection: Connection) -> list[MachineRecord]:
    """All machines, by name."""
    rows = connection.execute(select(MACHINES).order_by(MACHINES.c.name)).all()
    return sorted((machine_record(row) for row in rows), key=lambda record: record.name)


def jobs(
    connection: Connection,
    *,
    machine: str = "",
    states: Sequence[str] = (),
    before: int = 0,
    limit: int,
) -> list[StoredJob]:
    """Jobs, newest first."""
    query = select(JOBS).order_by(JOBS.c.id.desc()).limit(limit)
    if machine:
        query = query.where(JOBS.c.machine == machine)
    if states:
        query = query.where(JOBS.c.state.in_(states))
    if before:
        query = query.where(JOBS.c.id < before)
    return _with_tasks(connection, query)


def unfinished(connection: Connection) -> list[StoredJob]:
    """Jobs that were under way or not begun, oldest first."""
    query = select(JOBS).where(JOBS.c.state.in_(UNFINISHED)).order_by(JOBS.c.id)
    return _with_tasks(connection, query)


def job(connection: Connection, number: int) -> StoredJob:
    """One job. ``NotFound``."""
    row = connection.execute(_JOB, {"number": number}).first()
    if row is None:
        raise NotFound(
            "there is no such job",
            operation="job",
            subject=f"#{number}",
            hint="see 'backstay job list'",
        )
    return stored_job(row, list(connection.execute(_TASKS, {"number": number})))


def job_of(connection: Connection, by: str, key: str) -> StoredJob | None:
    """The job that a request of this key began."""
    found = _with_tasks(connection, select(JOBS).where(JOBS.c.by == by, JOBS.c.key == key))
    return found[0] if found else None


def _with_tasks(connection: Connection, query: Select[Any]) -> list[StoredJob]:
    rows = connection.execute(query).all()
    tasks: dict[int, list[Row[Any]]] = {}
    for numbers in _chunks([row.id for row in rows], 500):
        found = connection.execute(
            select(TASKS).where(TASKS.c.job.in_(numbers)).order_by(TASKS.c.job, TASKS.c.position)
        )
        tasks.update((number, list(each)) for number, each in groupby(found, lambda row: row.job))
    return [stored_job(row, tasks.get(row.id, ())) for row in rows]


def _chunks(values: list[int], size: int) -> Iterable[list[int]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def events(
    connection: Connection, *, machine: str = "", after: int = 0, limit: int
) -> list[EventView]:
    """Events with higher ids, oldest first."""
    query = select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id).limit(limit)
    if machine:
        query = query.where(EVENTS.c.machine == machine)
    return [event_view(row) for row in connection.execute(query)]


def span(connection: Connection) -> tuple[int, int]:
    """The lowest and the highest id of an event; zeros if there is none."""
    first, last = connection.execute(select(func.min(EVENTS.c.id), func.max(EVENTS.c.id))).one()
    return int(first or 0), int(last or 0)


def audit(connection: Connection, *, before: int = 0, limit: int) -> list[AuditEntry]:
    """Entries of the audit, newest first."""
    query = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(limit)
    if before:
        query = query.where(AUDIT.c.seq < before)
    return [audit_entry(row) for row in connection.execute(query)]


def audit_after(connection: Connection, seq: int, limit: int) -> list[AuditEntry]:
    """Entries of the audit, oldest first."""
    query = select(AUDIT).where(AUDIT.c.seq > seq).order_by(AUDIT.c.seq).limit(limit)
    return [audit_entry(row) for row in connection.execute(query)]


def anchor(connection: Connection, key: str) -> chain.Anchor:
    """An anchor of the audit chain that is kept beside it."""
    found = connection.execute(select(META.c.value).where(META.c.key == key)).scalar()
    if found is None:
        return chain.Anchor()
    seq, _, digest = found.partition(" ")
    if not seq.isdecimal() or len(digest) != len(chain.ROOT):
        raise damaged(f"the {key} cannot be read", "read records", "")
    return chain.Anchor(int(seq), digest)
