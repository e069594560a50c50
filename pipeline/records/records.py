"""``Records``: the control database as the supervisor uses it, never on the event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio
from sqlalchemy import Connection

from pipeline.control.views import EventView, JobView
from pipeline.records import chain, files, queries
from pipeline.records.engine import READERS, Database, open_database
from pipeline.records.grouped import Grouped, Outcome
from pipeline.records.migrate import check, migrate
from pipeline.records.model import (
    Applied,
    AuditEntry,
    Change,
    Limits,
    MachineRecord,
    NewAudit,
    StoredJob,
)
from pipeline.records.retain import prune
from pipeline.records.writes import Writer
from stages.errors import BackstayError, StateError
from stages.ports import Machine

T = TypeVar("T")
_LOOK_SECONDS = 2.0


class FollowerTooSlow(BackstayError):
    """A follower of events is too far behind: what it has not seen is read by pages."""

    exit_code = 11


class Records:
    """One writer, a few readers. Errors: ``StateLocked``, ``StateDamaged``, ``StateError``,
    ``NoSpace``. ``limits`` bound what is kept and what one answer holds."""

    def __init__(self, machine: Machine, database: Database, limits: Limits):
        self._machine = machine
        self._database = database
        self._limits = limits
        self._writing = trio.Lock()
        self._grouped = Grouped(self._apply_all)
        self._reading = trio.CapacityLimiter(READERS)
        self._news = trio.Event()
        self._last = 0  # the newest event's id
        self._closed = False

    @staticmethod
    async def open(machine: Machine, address: str, limits: Limits | None = None) -> Records:
        """Open, check and bring up to date. ``address``: a path of a SQLite file, which is made
        if it is missing (mode 0600), or ``postgresql://USER@HOST/DATABASE``."""
        return await machine.offload.run(partial(_open, machine, address, limits or Limits()))

    @staticmethod
    async def rebuild(machine: Machine, address: str, limits: Limits | None = None) -> Records:
        """Move a damaged SQLite file aside (``PATH.damaged-TIME``) and begin another."""
        await machine.offload.run(partial(files.move_aside, machine, address))
        found = await Records.open(machine, address, limits)
        await machine.offload.run(
            partial(files.note_rebuilt, found._database, machine.clock.wall_us())
        )
        await found._refresh()
        return found

    async def close(self) -> None:
        """Close all connections; what is being written is written. Then all raises."""
        with trio.CancelScope(shield=True):
            async with self._writing:
                if self._closed:
                    return
                self._closed = True
                for reader in range(READERS):  # each that is under way ends first
                    await self._reading.acquire_on_behalf_of(reader)
                await self._machine.offload.run(self._database.close)
                for reader in range(READERS):
                    self._reading.release_on_behalf_of(reader)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(
                "the control database was closed: the daemon is ending",
                operation="records",
                subject=self._database.where,
                hint="try again when it runs",
            )

    # writing

    async def apply(self, change: Change) -> Applied:
        """Make a change durable, all of it or nothing. Cancelling does not cut it in two."""
        return await self._grouped.write(change)

    async def _apply_all(self, changes: Sequence[Change]) -> Sequence[Outcome]:
        """See ``WriteAll``."""
        async with self._writing:
            self._check_open()
            found = await self._machine.offload.run(partial(self._write_all, changes))
            for each in found:
                if isinstance(each, Applied) and each.events:
                    self._tell(each.events[-1].id)
        return found

    def _write_all(self, changes: Sequence[Change]) -> list[Outcome]:
        with self._database.writing("write records") as connection:
            writer = Writer(connection, self._limits, self._machine.clock.wall_us())
            if len(changes) == 1:
                return [writer.apply(changes[0])]
            return [_apply(connection, writer, change) for change in changes]

    async def audited(self, entry: NewAudit) -> int:
        """Add one entry to the audit chain; its number."""
        return (await self.apply(Change(audit=(entry,)))).audit[0]

    async def retain(self) -> int:
        """Remove what is past the limits, some at a time; how many rows went."""
        gone = 0
        while True:
            async with self._writing:
                self._check_open()
                some = await self._machine.offload.run(self._prune)
            gone += some
            if not some:
                return gone

    def _prune(self) -> int:
        with self._database.writing("retain records") as connection:
            return prune(connection, self._limits, self._machine.clock.wall_us())

    def _tell(self, last: int) -> None:
        self._last = max(self._last, last)
        self._news.set()
        self._news = trio.Event()

    # reading

    async def _read(self, query: Callable[[Connection], T]) -> T:
        self._check_open()
        async with self._reading:  # whoever waits here is served before all is closed
            return await self._machine.offload.run(partial(self._query, query))

    def _query(self, query: Callable[[Connection], T]) -> T:
        with self._database.reading("read records") as connection:
            return query(connection)

    def _page(self, limit: int) -> int:
        return max(1, min(limit, self._limits.page))

    async def machines(self) -> Mapping[str, MachineRecord]:
        """What is remembered of all machines, by name."""
        return {record.name: record for record in await self._read(queries.machines)}

    async def jobs(
        self, *, machine: str = "", active: bool = False, before: int = 0, limit: int = 100
    ) -> Sequence[JobView]:
        """Jobs, newest first; ``before``: with lower numbers; ``active``: that are not over."""
        states = queries.ACTIVE if active else ()
        query = partial(
            queries.jobs, machine=machine, states=states, before=before, limit=self._page(limit)
        )
        return [stored.view for stored in await self._read(query)]

    async def job(self, number: int) -> JobView:
        """One job. ``NotFound``."""
        return (await self.stored(number)).view

    async def stored(self, number: int) -> StoredJob:
        """One job with its parameters. ``NotFound``."""
        return await self._read(partial(queries.job, number=number))

    async def job_of(self, by: str, key: str) -> StoredJob | None:
        """The job that this person's request with this key began."""
        return await self._read(partial(queries.job_of, by=by, key=key))

    async def interrupted(self) -> Sequence[StoredJob]:
        """At the start of a daemon: the jobs that the last one left under way or had not begun,
        oldest first. (What is suspended waits for a person, and goes on waiting.)"""
        return await self._read(queries.unfinished)

    async def events(
        self, *, machine: str = "", after: int = 0, limit: int = 100
    ) -> Sequence[EventView]:
        """Events with higher ids than ``after``, oldest first."""
        query = partial(queries.events, machine=machine, after=after, limit=self._page(limit))
        return await self._read(query)

    async def follow(self, *, after: int = 0) -> AsyncGenerator[EventView, None]:
        """Events with higher ids than ``after``, and those to come. Nothing is buffered but one
        page. ``FollowerTooSlow`` for one that has fallen too far behind what is new. Close it."""
        began = self._last
        while True:
            news = self._news
            page = await self.events(after=after)
            for event in page:
                yield event
                after = event.id
                if self._last - max(after, began) > self._limits.follower_lag:
                    raise FollowerTooSlow(
                        f"more than {self._limits.follower_lag} events behind",
                        operation="follow events",
                        hint=f"begin again after event {after}",
                    )
            if not page:
                # Of another process that writes into the same database nothing is heard here.
                others = float("inf") if self._database.is_sqlite else _LOOK_SECONDS
                with trio.move_on_after(others):
                    await news.wait()

    async def audit(self, *, before: int = 0, limit: int = 100) -> Sequence[AuditEntry]:
        """Entries of the audit chain, newest first (``chain.entry_fields``: as ``Control`` has
        them)."""
        return await self._read(partial(queries.audit, before=before, limit=self._page(limit)))

    async def verify_audit(self) -> chain.Verdict:
        """Walk the whole chain, a page at a time; names the first broken entry."""
        start = await self._read(partial(queries.anchor, key=queries.ANCHOR))
        tail = await self._read(partial(queries.anchor, key=queries.TAIL))
        checked = 0
        while True:
            query = partial(queries.audit_after, seq=start.seq, limit=self._limits.page)
            page = await self._read(query)
            found = chain.verify(start, page)
            checked += found.checked
            if found.broken is not None or not page:
                break
            start = found.last
        if found.broken is None and found.last.seq < tail.seq:
            reason = f"is missing, as is all up to #{tail.seq}"
            return chain.Verdict(checked, found.last, found.last.seq + 1, reason)
        return chain.Verdict(checked, found.last, found.broken, found.reason)

    async def _refresh(self) -> None:
        self._last = (await self._read(queries.span))[1]


def _apply(connection: Connection, writer: Writer, change: Change) -> Outcome:
    """One of several in a transaction: what is wrong with it is undone without the others."""
    inside = connection.begin_nested()
    try:
        applied = writer.apply(change)
    except BackstayError as error:
        inside.rollback()
        return error
    inside.commit()
    return applied


def _open(machine: Machine, address: str, limits: Limits) -> Records:
    database = open_database(address)
    try:
        if database.is_sqlite:
            files.make(machine, database.where)
        migrate(database)
        check(database)
        records = Records(machine, database, limits)
        with database.reading("open records") as connection:
            records._last = queries.span(connection)[1]
    except BaseException:
        database.close()
        raise
    return records
