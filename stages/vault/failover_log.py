"""Reading and appending failover records; whether a machine was failed over (R14).

Reading takes public keys only. No list: numbers are probed a few at a time, until a whole handful
is missing, so that a record that was removed does not pass for the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from stages.crypto.sign import Signer
from stages.errors import BrokenChain, DamagedObject, Fenced, NotAdmitted, ObjectMissing
from stages.stage import crew
from stages.store.own import put_own
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.failover_state import (
    NOT_FAILED_OVER,
    FailoverState,
    Phase,
    following,
    replay,
)
from stages.vault.failovers import (
    MAX_RECORDS,
    MAX_SIZE,
    NO_RECORD,
    FailoverPoint,
    FailoverRecord,
    failover_object,
    read_failover,
)
from stages.vault.sealing import Scope

_HANDFUL = 4


_WAYS = {
    Phase.OPEN: (
        "if production is to stay here, turn the replica off and give 'backstay failover cancel {} "
        "…': this source is protected again at its next start"
    ),
    Phase.REPROTECTED: (
        "production runs on the replica and is protected there: do not start the guest here; fail "
        "back to bring production home"
    ),
    Phase.CLOSED: "the machine has moved for good: take it out of this configuration",
}
_AWAY = (
    "production runs on the replica: do not start the guest here; reprotect the replica and fail "
    "back to bring production home"
)


@dataclass(frozen=True, slots=True)
class FailoverLog:
    """All records of a group, oldest first, and what they add up to.

    ``next_number`` and ``link`` are what the next record carries. ``notes``: objects that are no
    records and never were. ``problems``: why the state may not be the real one.
    """

    records: tuple[FailoverRecord, ...] = ()
    state: FailoverState = NOT_FAILED_OVER
    next_number: int = 1
    link: bytes = NO_RECORD
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def check(self, subject: str) -> None:
        """Raise ``BrokenChain`` if the state may not be the real one."""
        if self.problems:
            raise BrokenChain(
                self.problems[0],
                operation="read failover records",
                subject=subject,
                hint="compare with a copy of the vault and put back what is missing, or remove "
                "with an operator's credentials what somebody else put there",
            )


@dataclass(frozen=True, slots=True)
class FailoverNotice:
    """This machine was failed over: what its old source has to be told. ``stamp`` in µs."""

    group: bytes
    phase: Phase
    host: str
    by: str
    stamp: int
    point: FailoverPoint | None
    branch: bytes | None
    planned: bool

    @property
    def described(self) -> str:
        """Who, when, where, of which point, in one sentence."""
        when = datetime.fromtimestamp(self.stamp / 1e6, UTC)
        where = f"by {self.by} on {self.host} at {when:%Y-%m-%d %H:%M:%S} UTC"
        point = f", point #{self.point.seq}" if self.point is not None else ""
        return f"this machine was failed over {where}{point}: {self.phase}"

    def error(self, operation: str, subject: str) -> Fenced:
        """What the old source's daemon raises; the hint is the way on."""
        machine = self.group.hex()
        look = f"'backstay failover status {machine} --vault … --key …' shows it; "
        way = _WAYS.get(self.phase, _AWAY).format(machine)
        return Fenced(self.described, operation=operation, subject=subject, hint=look + way)


async def load_failovers(store: ObjectStore, scope: Scope, charter: Charter) -> FailoverLog:
    """All records of a group. Raises ``UnknownVersion`` for one of a newer release, store errors.

    What strangers put there is noted and ignored; what is missing, damaged or out of order is
    a problem, and the newest record that verifies says where things stand.
    """
    objects = await _objects(store, scope)
    records: list[FailoverRecord] = []
    notes: list[str] = []
    problems: list[str] = []
    unread: list[str] = []  # since the last good record
    link = NO_RECORD
    last = max(objects, default=0)
    for number in range(1, last + 1):
        if number not in objects:
            unread.append(f"failover record {number} is missing")
            continue
        try:
            record, digest = read_failover(objects[number], scope, charter, number)
        except NotAdmitted as error:
            notes.append(str(error))
            continue
        except DamagedObject as error:
            unread.append(str(error))
            continue
        if record.previous != link:
            problems += unread or [f"failover record {number} does not follow the one before it"]
        else:
            notes += unread  # the chain goes past them: they never were a part of it
        if records and record.stamp <= records[-1].stamp:
            problems.append(f"failover record {number} is stamped before the one before it")
        unread.clear()
        records.append(record)
        link = digest
    state, misfits = replay(records)
    problems += [*unread, *(misfits if not problems else ())]
    return FailoverLog(tuple(records), state, last + 1, link, tuple(notes), tuple(problems))


async def append_failover(
    store: ObjectStore,
    scope: Scope,
    operator: Signer,
    log: FailoverLog,
    record: FailoverRecord,
) -> FailoverLog | None:
    """Put the next record; ``number``, ``previous`` and a rising ``stamp`` are filled in here.

    None if somebody else was faster: read again and decide anew. Raises ``IllegalOperation`` if
    the state does not allow it, store errors.
    """
    if log.next_number > MAX_RECORDS:
        raise BrokenChain(
            f"{MAX_RECORDS} failover records, there can be no more", subject=scope.group.hex()
        )
    newest = log.records[-1].stamp if log.records else 0
    made = replace(
        record,
        number=log.next_number,
        previous=log.link,
        stamp=max(record.stamp, newest + 1),
    )
    state = following(log.state, made)
    parts = failover_object(scope, made, operator)
    key = layout.failover(scope.group, made.number)
    if not await put_own(store, key, parts):
        return None
    _, link = _own(b"".join(parts), scope, operator, made.number)
    return replace(
        log,
        records=(*log.records, made),
        state=state,
        next_number=made.number + 1,
        link=link,
    )


async def failed_over(store: ObjectStore, group: bytes, charter: Charter) -> FailoverNotice | None:
    """What the source of ``group`` has to know before it writes or serves; None: nothing.

    Needs no private key. Raises ``BrokenChain`` or ``UnknownVersion`` if records cannot be read
    so that it may have been failed over, store errors.
    """
    scope = Scope(charter.vault, group, charter.cipher)
    log = await load_failovers(store, scope, charter)
    found = notice_of(log, group)
    if found is None:
        log.check(f"{store.url} group {group.hex()}")
    return found


def notice_of(log: FailoverLog, group: bytes) -> FailoverNotice | None:
    """The notice that records add up to, if production is elsewhere."""
    state, last = log.state, log.state.last
    if last is None or not state.phase.is_over:
        return None
    return FailoverNotice(
        group, state.phase, last.host, last.by, last.stamp, state.point, state.branch, state.planned
    )


def _own(data: bytes, scope: Scope, operator: Signer, number: int) -> tuple[FailoverRecord, bytes]:
    """What was just made, as a reader takes it."""
    charter = Charter(scope.vault, operator.public, 1, scope.cipher_name, (), ())
    return read_failover(data, scope, charter, number)


async def _objects(store: ObjectStore, scope: Scope) -> dict[int, bytes]:
    """What lies under the numbers, until a handful of them in a row is missing."""
    found: dict[int, bytes] = {}

    async def fetch(number: int) -> None:
        try:
            found[number] = await store.get(layout.failover(scope.group, number), 0, MAX_SIZE)
        except ObjectMissing:
            return

    for first in range(1, MAX_RECORDS + 1, _HANDFUL):
        async with crew() as nursery:
            for number in range(first, first + _HANDFUL):
                nursery.start_soon(fetch, number)
        if not any(number >= first for number in found):
            break
    return found
