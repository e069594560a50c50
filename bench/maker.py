"""Writes a vault by the shipping code of the data plane, without waiting for the disk.

Only the waiting is left out: nobody relies on these vaults. A block's content is one 64-bit number
repeated, so frames compress to nearly nothing while indexes and maps are as large as real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import trio
import zstandard

from bench.made import DISK, MACHINE, Made
from stages.crypto.digest import digest
from stages.crypto.sign import Signer
from stages.model import (
    BLOCK,
    FRAME_BLOCKS,
    U8,
    U64,
    Batch,
    Disk,
    Frame,
    Runs,
    Segment,
    empty_pairs,
)
from stages.ports import Clock, Machine, OpenFile
from stages.ship.checkpointer import Checkpointer
from stages.ship.compose import Stored, header_of, index_of, intent_of
from stages.ship.group import found_group
from stages.ship.ledger import Ledger, Tail
from stages.ship.rollups import Rollups
from stages.ship.session import LogSession, Writer
from stages.store.file import FileStore
from stages.store.port import ObjectStore
from stages.system import SystemClock, SystemEntropy, SystemFile, SystemFiles, ThreadOffload
from stages.vault import frame, layout
from stages.vault.charter import Charter, Member, encode
from stages.vault.commit import Header, ObjectRef, encode_body
from stages.vault.container import Kind, build
from stages.vault.keyfile import encode_private, generate
from stages.vault.records import MachineRecord, machine_object
from stages.vault.sealing import Scope, seal_body

T = TypeVar("T")


class _UnsyncedFile(SystemFile):
    def fsync(self) -> None:
        """Not for vaults that are thrown away."""

    def fdatasync(self) -> None:
        """Likewise."""


class UnsyncedFiles(SystemFiles):
    """The file system without waiting for the disk."""

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> OpenFile:
        """Open read-write."""
        return _UnsyncedFile(super().open_write(path, create=create, new=new).fileno(), path)

    def open_append(self, path: str) -> OpenFile:
        """Open to append."""
        return _UnsyncedFile(super().open_append(path).fileno(), path)

    def sync_dir(self, path: str) -> None:
        """Not needed here."""


class _Inline(ThreadOffload):
    """Everything on the event loop: there is nothing beside it."""

    async def run(self, call: Callable[[], T]) -> T:
        """Call it here and now."""
        await trio.lowlevel.checkpoint()
        return call()

    def lock(self) -> AbstractContextManager[object]:
        """A lock that is never contended."""
        return threading.Lock()


def quick_ports(clock: Clock | None = None) -> Machine:
    """A machine that neither waits for its disk nor uses threads."""
    return Machine(clock or SystemClock(), _Inline(1), SystemEntropy(), UnsyncedFiles())


class Builder:
    """Writes one group with one disk. Make it with ``begin``."""

    def __init__(self, writer: Writer, ledger: Ledger, disk: Disk):
        self.session = LogSession(writer, ledger)
        self.disk = disk
        self._rollups = Rollups(self.session)
        self._objects = 0
        self._pack = zstandard.ZstdCompressor(level=1)
        self.tail = Tail()

    @staticmethod
    async def begin(
        folder: Path, disk_bytes: int, clock: Clock | None = None, store: ObjectStore | None = None
    ) -> tuple[Builder, Made]:
        """An empty vault, its key, a state folder, and a machine with one disk.

        ``clock`` in place of the machine's; ``store``, empty, in place of a folder.
        """
        ports = quick_ports(clock)
        entropy = ports.entropy
        if store is None:
            store = FileStore(str(folder / "vault"), ports)
            await store.create_root()
        key, signer = generate("bench", entropy), Signer(entropy.token(32))
        charter = Charter(
            vault=entropy.token(16),
            operator=key.signer.public,
            generation=1,
            cipher="aegis256",
            recipients=(Member(key.box.public, "bench"),),
            writers=(Member(signer.public, "bench"),),
        )
        await store.put(layout.VAULT, [encode(charter, key.signer)])
        key_path = folder / "operator.key"
        key_path.write_bytes(encode_private(key.pinned(charter.pin()), None, entropy))
        scope = Scope(charter.vault, entropy.token(16), charter.cipher)
        writer = Writer(store, scope, charter, signer, ports)
        (folder / "state").mkdir()
        disk = Disk(0, DISK, disk_bytes)
        self = Builder(writer, Ledger(ports, str(folder / "state"), scope), disk)
        await found_group(writer, entropy.token(32))
        await self.session.open()
        record = MachineRecord(1, MACHINE, (disk,))
        parts = machine_object(scope, self.session.keys, record, signer, entropy)
        await store.put(layout.machine(scope.group, 1), parts)
        self.session.ledger.set_disks(1, (disk,))
        made = Made(
            vault=str(folder / "vault"),
            key=str(key_path),
            state=str(folder / "state"),
            signer=signer.seed.hex(),
            group=scope.group.hex(),
            disk_bytes=disk_bytes,
            tail=0,
            checkpoint=0,
            probes=(),
            window=0,
        )
        return self, made

    async def store(
        self, first_frame: int, data: U64, numbers: U64, refs: U64, *, in_gap: bool
    ) -> Stored:
        """Put one data object: blocks ``data`` (n,) hold ``numbers`` (n,); ``refs`` (m, 2)."""
        payload = np.repeat(numbers, BLOCK // 8).reshape(-1, BLOCK // 8)
        return await self.put(
            first_frame, batch_of(data, numbers, refs), payload.view(np.uint8), in_gap=in_gap
        )

    async def put(
        self, first_frame: int, batch: Batch, payload: U8, *, in_gap: bool = False, inline: int = 0
    ) -> Stored:
        """Store ``payload`` (n, BLOCK), as the shipper does: in an object of its own, or, up to
        ``inline`` bytes, in the commit that names it."""
        keys, writer = self.session.keys, self.session.writer
        sealed: list[bytes] = []
        counts = []
        for at in range(0, len(payload), FRAME_BLOCKS):
            some = payload[at : at + FRAME_BLOCKS]
            packed = self._pack.compress(some.tobytes())
            sealed.append(
                frame.seal(
                    writer.scope,
                    keys.data or b"",
                    keys.epoch,
                    first_frame + len(sealed),
                    Frame(frame.ZSTD, len(some), packed),
                    writer.machine.entropy,
                )
            )
            counts.append(len(some))
        spans = np.empty((len(sealed), 3), np.uint32)
        spans[:, 1] = [len(one) for one in sealed]
        spans[:, 0] = np.cumsum(spans[:, 1]) - spans[:, 1]
        spans[:, 2] = counts
        segment = Segment((batch,), in_gap, "quiet", 1)
        size = sum(len(one) for one in sealed)
        if size <= inline:
            return Stored(segment, keys.epoch, first_frame, spans, None, tuple(sealed))
        number, self._objects = self._objects, self._objects + 1
        await writer.store.put(layout.data(writer.scope.group, keys.epoch, number), sealed)
        ref = ObjectRef(number, size, digest(sealed))
        return Stored(segment, keys.epoch, first_frame, spans, ref, ())

    @property
    def next_frame(self) -> int:
        """The number of this term's next frame."""
        return self.tail.next_frame if self.tail.epoch == self.session.keys.epoch else 0

    async def new_term(self) -> None:
        """Begin another term, as a daemon does each day. What was written must be settled."""
        await self.session.open()
        self._objects = 0

    async def commit(self, group: list[Stored], *, settle: bool) -> Header:
        """Put a commit as the shipper does. ``settle`` False: the writer's record is left behind.

        Folding random blocks into that record costs more than all the rest, and only checkpoints
        need it.
        """
        session = self.session
        writer, ledger = session.writer, session.ledger
        header = header_of(self.tail, session.keys.epoch, group, writer.machine.clock.wall_us())
        index = index_of(group)
        plain, entropy = encode_body(index), writer.machine.entropy
        body = seal_body(writer.scope, Kind.COMMIT, session.keys, header.seq, plain, entropy)
        inline = tuple(each for stored in group for each in stored.frames)
        parts = build(Kind.COMMIT, header.fields(writer.scope), writer.signer, body, inline)
        locations = ledger.record.resolve(header, index) if settle else np.empty((0, 1), np.uint64)
        intent = intent_of(header, parts, plain, group, locations)
        if settle:
            await session.advance(intent, parts)
            self.tail = ledger.tail
        else:
            await writer.store.put(layout.commit(writer.scope.group, header.seq), parts)
            self.tail = replace(
                self.tail,
                seq=header.seq,
                link=intent.link,
                next_frame=header.first_frame + header.frames,
                last_consistent=header.seq if header.consistent else header.last_consistent,
                stamp=header.stamp,
            )
        await self._rollups.committed(header.seq, intent.head)
        return header

    async def checkpoint(self, *, when_due: bool = False) -> bool:
        """Write a checkpoint at the tail, which must be settled; whether it was due."""
        checkpointer = Checkpointer(self.session)
        if when_due and not checkpointer.due():
            return False
        await checkpointer.write()
        self.tail = self.session.ledger.tail
        return True


def batch_of(data: U64, numbers: U64, refs: U64) -> Batch:
    """The index of a segment; its payload is in frames already."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)  # spread like real digests
    ref_mixed = refs[:, 1] * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    return Batch(
        disk=0,
        data=data,
        payload=np.empty((0, BLOCK), np.uint8),
        digests=np.column_stack((mixed, mixed[::-1])),
        zero=Runs.none(),
        refs=refs,
        ref_digests=np.column_stack((ref_mixed, ref_mixed)),
        chunk_first=0,
        chunk_digests=empty_pairs(),
        scanned=0,
    )
