"""The writer's record at one moment, as kept in the state folder: small, checked, replaced whole.

The arrays' content is in files of their own; here are their page tables, so a crash while those
files are written leads back to what this snapshot says and the log repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.crypto.digest import digest
from stages.errors import DamagedObject
from stages.model import MAX_DISKS, U64, Bools, Disk
from stages.ship.place import StreamPlace
from stages.vault.codec import Fields, pack
from stages.vault.terms import MAX_EPOCH

MAX_SIZE = 1 << 30
NO_DIGEST = bytes(32)
_MARK = b"backstay ledger 1\n"  # then the digest of the rest, then the rest
_TABLES = 3 * MAX_DISKS + MAX_EPOCH


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest settled commit, and what follows from it. ``seq`` 0: nothing yet."""

    seq: int = 0
    link: bytes = NO_DIGEST
    epoch: int = 0
    next_frame: int = 0
    last_consistent: int = 0
    stamp: int = 0
    checkpoint: int = 0
    stored: int = 0  # bytes put since that checkpoint
    stream: StreamPlace | None = None  # of a live stream, behind it


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of a ledger but its log and the content of its arrays.

    ``dirty``: by disk number, which checkpoint pages changed since the last checkpoint.
    ``epochs``: whose frame directories are open; ``ended``: frames of the others. ``arrays``:
    page tables of the arrays by name; ``pages``: page tables of the last checkpoint.
    """

    tail: Tail
    machine: int
    next_disk: int
    disks: tuple[Disk, ...]
    dirty: dict[int, Bools]
    epochs: tuple[int, ...] = ()
    ended: dict[int, int] = field(default_factory=dict)
    arrays: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, U64] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The file's content."""
        content = pack(self._fields())
        return b"".join((_MARK, digest([content]), content))

    @staticmethod
    def decode(data: bytes, path: str) -> Snapshot:
        """Undo ``encode``. Raises ``DamagedObject``."""
        at = len(_MARK) + len(NO_DIGEST)
        content = data[at:]
        if data[:at] != _MARK + digest([content]):
            raise DamagedObject("is not what was written", subject=path)
        return _snapshot(Fields.decode(content, path))

    def _fields(self) -> dict[str, Any]:
        tail = self.tail
        return {
            "seq": tail.seq,
            "link": tail.link,
            "epoch": tail.epoch,
            "next_frame": tail.next_frame,
            "last_consistent": tail.last_consistent,
            "stamp": tail.stamp,
            "checkpoint": tail.checkpoint,
            "stored": tail.stored,
            "stream": None if tail.stream is None else tail.stream.fields(),
            "machine": self.machine,
            "next_disk": self.next_disk,
            "disks": [
                {
                    "number": disk.number,
                    "name": disk.name,
                    "size": disk.size,
                    "dirty": np.packbits(self.dirty[disk.number]).tobytes(),
                    "pages": len(self.dirty[disk.number]),
                }
                for disk in self.disks
            ],
            "epochs": [{"epoch": epoch} for epoch in self.epochs],
            "ended": [{"epoch": epoch, "frames": rows} for epoch, rows in self.ended.items()],
            "arrays": [{"name": name, "table": table} for name, table in self.arrays.items()],
            "pages": [
                {"name": name, "table": table.tobytes()} for name, table in self.pages.items()
            ],
        }


def _snapshot(fields: Fields) -> Snapshot:
    disks = fields.maps("disks", MAX_DISKS)
    return Snapshot(
        tail=Tail(
            seq=fields.number("seq"),
            link=fields.raw("link", 32),
            epoch=fields.number("epoch"),
            next_frame=fields.number("next_frame"),
            last_consistent=fields.number("last_consistent"),
            stamp=fields.number("stamp"),
            checkpoint=fields.number("checkpoint"),
            stored=fields.number("stored"),
            stream=StreamPlace.of(fields.optional_map("stream")),
        ),
        machine=fields.number("machine"),
        next_disk=fields.number("next_disk"),
        disks=tuple(
            Disk(entry.number("number"), entry.text("name"), entry.number("size"))
            for entry in disks
        ),
        dirty={entry.number("number"): _flags(entry) for entry in disks},
        epochs=tuple(entry.number("epoch") for entry in fields.maps("epochs", MAX_EPOCH)),
        ended={
            entry.number("epoch"): entry.number("frames")
            for entry in fields.maps("ended", MAX_EPOCH)
        },
        arrays={entry.text("name"): entry.raw("table") for entry in fields.maps("arrays", _TABLES)},
        pages={
            entry.text("name"): entry.array("table", np.uint64, 3)
            for entry in fields.maps("pages", _TABLES)
        },
    )


def _flags(entry: Fields) -> Bools:
    packed = entry.array("dirty", np.uint8)
    return np.unpackbits(packed, count=entry.number("pages")).astype(np.bool_)
