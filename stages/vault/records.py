"""The group's record and the sealed machine records."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, SourceError
from stages.model import MAX_DISK_BYTES, MAX_DISKS, Disk
from stages.ports import Buffer, Entropy
from stages.vault import layout
from stages.vault.codec import Fields, pack
from stages.vault.container import Container, Kind, build
from stages.vault.sealing import EpochKeys, Scope, open_body, seal_body

MAX_MACHINE_BYTES = 1 << 47  # of all disks; bounds the page tables that a reader and writer hold
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes part of file names


@dataclass(frozen=True, slots=True)
class Parent:
    """The commit that a branch begins at (R14)."""

    group: bytes
    seq: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """When the group began (wall µs) and from what."""

    created: int
    parent: Parent | None


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """A machine as it is protected; ``number`` rises with every change."""

    number: int
    name: str
    disks: tuple[Disk, ...]

    def disk(self, number: int) -> Disk | None:
        """A disk by its number."""
        return next((disk for disk in self.disks if disk.number == number), None)


def group_object(scope: Scope, record: GroupRecord, signer: Signer) -> list[Buffer]:
    """The group's first object."""
    parent = record.parent
    fields = scope.fields() | {
        "created": record.created,
        "parent": parent and {"group": parent.group, "seq": parent.seq, "digest": parent.digest},
    }
    return build(Kind.GROUP, fields, signer)


def read_group(found: Container) -> GroupRecord:
    """The record in a parsed, checked container."""
    fields = found.header.optional_map("parent")
    parent = None
    if fields is not None:
        parent = Parent(fields.raw("group", 16), fields.number("seq"), fields.raw("digest", 32))
    return GroupRecord(found.header.number("created"), parent)


def machine_object(
    scope: Scope, keys: EpochKeys, record: MachineRecord, signer: Signer, entropy: Entropy
) -> list[Buffer]:
    """A machine record, its body sealed with the epoch's index key.

    Raises ``SourceError`` for a machine that no reader would take.
    """
    wrong = _unfit(record)
    if wrong is not None:
        raise SourceError(wrong, operation="describe machine", subject=record.name)
    plain = pack(
        {
            "name": record.name,
            "disks": [
                {"number": disk.number, "name": disk.name, "size": disk.size}
                for disk in record.disks
            ],
        }
    )
    sealed = seal_body(scope, Kind.MACHINE, keys, record.number, plain, entropy)
    fields = scope.fields() | {"number": record.number, "epoch": keys.epoch}
    return build(Kind.MACHINE, fields, signer, sealed)


def read_machine(found: Container, scope: Scope, keys: EpochKeys, body: bytes) -> MachineRecord:
    """Open the body of a parsed, checked container. Raises ``DamagedObject``."""
    number = found.header.number("number")
    if found.key != layout.machine(scope.group, number):
        raise DamagedObject("is the machine record of another number", subject=found.key)
    sealed = found.check_body(body)
    plain = open_body(scope, Kind.MACHINE, keys, number, sealed, found.key)
    fields = Fields.decode(plain, found.key)
    disks = tuple(
        Disk(
            entry.number("number", MAX_DISKS - 1),
            entry.text("name", 64),
            entry.number("size", MAX_DISK_BYTES),
        )
        for entry in fields.maps("disks", MAX_DISKS)
    )
    record = MachineRecord(number, fields.text("name", 64), disks)
    wrong = _unfit(record)
    if wrong is not None:
        raise DamagedObject(wrong, subject=found.key)
    return record


def _unfit(record: MachineRecord) -> str | None:
    """Why a record cannot be: a reader trusts its writer with content, not with paths or memory."""
    names = [disk.name for disk in record.disks]
    numbers = {disk.number for disk in record.disks}
    if not all(_NAME.fullmatch(name) for name in (record.name, *names)):
        return "a machine or disk has a name that cannot be part of a file name"
    if len(set(names)) != len(names) or len(numbers) != len(names):
        return "two disks have the same name or number"
    if sum(disk.size for disk in record.disks) > MAX_MACHINE_BYTES:
        return f"its disks hold more than {MAX_MACHINE_BYTES >> 40} TiB"
    return None
