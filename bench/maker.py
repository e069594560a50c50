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
from stages.model import BLOCK, FRAME_BLOCKS, U64, Batch, Disk, Frame, Runs, Segment, empty_pairs
from stages.ports import Machine, OpenFile
from stages.ship.checkpointer import Checkpointer
from stages.ship.compose import Stored, header_of, index_of, intent_of
from stages.ship.group import found_group
from stages.ship.ledger import Ledger, Tail
from stages.ship.rollups import Rollups
from stages.ship.session import LogSession, Writer
from stages.store.file import FileStore
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
    async def begin(folder: Path, disk_bytes: int) -> tuple[Builder, Made]:
        """An empty vault, its key, a state folder, and a machine with one disk."""
        ports = Machine(SystemClock(), _Inline(1), SystemEntropy(), UnsyncedFiles())
        entropy = ports.entropy
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
        keys, writer = self.session.keys, self.session.writer
        sealed: list[bytes] = []
        counts = []
        for at in range(0, len(data), FRAME_BLOCKS):
            some = numbers[at : at + FRAME_BLOCKS]
            packed = self._pack.compress(np.repeat(some, BLOCK // 8).tobytes())
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
        number, self._objects = self._objects, self._objects + 1
        await writer.store.put(layout.data(writer.scope.group, keys.epoch, number), sealed)
        ref = ObjectRef(number, sum(len(one) for one in sealed), digest(sealed))
        segment = Segment((_batch(data, numbers, refs),), in_gap, "quiet", 1)
        return Stored(segment, keys.epoch, first_frame, spans, ref, ())

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
        parts = build(Kind.COMMIT, header.fields(writer.scope), writer.signer, body)
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

    async def checkpoint(self) -> None:
        """Write a checkpoint at the tail, which must be settled."""
        await Checkpointer(self.session).write()
        self.tail = self.session.ledger.tail


def _batch(data: U64, numbers: U64, refs: U64) -> Batch:
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
