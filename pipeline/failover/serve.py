"""Serving a failover's replica, or a test's: the recorded point under a durable overlay.

What is written lies in a folder of its own for each branch and each test. The process may be killed
and the same command given again: it goes on with what the replica had flushed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from pipeline.failover.ground import Ground, stand_on
from pipeline.failover.points import recorded
from pipeline.failover.targets import Replica, ReplicaDisk, Target
from pipeline.recovery import Access
from pipeline.serving import ExportOrder, Say, Served, serve_point
from stages.errors import BackstayError, IllegalOperation, TargetError
from stages.ports import Files
from stages.stage import crew
from stages.vault.failover_log import load_failovers
from stages.vault.failover_state import FailoverState
from stages.vault.failovers import Event, FailoverRecord
from stages.vault.sealing import Scope

_LOOK_SECONDS = 30.0  # between two looks whether what is served is still in force


@dataclass(frozen=True, slots=True)
class ServeOrder:
    """What to serve and where. ``folder``: for what is written; ``test``: the open test's point
    instead of the failover's; ``hydrate``: copy the point behind."""

    machine: str
    folder: str
    listen: str
    test: bool = False
    hydrate: bool = False


@dataclass(frozen=True, slots=True)
class _Subject:
    """Which point of which failover or test."""

    machine: str
    group: str
    branch: str
    seq: int
    planned: bool
    folder: str
    test: int  # number of the test's record, or 0


async def serve_replica(access: Access, order: ServeOrder, target: Target, say: Say) -> None:
    """Serve until SIGINT or SIGTERM. Raises ``IllegalOperation`` if there is nothing to serve,
    ``TargetError`` if the target does not take it."""
    subject = await _subject(access, order)
    begun = trio.Event()
    found: list[Replica] = []

    def ready(served: Served) -> None:
        for note in served.notes:
            say(f"note: {note}")
        found.append(_replica(subject, order, served))
        begun.set()

    async def begin() -> None:
        await begun.wait()
        await target.start(found[0])

    async def before_end() -> None:
        for replica in found:
            await target.stop(replica)

    export = ExportOrder(
        subject.group, subject.seq, order.listen, (), subject.folder, order.hydrate
    )
    async with crew() as nursery:
        nursery.start_soon(begin)
        nursery.start_soon(_watch, access, subject, say)
        await serve_point(access, export, ready, say, before_end=before_end)
        nursery.cancel_scope.cancel()


def check_unused(files: Files, folder: str, name: str) -> None:
    """Raise ``TargetError`` if what a replica or test wrote here is being served."""
    path = f"{folder}/{name}"
    for entry in files.listdir(path):
        file = files.open_write(f"{path}/{entry}")
        try:
            if not file.lock():
                raise TargetError(
                    "the replica is still being served",
                    operation="drop replica",
                    subject=f"{path}/{entry}",
                    hint="turn it off and stop 'backstay failover serve' (SIGTERM), then give "
                    "the same command again",
                )
        finally:
            file.close()


def drop_written(files: Files, folder: str, name: str) -> list[str]:
    """Remove what a replica or test wrote on this host, by the name of its folder; says what."""
    path = f"{folder}/{name}"
    removed = [entry for entry in files.listdir(path) if files.unlink(f"{path}/{entry}")]
    files.rmdir(path)
    return removed


def folders_of(records: Sequence[FailoverRecord], *, test: bool) -> tuple[str, ...]:
    """The folders of the newest failover, one for each branch; or of the newest test."""
    names: list[str] = []
    for record in reversed(records):
        if test and record.event is Event.TEST_OPENED:
            return (folder_of_test(record),)
        if not test and record.branch is not None and record.branch.hex() not in names:
            names.append(record.branch.hex())
        if not test and record.event is Event.OPENED:
            break
    return tuple(names)


def folder_of_test(record: FailoverRecord) -> str:
    """The name of the folder in which a test's writes are kept."""
    return f"test-{record.number:08d}"


async def _subject(access: Access, order: ServeOrder) -> _Subject:
    async with stand_on(access, order.machine) as ground:
        state = ground.state
        if order.test:
            if state.test is None or state.test.point is None:
                raise _nothing(ground, "no test is open", "backstay failover test")
            point, name, branch = state.test.point, folder_of_test(state.test), ""
        else:
            if not state.phase.is_over or state.point is None or state.branch is None:
                what, how = "it is not failed over", "backstay failover unplanned (or planned)"
                raise _nothing(ground, what, how)
            point, branch = state.point, state.branch.hex()
            name = branch
        await recorded(ground.group, point)  # the very commit, or an error
        return _Subject(
            ground.machine,
            ground.group.scope.group.hex(),
            branch,
            point.seq,
            state.planned and not order.test,
            f"{order.folder}/{name}",
            state.test.number if order.test and state.test is not None else 0,
        )


async def _watch(access: Access, subject: _Subject, say: Say) -> None:
    """Say so once if the failover that is served is not the one in force any more.

    The disks stay: a guest that runs on them is for a person to turn off.
    """
    while True:
        await access.ports.clock.sleep(_LOOK_SECONDS)
        with suppress(BackstayError):  # the vault may be away; the next look says more
            async with access.vault() as vault:
                charter = vault.charter
                scope = Scope(charter.vault, bytes.fromhex(subject.group), charter.cipher)
                log = await load_failovers(vault.store, scope, charter)
            told = superseded(log.state, subject.branch, subject.test)
            if told:
                say(f"{subject.machine}: {told}; turn the replica off and end this")
                return


def superseded(state: FailoverState, branch: str, test: int) -> str:
    """Why what is served should not be any more, or "". ``test``: a record's number, or 0."""
    if test:
        over = state.test is None or state.test.number != test
        return "the test that is served here was cleaned up" if over else ""
    if state.phase.is_over and state.branch is not None and state.branch.hex() == branch:
        return ""
    last = state.last
    by = f" by {last.by} on {last.host}" if last is not None else ""
    what = "is on another point now" if state.phase.is_over else f"is over ('{state.phase}')"
    return f"the failover that is served here {what}{by}"


def _nothing(ground: Ground, what: str, how: str) -> IllegalOperation:
    return IllegalOperation(
        f"there is nothing to serve: {what} (the machine is '{ground.state.described()}')",
        operation="failover serve",
        subject=ground.machine,
        hint="a test is open: --test serves it"
        if ground.state.test is not None
        else f"{how} {ground.machine} comes first",
    )


def _replica(subject: _Subject, order: ServeOrder, served: Served) -> Replica:
    size: Callable[[str], int] = partial(_size, served)
    return Replica(
        subject.machine,
        subject.group,
        subject.branch,
        subject.seq,
        served.point.header.stamp,
        subject.planned,
        order.test,
        subject.folder,
        tuple(ReplicaDisk(name, size(name), uri) for name, uri in served.uris.items()),
    )


def _size(served: Served, name: str) -> int:
    return served.point.disk(name).size
