"""Writing the control database: one change, one transaction. All of it blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from pipeline.control.jobs import JobEvent, follows
from pipeline.control.model import JobState
from pipeline.control.views import EventView, JobView, TaskView
from pipeline.records import chain, queries
from pipeline.records.codec import clean, packed, packed_problem, task_rows
from pipeline.records.model import (
    NEW_JOB,
    Applied,
    Change,
    JobChange,
    Limits,
    MachineRecord,
    NewAudit,
    NewEvent,
    NewJob,
)
from pipeline.records.schema import AUDIT, EVENTS, JOBS, MACHINES, META, TASKS
from stages.errors import IllegalOperation

MAX_NOTES = 100  # of one job
MAX_TASKS = 256


class Writer:
    """Writes into one transaction. ``now_us``: the time of all that is written."""

    def __init__(self, connection: Connection, limits: Limits, now_us: int):
        self._connection = connection
        self._limits = limits
        self._now = now_us

    def apply(self, change: Change) -> Applied:
        """Write all of it. ``NotFound`` for a job, ``IllegalOperation`` for what it cannot do."""
        made = None
        if change.new_job is not None:
            made, repeated = self._new_job(change.new_job)
            if repeated:
                return Applied(made, (), (), (), repeated=True)
        for name in change.forget:
            self._connection.execute(delete(MACHINES).where(MACHINES.c.name == name))
        for record in change.machines:
            self._machine(record)
        changed = tuple(self._job(_named(each, made)) for each in change.jobs)
        events = tuple(self._event(each, made) for each in change.events)
        audit = tuple(self._audit(each) for each in change.audit)
        return Applied(made, changed, events, audit)

    def _machine(self, record: MachineRecord) -> None:
        values = {
            "name": record.name,
            "state": record.state.value,
            "direction": record.direction.value,
            "test": record.test.value,
            "extra": packed(dict(record.extra), self._limits.text, f"the record of {record.name}"),
            "updated_us": self._now,
        }
        upsert(self._connection, MACHINES, "name", values)

    def _new_job(self, new: NewJob) -> tuple[JobView, bool]:
        limit = self._limits.text
        if new.key:
            found = queries.job_of(self._connection, new.by, new.key)
            if found is not None:
                self._same(new, found.view, found.parameters)
                return found.view, True
        values = {
            "kind": new.kind.value,
            "machine": new.machine,
            "state": JobState.NOT_STARTED.value,
            "description": clean(new.description, limit),
            "created_us": self._now,
            "bytes_done": 0,
            "bytes_total": 0,
            "cancellable": new.cancellable,
            "by": clean(new.by, limit),
            "key": new.key or None,
            "parameters": packed(dict(new.parameters), limit, "the parameters of a job"),
            "notes": "[]",
            "result": "{}",
        }
        number = self._connection.execute(insert(JOBS).values(values)).inserted_primary_key
        assert number is not None  # noqa: S101
        self._tasks(int(number[0]), new.tasks)
        return queries.job(self._connection, int(number[0])).view, False

    def _same(self, new: NewJob, old: JobView, parameters: Mapping[str, Any]) -> None:
        """A key that was used for something else is a mistake of whoever sends it."""
        asked = (new.kind, new.machine, chain.canonical(dict(new.parameters)))
        if asked != (old.kind, old.machine, chain.canonical(dict(parameters))):
            raise IllegalOperation(
                f"the key of this request belongs to job #{old.id} already, which is another",
                operation=new.kind,
                subject=new.machine,
                hint="give each request a key of its own; use it again only to repeat that request",
            )

    def _job(self, change: JobChange) -> JobView:
        stored = queries.job(self._connection, change.id)
        values: dict[str, Any] = {}
        tasks = change.tasks
        if change.event is not None:
            values |= self._event_values(stored.view, change.event)
            if change.event is JobEvent.RESTART and tasks is None:
                tasks = tuple(
                    TaskView(each.name, JobState.NOT_STARTED) for each in stored.view.tasks
                )
        values |= self._plain_values(stored.view, change)
        if values:
            self._connection.execute(update(JOBS).where(JOBS.c.id == change.id).values(values))
        if tasks is not None:
            self._connection.execute(delete(TASKS).where(TASKS.c.job == change.id))
            self._tasks(change.id, tasks)
        return queries.job(self._connection, change.id).view

    def _event_values(self, job: JobView, event: JobEvent) -> dict[str, Any]:
        state = follows(job.state, event)
        values: dict[str, Any] = {"state": state.value}
        if event is JobEvent.START:
            values["started_us"] = self._now
        if state.is_over:
            values["ended_us"] = self._now
        if event is JobEvent.RESTART:
            values |= dict.fromkeys(("started_us", "ended_us", "percent", "problem"))
            values |= {"bytes_done": 0, "bytes_total": 0}
        return values

    def _plain_values(self, job: JobView, change: JobChange) -> dict[str, Any]:
        limit = self._limits.text
        values: dict[str, Any] = {
            name: getattr(change, name)
            for name in ("percent", "bytes_done", "bytes_total", "cancellable")
            if getattr(change, name) is not None
        }
        if change.description is not None:
            values["description"] = clean(change.description, limit)
        if change.problem is not None:
            values["problem"] = packed_problem(change.problem, limit)
        if change.note:
            notes = [*job.notes, clean(change.note, limit)][-MAX_NOTES:]
            values["notes"] = json.dumps(notes)
        if change.result is not None:
            merged = {**job.result, **change.result}
            values["result"] = packed(merged, limit, "the result of a job")
        return values

    def _tasks(self, job: int, tasks: tuple[TaskView, ...]) -> None:
        if len(tasks) > MAX_TASKS:
            raise IllegalOperation(f"a job of more than {MAX_TASKS} tasks", operation="job")
        rows = task_rows(job, tasks, self._limits.text)
        if rows:
            self._connection.execute(insert(TASKS), rows)

    def _event(self, new: NewEvent, made: JobView | None) -> EventView:
        job = new.job
        if job == NEW_JOB:
            job = None if made is None else made.id
        values = {
            "at_us": self._now,
            "kind": new.kind,
            "machine": new.machine,
            "job": job,
            "message": clean(new.message, self._limits.text),
            "fields": packed(dict(new.fields), self._limits.text, "the fields of an event"),
        }
        number = self._connection.execute(insert(EVENTS).values(values)).inserted_primary_key
        assert number is not None  # noqa: S101
        shown = values | {"fields": json.loads(str(values["fields"]))}
        return EventView(id=int(number[0]), **shown)  # type: ignore[arg-type]

    def _audit(self, new: NewAudit) -> int:
        limit = self._limits.text
        packed(dict(new.detail), limit, "the detail of an audit entry")
        words = {
            name: clean(getattr(new, name), limit)
            for name in NewAudit.__slots__
            if name != "detail"
        }
        entry = chain.link(self._last(), self._now, NewAudit(detail=new.detail, **words))
        row = {name: getattr(entry, name) for name in entry.__slots__}
        self._connection.execute(insert(AUDIT).values(row))
        keep_anchor(self._connection, queries.TAIL, chain.Anchor(entry.seq, entry.digest))
        return entry.seq

    def _last(self) -> chain.Anchor:
        row = self._connection.execute(
            select(AUDIT.c.seq, AUDIT.c.digest).order_by(AUDIT.c.seq.desc()).limit(1)
        ).first()
        if row is None:
            return queries.anchor(self._connection, queries.ANCHOR)
        return chain.Anchor(row.seq, row.digest)


def _named(change: JobChange, made: JobView | None) -> JobChange:
    """``NEW_JOB`` is the one that the same change makes."""
    if change.id != NEW_JOB or made is None:
        return change
    return replace(change, id=made.id)


def keep_anchor(connection: Connection, key: str, anchor: chain.Anchor) -> None:
    """Remember a place in the audit chain."""
    upsert(connection, META, "key", {"key": key, "value": f"{anchor.seq} {anchor.digest}"})


def upsert(connection: Connection, table: Table, key: str, values: Mapping[str, Any]) -> None:
    """Insert a row, or change the one that has this key."""
    others = {name: value for name, value in values.items() if name != key}
    # The dialect in use is loaded already; the other is a lot of code.
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        lite = sqlite.insert(table).values(values)
        connection.execute(lite.on_conflict_do_update(index_elements=[key], set_=others))
        return
    from sqlalchemy.dialects import postgresql

    post = postgresql.insert(table).values(values)
    connection.execute(post.on_conflict_do_update(index_elements=[key], set_=others))
