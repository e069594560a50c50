"""What a replica's files hold: a small record, replaced atomically, and never ahead of the truth.

It is written *before* the files are touched ("on the way": they are no recovery point) and again
after all of them are on stable storage ("whole": every file holds exactly one commit).
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any

from stages import durable
from stages.errors import StateDamaged
from stages.model import MAX_DISKS, Disk
from stages.ports import Entropy, Files

NAME = "replica.json"
_VERSION = 1
_MAX_SIZE = 64 << 10


class Status(enum.StrEnum):
    """Of the files together. Only ``WHOLE`` files are a recovery point.

    ``COMPARING``: everything is held against a point, nothing is known but what lies before the
    cursor. ``CHANGING``: what commits have changed is being written. ``GIVING``, ``GIVEN``: the
    files are someone's disks now.
    """

    COMPARING = "comparing"
    CHANGING = "changing"
    WHOLE = "whole"
    GIVING = "giving"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class At:
    """A commit: group, number, digest, stamp in µs."""

    group: bytes
    seq: int
    link: bytes
    stamp: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A file as it was left: if it differs, someone else has written to it."""

    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Record:
    """``at``: where whole files are, and where ``CHANGING`` ones come from. ``towards``: where
    those that are no recovery point are going. ``cursor``: of ``COMPARING``, index of a disk and
    its first block not yet compared. ``marks`` go with ``disks``. ``to``: whom they are given."""

    vault: bytes
    machine: str
    status: Status
    at: At | None
    towards: At | None
    disks: tuple[Disk, ...]
    cursor: tuple[int, int] = (0, 0)
    marks: tuple[Mark, ...] = ()
    to: str = ""


def path_of(folder: str, number: int) -> str:
    """Where the disk of a number is, in a replica's folder."""
    return f"{folder}/disk-{number}.img"


def read(files: Files, folder: str) -> Record | None:
    """The record; None if there is none yet. Blocks. Raises ``StateDamaged``, ``OSError``."""
    path = f"{folder}/{NAME}"
    if files.stat(path) is None:
        return None
    try:
        return _parse(json.loads(files.read(path, _MAX_SIZE)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateDamaged(
            f"the replica's record cannot be read: {error}",
            operation="open replica",
            subject=path,
            hint="'backstay site replica drop' begins anew; the vault has everything",
        ) from None


def write(files: Files, entropy: Entropy, folder: str, record: Record) -> None:
    """Replace the record, durably. Blocks."""
    data = json.dumps(_fields(record), indent=1).encode()
    durable.replace(files, f"{folder}/{NAME}", data, token=entropy.token(8).hex())


def _fields(record: Record) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "vault": record.vault.hex(),
        "machine": record.machine,
        "status": record.status.value,
        "at": _at_fields(record.at),
        "towards": _at_fields(record.towards),
        "disks": [[disk.number, disk.name, disk.size] for disk in record.disks],
        "cursor": list(record.cursor),
        "marks": [[mark.inode, mark.size, mark.mtime_ns] for mark in record.marks],
        "to": record.to,
    }


def _at_fields(at: At | None) -> list[Any] | None:
    return None if at is None else [at.group.hex(), at.seq, at.link.hex(), at.stamp]


def _parse(found: dict[str, Any]) -> Record:
    if found["version"] != _VERSION:
        raise ValueError(f"version {found['version']!r}")
    disks = tuple(Disk(int(n), str(name), int(size)) for n, name, size in found["disks"])
    marks = tuple(Mark(*map(int, each)) for each in found["marks"])
    index, block = found["cursor"]
    if len(disks) > MAX_DISKS or len(marks) > MAX_DISKS:
        raise ValueError("too many disks")
    record = Record(
        bytes.fromhex(found["vault"]),
        str(found["machine"]),
        Status(found["status"]),
        _at(found["at"]),
        _at(found["towards"]),
        disks,
        (int(index), int(block)),
        marks,
        str(found["to"]),
    )
    if record.at is None and record.status is not Status.COMPARING:
        raise ValueError("it is nowhere")
    if record.towards is None and record.status in (Status.COMPARING, Status.CHANGING):
        raise ValueError("it goes nowhere")
    return record


def _at(found: list[Any] | None) -> At | None:
    if found is None:
        return None
    group, seq, link, stamp = found
    return At(bytes.fromhex(group), int(seq), bytes.fromhex(link), int(stamp))
