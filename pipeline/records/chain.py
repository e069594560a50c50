"""The audit chain: each entry's digest covers its content and the digest before it. Pure.

An entry that was changed, removed or put in between breaks the chain at a place that can be named.
What it cannot show is that the newest entries were cut off: note the newest digest elsewhere for
that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.records.model import AuditEntry, NewAudit
from stages.crypto.digest import digest

ROOT = "0" * 64  # the digest before the first entry
_DOMAIN = b"backstay audit 1\n"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The entry that the oldest one kept follows."""

    seq: int = 0
    digest: str = ROOT


@dataclass(frozen=True, slots=True)
class Verdict:
    """``broken``: the number of the first entry that does not verify, None if all do; ``reason``
    says what is wrong with it. ``checked`` entries are good, the newest of them is ``last``."""

    checked: int
    last: Anchor
    broken: int | None = None
    reason: str = ""


def canonical(value: Any) -> str:
    """One text for one JSON value. ``ValueError`` or ``TypeError`` for what is no JSON."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def entry_digest(entry: AuditEntry) -> str:
    """What an entry's digest must be, hex."""
    content = canonical(
        [
            entry.seq,
            entry.at_us,
            entry.who,
            entry.role,
            entry.address,
            entry.operation,
            entry.subject,
            entry.outcome,
            entry.detail,
        ]
    )
    return digest([_DOMAIN, entry.previous.encode(), content.encode("utf-8")]).hex()


def link(last: Anchor, at_us: int, new: NewAudit) -> AuditEntry:
    """The entry that follows ``last``."""
    bare = AuditEntry(
        seq=last.seq + 1,
        at_us=at_us,
        who=new.who,
        role=new.role,
        address=new.address,
        operation=new.operation,
        subject=new.subject,
        outcome=new.outcome,
        detail=canonical(new.detail),
        previous=last.digest,
        digest="",
    )
    return replace(bare, digest=entry_digest(bare))


def verify(start: Anchor, entries: Iterable[AuditEntry]) -> Verdict:
    """Walk entries, oldest first, from ``start`` on to the first broken one."""
    last, checked = start, 0
    for entry in entries:
        if entry.seq != last.seq + 1:
            return Verdict(checked, last, last.seq + 1, f"is missing: #{entry.seq} follows")
        if entry.previous != last.digest:
            return Verdict(checked, last, entry.seq, "does not follow the entry before it")
        if entry_digest(entry) != entry.digest:
            return Verdict(checked, last, entry.seq, "is not what was written")
        last, checked = Anchor(entry.seq, entry.digest), checked + 1
    return Verdict(checked, last)


def entry_fields(entry: AuditEntry) -> Mapping[str, Any]:
    """An entry for JSON."""
    fields = {name: getattr(entry, name) for name in AuditEntry.__slots__}
    return fields | {"detail": json.loads(entry.detail)}
