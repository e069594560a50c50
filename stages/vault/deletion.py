"""Deletion records: all of a group is to go, or has gone, on purpose.

The record is put before anything of the group goes and stays for ever: so whoever meets what is
left, or a reader that was half way, says who deleted it and when, and whoever has the operator's or
a keeper's key and may delete can finish what was begun. Only the operator signs it. The terms stay
as well, the newest of them the operator's: no writer of the group ever wins again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, Deleted, Fenced, NotAdmitted, ObjectMissing
from stages.ports import Buffer
from stages.store.own import put_own
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, MAX_HEADER, Kind, build
from stages.vault.floors import FORMAT, MAX_WHO, checked
from stages.vault.sealing import Scope
from stages.vault.terms import MAX_EPOCH


@dataclass(frozen=True, slots=True)
class Deletion:
    """``seq`` and ``link``: the group's newest commit then; ``epoch``: of the newest term, so that
    the fence above it is the deletion's, and none that a failover has left. ``stamp``: µs, the
    clock of the one who did it. ``host``, ``by``: where and who, for people."""

    seq: int
    link: bytes
    epoch: int
    stamp: int
    host: str
    by: str

    def described(self, group: bytes) -> str:
        """Who, when and where, in words."""
        when = datetime.fromtimestamp(self.stamp / 1e6, UTC).isoformat(sep=" ", timespec="seconds")
        who = f"by {self.by} on {self.host}"
        return f"group {group.hex()} was deleted from the vault on purpose on {when}, {who}"

    def error(self, group: bytes, operation: str) -> Deleted:
        """For those who want to read it."""
        return Deleted(
            self.described(group),
            operation=operation,
            subject=layout.deleted(group),
            hint="this is no damage; 'backstay rescue' lists the machines that are left",
        )

    def fenced(self, group: bytes, operation: str) -> Fenced:
        """For the daemon that wrote it."""
        return Fenced(
            self.described(group),
            operation=operation,
            subject=layout.deleted(group),
            hint="to protect the machine anew, move its folder in the state folder away: a new "
            "history begins with a full scan",
        )


def deletion_object(scope: Scope, deletion: Deletion, signer: Signer) -> list[Buffer]:
    """The object of a deletion. ``ValueError`` for one that no reader would take."""
    if max(len(deletion.host), len(deletion.by)) > MAX_WHO:
        raise ValueError(f"a name of more than {MAX_WHO} characters")
    fields = scope.fields() | {
        "format": FORMAT,
        "seq": deletion.seq,
        "link": deletion.link,
        "epoch": deletion.epoch,
        "stamp": deletion.stamp,
        "host": deletion.host,
        "by": deletion.by,
    }
    return build(Kind.DELETION, fields, signer)


def read_deletion(data: bytes, scope: Scope, charter: Charter) -> Deletion:
    """Raises ``NotAdmitted`` if another than the operator signed it, ``DamagedObject``,
    ``UnknownVersion``."""
    key = layout.deleted(scope.group)
    header = checked(data, key, Kind.DELETION, scope, charter).header
    if header.raw("writer", 32) != charter.operator:
        raise NotAdmitted("only the vault's operator deletes", subject=key)
    return Deletion(
        header.number("seq"),
        header.raw("link", 32),
        header.number("epoch", MAX_EPOCH),
        header.number("stamp"),
        header.text("host", MAX_WHO),
        header.text("by", MAX_WHO),
    )


async def load_deletion(store: ObjectStore, scope: Scope, charter: Charter) -> Deletion | None:
    """The record of a group that is deleted; None for others. What another key than the operator's
    has signed does not count. Raises ``DamagedObject``, ``UnknownVersion``, store errors."""
    try:
        data = await store.get(layout.deleted(scope.group), 0, HEAD_SIZE + MAX_HEADER)
        return read_deletion(data, scope, charter)
    except (ObjectMissing, NotAdmitted):
        return None


async def put_deletion(
    store: ObjectStore, scope: Scope, charter: Charter, deletion: Deletion, signer: Signer
) -> None:
    """Put the record, unless one is there. Raises ``DamagedObject`` if what is there is none."""
    key = layout.deleted(scope.group)
    if await put_own(store, key, deletion_object(scope, deletion, signer)):
        return
    if await load_deletion(store, scope, charter) is None:
        raise DamagedObject(
            "the place of the deletion record is taken by something else",
            operation="delete data",
            subject=key,
            hint="remove it with an operator's credentials after a look at it",
        )
