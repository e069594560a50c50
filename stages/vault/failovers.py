"""Failover records: what became of a machine, in clear, signed by the operator (R14).

``groups/<gid>/failovers/<n>`` are numbered from 1 and never change; each names the digest of the
valid one before it. They are in clear so that a daemon that holds public keys only can read who
failed its machine over, when and where: nothing in them is secret but names of people and hosts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, NotAdmitted, UnknownVersion
from stages.ports import Buffer
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.codec import Fields
from stages.vault.container import HEAD_SIZE, Container, Kind, build, parse
from stages.vault.records import Parent
from stages.vault.sealing import Scope
from stages.vault.terms import check_place

FORMAT = 1
MAX_RECORDS = 4096
MAX_WHO = 255
MAX_NOTE = 2000
MAX_SIZE = HEAD_SIZE + (16 << 10)
NO_RECORD = bytes(32)  # what the first one names as the one before it
_MAX_STAMP = (1 << 63) - 1


class Event(enum.StrEnum):
    """What a record says happened."""

    OPENED = "opened"
    CHANGED = "changed"
    COMMITTED = "committed"
    CANCELLED = "cancelled"
    REPROTECTED = "reprotected"
    CLOSED = "closed"
    TEST_OPENED = "test-opened"
    TEST_CLEANED = "test-cleaned"


@dataclass(frozen=True, slots=True)
class FailoverPoint:
    """The commit that a replica shows: number, digest (the log's link), stamp in µs."""

    seq: int
    digest: bytes
    stamp: int


@dataclass(frozen=True, slots=True)
class FailoverRecord:
    """One event. ``stamp``: µs, strictly rising. ``branch``: the branch's group, or none.

    ``host`` and ``by`` say where and who; ``point`` is the one the replica shows (None only for
    events that concern none); ``planned``: the source was drained first, nothing is lost.
    """

    number: int
    previous: bytes
    event: Event
    stamp: int
    host: str
    by: str
    point: FailoverPoint | None = None
    branch: bytes | None = None
    planned: bool = False
    note: str = ""

    def parent(self, group: bytes) -> Parent | None:
        """The commit of ``group`` that the branch begins at."""
        return Parent(group, self.point.seq, self.point.digest) if self.point else None


def failover_object(scope: Scope, record: FailoverRecord, operator: Signer) -> list[Buffer]:
    """The object of a record. ``ValueError`` for one that no reader would take."""
    wrong = _unfit(record)
    if wrong is not None:
        raise ValueError(wrong)
    point = record.point
    fields = scope.fields() | {
        "format": FORMAT,
        "number": record.number,
        "previous": record.previous,
        "event": record.event.value,
        "stamp": record.stamp,
        "host": record.host,
        "by": record.by,
        "point": point and {"seq": point.seq, "digest": point.digest, "stamp": point.stamp},
        "branch": record.branch or b"",
        "planned": record.planned,
        "note": record.note,
    }
    return build(Kind.FAILOVER, fields, operator)


def read_failover(
    data: bytes, scope: Scope, charter: Charter, number: int
) -> tuple[FailoverRecord, bytes]:
    """The record in the object ``number``, and its digest.

    Raises ``NotAdmitted`` if somebody else than the operator signed it, ``DamagedObject`` if
    nobody did or it is in another's place, ``UnknownVersion``.
    """
    key = layout.failover(scope.group, number)
    found = parse(data, key, Kind.FAILOVER)
    writer = found.header.raw("writer", 32)
    if not found.signed_by(writer):
        raise DamagedObject("the signature does not verify", subject=key)
    if writer != charter.operator:
        raise NotAdmitted(
            f"a failover record signed by {writer.hex()[:16]}, who is not the operator",
            subject=key,
            hint="it is ignored; someone with access to the store put it there",
        )
    check_place(found, scope)
    record = _record(found)
    wrong = _unfit(record) or (record.number != number and "is the record of another number")
    if wrong:
        raise DamagedObject(wrong, subject=key)
    return record, found.digest


def _record(found: Container) -> FailoverRecord:
    fields = found.header
    version = fields.number("format")
    if version != FORMAT:
        raise _unknown(f"failover record format {version}", found.key)
    name = fields.text("event", 64)
    try:
        event = Event(name)
    except ValueError:
        raise _unknown(f"failover event {name!r}", found.key) from None
    return FailoverRecord(
        number=fields.number("number"),
        previous=fields.raw("previous", 32),
        event=event,
        stamp=fields.number("stamp"),
        host=fields.text("host"),
        by=fields.text("by"),
        point=_point(fields.optional_map("point")),
        branch=fields.raw("branch") or None,
        planned=fields.flag("planned"),
        note=fields.text("note"),
    )


def _unknown(what: str, key: str) -> UnknownVersion:
    return UnknownVersion(
        f"{what}, which this program does not know",
        subject=key,
        hint="use the Backstay release that failed this machine over, or a newer one",
    )


def _point(fields: Fields | None) -> FailoverPoint | None:
    if fields is None:
        return None
    return FailoverPoint(fields.number("seq"), fields.raw("digest", 32), fields.number("stamp"))


def _unfit(record: FailoverRecord) -> str | None:
    """Why a record cannot be, or None."""
    if not 1 <= record.number <= MAX_RECORDS or len(record.previous) != 32:
        return "a record's number or the digest before it is out of bounds"
    if not 0 <= record.stamp <= _MAX_STAMP:
        return "a record's stamp is out of bounds"
    if max(len(record.host), len(record.by)) > MAX_WHO or len(record.note) > MAX_NOTE:
        return f"a name of more than {MAX_WHO} or a note of more than {MAX_NOTE} characters"
    if record.branch is not None and len(record.branch) != 16:
        return "a branch is a group's id"
    if record.event in (Event.OPENED, Event.CHANGED) and (
        record.branch is None or record.point is None
    ):
        return "a failover without a point or a branch"
    if record.event is Event.TEST_OPENED and record.point is None:
        return "a test of no point"
    point = record.point
    if point is not None and (not point.seq or len(point.digest) != 32):
        return "a point that is none"
    return None
