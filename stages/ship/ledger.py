"""The writer's own record of its log in the vault: tail, intents, block map, digests.

Durable order (R3, R11): an intent is in the write-ahead log before its commit is put; arrays are
changed only once the commit is settled; the log is cleared only after arrays and snapshot are
synced. So after a crash at any instruction, replaying the log over the arrays gives the record of
exactly the settled commits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stages import durable
from stages.errors import DamagedObject, StateDamaged
from stages.model import U64, Bools, Disk
from stages.ports import Machine
from stages.ship.record import DirtyPages, Record, frames_path
from stages.ship.wal import Intent, Wal
from stages.vault.codec import Fields, pack
from stages.vault.commit import Header, decode_body, read_header
from stages.vault.container import Kind, parse
from stages.vault.sealing import Scope

WAL_LIMIT = 32 << 20
MAX_SNAPSHOT = 1 << 30
NO_DIGEST = bytes(32)


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


class Ledger:
    """The record of one group. Calls block (file I/O); the caller serialises them."""

    def __init__(self, machine: Machine, folder: str, scope: Scope):
        files = machine.files
        self._files = files
        self._entropy = machine.entropy
        self._lock = machine.offload.lock()  # a scan reads digests while commits settle
        self._folder = folder
        self._scope = scope
        self.tail = Tail()
        self.disks: dict[int, Disk] = {}
        self.machine = 0  # number of the machine record in force
        self.next_disk = 0  # disk numbers are never used again
        self.record = Record(files, folder)
        self.tables: dict[str, U64] = {}  # page tables of the last checkpoint
        self.epoch_rows: dict[int, int] = {}  # frames of epochs whose directory is closed
        self.pending: dict[int, list[Intent]] = {}
        self._wal = Wal(files.open_append(f"{folder}/wal"))

    def recover(self) -> None:
        """Load the snapshot; hold intents back until ``settle`` says what became of them."""
        data = None
        if self._files.stat(f"{self._folder}/snapshot") is not None:
            data = self._files.read(f"{self._folder}/snapshot", MAX_SNAPSHOT)
        if data is not None:
            try:
                self._load(Fields.decode(data, f"{self._folder}/snapshot"))
            except (DamagedObject, ValueError) as error:
                raise StateDamaged(
                    str(error),
                    operation="recover state",
                    subject=f"{self._folder}/snapshot",
                    hint="move the machine's state folder away: the next run begins a new base",
                ) from None
        for intent in self._wal.recover():
            if intent.seq > self.tail.seq:
                self.pending.setdefault(intent.seq, []).append(intent)

    def set_disks(self, machine: int, disks: tuple[Disk, ...]) -> None:
        """The geometry in force from now on; durable at once."""
        self.machine = machine
        self.disks = {disk.number: disk for disk in disks}
        for disk in disks:
            self.record.open_disk(disk)
            self.next_disk = max(self.next_disk, disk.number + 1)
        self.record.keep_disks(self.disks)
        self.checkpoint_state()

    def intend(self, intent: Intent) -> None:
        """Write an intent down, durably, before its put (R11)."""
        if self._wal.size > WAL_LIMIT:
            self.checkpoint_state()
        self._wal.append(intent)
        self.pending.setdefault(intent.seq, []).append(intent)

    def intent_of(self, seq: int, object_digest: bytes) -> Intent | None:
        """The intent that this object fulfils, if it is one of ours."""
        for intent in self.pending.get(seq, ()):
            if intent.object_digest == object_digest:
                return intent
        return None

    def settle(self, intent: Intent) -> Header:
        """The commit of ``intent`` is in the vault: fold it into the arrays, move the tail."""
        found = parse(intent.head, "intent", Kind.COMMIT)
        header = read_header(found, self._scope, intent.seq)
        segments = decode_body(intent.plain, header, "intent")
        with self._lock:
            self.record.apply(
                header, segments, intent.digests, intent.ref_digests, intent.ref_locations
            )
            for chunk in intent.chunks:
                self.record.disks[chunk.disk].chunks.write(chunk.first, chunk.digests)
        self.tail = replace(
            self.tail,
            seq=intent.seq,
            link=intent.link,
            epoch=intent.epoch,
            next_frame=header.first_frame + header.frames,
            last_consistent=intent.seq if header.consistent else header.last_consistent,
            stamp=header.stamp,
            stored=self.tail.stored + found.size + sum(ref.size for ref in header.objects),
        )
        for seq in [seq for seq in self.pending if seq <= intent.seq]:
            del self.pending[seq]
        return header

    def checkpointed(self, seq: int, tables: dict[str, U64]) -> None:
        """A checkpoint at ``seq``, the tail, is complete in the vault."""
        self.tables = tables
        for record in self.record.disks.values():
            record.dirty.flags[:] = False
        self.tail = replace(self.tail, checkpoint=seq, stored=0)
        ended = [epoch for epoch in self.record.frames if epoch != self.tail.epoch]
        for epoch in ended:
            self.epoch_rows[epoch] = self.record.frames[epoch].rows
        closed = [self.record.frames.pop(epoch) for epoch in ended]
        self.checkpoint_state()
        for directory in closed:
            directory.close()
        for epoch in ended:
            self._files.unlink(frames_path(self._folder, epoch))

    def checkpoint_state(self) -> None:
        """Sync all arrays and the snapshot, then clear the log, unless intents are open in it."""
        with self._lock:
            tables = {name: array.sync() for name, array in self.record.arrays()}
        durable.replace(
            self._files,
            f"{self._folder}/snapshot",
            pack(self._fields(tables)),
            token=self._entropy.token(8).hex(),
        )
        if not self.pending:
            self._wal.clear()

    def blocks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of blocks as the vault has them at its committed position."""
        with self._lock:
            return self.record.disks[disk].digests.read(first, count)

    def chunks(self, disk: int, first: int, count: int) -> U64:
        """Digests (count, 2) of chunks, unknown where only single blocks are known."""
        with self._lock:
            return self.record.disks[disk].chunks.read(first, count)

    def close(self) -> None:
        """Release all files."""
        self.record.close()
        self._wal.close()

    def _fields(self, tables: dict[str, bytes]) -> dict[str, Any]:
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
            "machine": self.machine,
            "next_disk": self.next_disk,
            "disks": [
                {
                    "number": disk.number,
                    "name": disk.name,
                    "size": disk.size,
                    "dirty": np.packbits(self.record.disks[disk.number].dirty.flags).tobytes(),
                }
                for disk in self.disks.values()
            ],
            "epochs": [{"epoch": epoch} for epoch in self.record.frames],
            "ended": [{"epoch": e, "frames": rows} for e, rows in self.epoch_rows.items()],
            "tables": [{"name": name, "table": table} for name, table in tables.items()],
            "pages": [
                {"name": name, "table": table.tobytes()} for name, table in self.tables.items()
            ],
        }

    def _load(self, fields: Fields) -> None:
        self.tail = Tail(
            seq=fields.number("seq"),
            link=fields.raw("link", 32),
            epoch=fields.number("epoch"),
            next_frame=fields.number("next_frame"),
            last_consistent=fields.number("last_consistent"),
            stamp=fields.number("stamp"),
            checkpoint=fields.number("checkpoint"),
            stored=fields.number("stored"),
        )
        self.machine = fields.number("machine")
        self.next_disk = fields.number("next_disk")
        dirty: dict[int, Bools] = {}
        for entry in fields.maps("disks", 4096):
            disk = Disk(entry.number("number"), entry.text("name"), entry.number("size"))
            self.disks[disk.number] = disk
            self.record.open_disk(disk)
            dirty[disk.number] = np.unpackbits(entry.array("dirty", np.uint8)).astype(np.bool_)
        for entry in fields.maps("epochs", 1 << 24):
            self.record.open_frames(entry.number("epoch"))
        for entry in fields.maps("ended", 1 << 24):
            self.epoch_rows[entry.number("epoch")] = entry.number("frames")
        arrays = dict(self.record.arrays())
        for entry in fields.maps("tables", 1 << 24):
            arrays[entry.text("name")].restore(entry.raw("table"))
        for number, disk in self.disks.items():
            record = self.record.disks[number]
            record.dirty = DirtyPages()
            record.dirty.resize(disk.blocks)
            record.dirty.flags = dirty[number][: len(record.dirty.flags)].copy()
        for entry in fields.maps("pages", 1 << 24):
            self.tables[entry.text("name")] = entry.array("table", np.uint64, 3)
