"""Writes vaults with the real parts of the ship stage, one step at a time, from a seed."""

from __future__ import annotations

import numpy as np
import zstandard

from stages.compress.stage import pack_frames
from stages.crypto.digest import digest
from stages.digests import DigestKeys, block_digests
from stages.model import BLOCK, U8, Batch, Disk, Runs, SealedSegment, Segment, empty_pairs
from stages.ports import Machine
from stages.ship.checkpointer import Checkpointer
from stages.ship.compose import Stored, header_of, index_of, intent_of, spans_of
from stages.ship.group import found_group
from stages.ship.ledger import Ledger
from stages.ship.rollups import Rollups
from stages.ship.session import LogSession, Writer
from stages.store.port import ObjectStore
from stages.vault import frame, layout
from stages.vault.commit import Header, ObjectRef, encode_body
from stages.vault.container import Kind, build
from stages.vault.records import MachineRecord, machine_object
from stages.vault.sealing import seal_body
from tests.vault.support import SECOND, People, SeededEntropy


def batch_of(
    disk: int,
    content: dict[int, bytes] | None = None,
    *,
    zero: tuple[tuple[int, int], ...] = (),
    refs: tuple[tuple[int, int, int], ...] = (),
    digest_key: bytes = bytes(32),
) -> Batch:
    """Blocks with content, zero runs, references (block, other disk, other block)."""
    blocks = sorted(content or {})
    payload = b"".join((content or {})[block] for block in blocks)
    keys = DigestKeys.derive(digest_key)
    data: U8 = np.frombuffer(payload, np.uint8).reshape(-1, BLOCK)
    pairs = [(block, other << 48 | target) for block, other, target in refs]
    runs = np.array(zero, np.uint64).reshape(-1, 2)
    return Batch(
        disk=disk,
        data=np.array(blocks, np.uint64),
        payload=data,
        digests=block_digests(memoryview(payload), range(len(blocks)), keys),
        zero=Runs(runs[:, 0], runs[:, 1]),
        refs=np.array(pairs, np.uint64).reshape(-1, 2),
        ref_digests=np.ones((len(refs), 2), np.uint64),
        chunk_first=0,
        chunk_digests=empty_pairs(),
        scanned=0,
    )


class Author:
    """One writer's session on one group of a new or known vault."""

    def __init__(self, people: People, store: ObjectStore, folder: str, machine: Machine):
        self.scope = people.scope()
        self.store = store
        self.machine = machine
        self.writer = Writer(store, self.scope, people.charter, people.daemon, machine)
        # Its own randomness: what it draws for names of files is not part of the format.
        own = Machine(machine.clock, machine.offload, SeededEntropy(folder), machine.files)
        self.ledger = Ledger(own, folder, self.scope)
        self.session = LogSession(self.writer, self.ledger)
        self._next_frame = self._next_object = 0
        self._compressor = zstandard.ZstdCompressor(level=1)

    async def begin(self, digest_key: bytes = bytes(32)) -> None:
        """Make the group if it is new; begin a term."""
        self.ledger.recover()
        await found_group(self.writer, digest_key)
        await self.session.open()
        self.rollups = Rollups(self.session)

    def restart_numbers(self) -> None:
        """A new term counts its frames and objects from 0."""
        self._next_frame = self._next_object = 0

    async def describe(self, number: int, *disks: Disk) -> None:
        """Store a machine record and follow it."""
        parts = machine_object(
            self.scope,
            self.session.keys,
            MachineRecord(number, "web1", disks),
            self.writer.signer,
            self.machine.entropy,
        )
        await self.store.put(layout.machine(self.scope.group, number), parts)
        self.ledger.set_disks(number, disks)

    async def commit(
        self, *segments: tuple[Batch, ...], in_gap: bool = False, grade: str = "quiet"
    ) -> Header:
        """One commit of some segments; those of more than 8 KiB go to objects of their own."""
        group = [
            await self._store(Segment(each, in_gap, grade, self.ledger.machine))
            for each in segments
        ]
        self.machine.clock.wall += SECOND  # type: ignore[attr-defined]
        wall = self.machine.clock.wall_us()
        header = header_of(self.ledger.tail, self.session.keys.epoch, group, wall)
        index = index_of(group)
        plain = encode_body(index)
        body = seal_body(
            self.scope, Kind.COMMIT, self.session.keys, header.seq, plain, self.machine.entropy
        )
        inline = tuple(each for stored in group for each in stored.frames)
        parts = build(Kind.COMMIT, header.fields(self.scope), self.writer.signer, body, inline)
        locations = self.ledger.record.resolve(header, index)
        intent = intent_of(header, parts, plain, group, locations)
        await self.session.advance(intent, parts)
        await self.rollups.committed(header.seq, intent.head)
        return header

    async def checkpoint(self) -> None:
        """A checkpoint at the tail, due or not."""
        await Checkpointer(self.session).write()

    def end(self) -> None:
        """Keep the record for a later session."""
        self.ledger.checkpoint_state()
        self.ledger.close()

    async def _store(self, segment: Segment) -> Stored:
        keys = self.session.keys
        packed = pack_frames(segment.batches, self._compressor)
        first, self._next_frame = self._next_frame, self._next_frame + len(packed)
        frames = tuple(
            frame.seal(
                self.scope, keys.data or b"", keys.epoch, first + at, each, self.machine.entropy
            )
            for at, each in enumerate(packed)
        )
        sealed = SealedSegment(
            segment, keys.epoch, first, frames, tuple(each.blocks for each in packed)
        )
        spans = spans_of(sealed)
        if sealed.stored_bytes <= 2 * BLOCK:
            return Stored(segment, keys.epoch, first, spans, None, frames)
        number, self._next_object = self._next_object, self._next_object + 1
        await self.store.put(layout.data(self.scope.group, keys.epoch, number), frames)
        ref = ObjectRef(number, sealed.stored_bytes, digest(frames))
        return Stored(segment, keys.epoch, first, spans, ref, ())
