"""Vaults made to measure: huge disks with a long log, holding few bytes.

A block's content is one 64-bit number repeated, so frames compress to nearly nothing while maps,
indexes and logs are as large as those of real data. All objects are made by the shipping code of
the data plane; only waiting for the disk is left out, because nobody relies on these vaults.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import trio
import zstandard

from stages.crypto.digest import digest
from stages.crypto.sign import Signer
from stages.model import (
    BLOCK,
    FRAME_BLOCKS,
    U64,
    Batch,
    Disk,
    Frame,
    Runs,
    Segment,
    empty_pairs,
    pack_block,
)
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
MACHINE, DISK = "huge", "root"
_EXTENT = 1024  # blocks written together by the base
_SEGMENT = 4096  # blocks of one data object of the base
_TILE = 32768  # blocks mapped by one commit of references
_SEED = 20240131


@dataclass(frozen=True, slots=True)
class Made:
    """A vault, how to open it, and what some of its blocks hold: ``probes`` of block, number."""

    vault: str
    key: str
    state: str
    signer: str
    group: str
    disk_bytes: int
    tail: int
    checkpoint: int
    probes: tuple[tuple[int, int], ...]
    window: int

    def save(self, path: Path) -> Path:
        """As JSON, for measuring processes."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @staticmethod
    def load(path: Path) -> Made:
        """Undo ``save``."""
        fields = json.loads(path.read_text())
        fields["probes"] = tuple((block, number) for block, number in fields["probes"])
        return Made(**fields)


class _UnsyncedFile(SystemFile):
    def fsync(self) -> None:
        """Not for vaults that are thrown away."""

    def fdatasync(self) -> None:
        """Likewise."""


class UnsyncedFiles(SystemFiles):
    """The file system without waiting for the disk."""

    def open_write(self, path: str, *, create: bool = False, new: bool = False) -> OpenFile:
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


async def long_log(folder: Path, disk_bytes: int, written: int, commits: int) -> Made:
    """A disk of which ``written`` bytes are checkpointed, and ``commits`` of 500 blocks after that.

    What is written lies in extents of 4 MiB all over the disk; commits rewrite single blocks of it.
    """
    builder, made = await Builder.begin(folder, disk_bytes)
    dice = np.random.default_rng(_SEED)
    blocks = scattered(disk_bytes // BLOCK, written // BLOCK, dice)
    latest = np.arange(1, len(blocks) + 1, dtype=np.uint64)
    steps = list(range(0, len(blocks), 16 * _SEGMENT))
    for start in steps:
        group: list[Stored] = []
        next_frame = builder.tail.next_frame
        for at in range(start, min(start + 16 * _SEGMENT, len(blocks)), _SEGMENT):
            piece = slice(at, at + _SEGMENT)
            gap = start != steps[-1]
            stored = await builder.store(
                next_frame, blocks[piece], latest[piece], empty_pairs(), in_gap=gap
            )
            next_frame += len(stored.spans)
            group.append(stored)
        await builder.commit(group, settle=True)
    await builder.checkpoint()
    checkpoint = builder.tail.seq
    for number in range(commits):
        count = min(500, len(blocks))
        picked = np.sort(dice.choice(len(blocks), count, replace=False, shuffle=False))
        latest[picked] = np.arange(count, dtype=np.uint64) | np.uint64((number + 1) << 32)
        stored = await builder.store(
            builder.tail.next_frame, blocks[picked], latest[picked], empty_pairs(), in_gap=False
        )
        await builder.commit([stored], settle=False)
    probes = dice.choice(len(blocks), min(64, len(blocks)), replace=False)
    builder.session.ledger.close()
    return replace(
        made,
        tail=builder.tail.seq,
        checkpoint=checkpoint,
        probes=tuple((int(blocks[at]), int(latest[at])) for at in probes),
    )


async def wide_map(folder: Path, disk_bytes: int, mapped: int) -> Made:
    """A huge disk of which ``mapped`` bytes are mapped by references to a few blocks each.

    In stretches of up to 1 GiB all over the disk; no checkpoint yet, the writer's record is kept.
    """
    builder, made = await Builder.begin(folder, disk_bytes)
    dice = np.random.default_rng(_SEED)
    probes: list[tuple[int, int]] = []
    starts = list(tiles(disk_bytes // BLOCK, mapped // BLOCK))
    for number, start in enumerate(starts):
        data = np.arange(start, start + FRAME_BLOCKS, dtype=np.uint64)
        values = np.arange(FRAME_BLOCKS, dtype=np.uint64) | np.uint64((number + 1) << 32)
        others = np.arange(start + FRAME_BLOCKS, start + _TILE, dtype=np.uint64)
        targets = np.uint64(start) + (others - np.uint64(start)) % np.uint64(FRAME_BLOCKS)
        refs = np.column_stack((others, pack_block(0, targets)))
        stored = await builder.store(builder.tail.next_frame, data, values, refs, in_gap=False)
        await builder.commit([stored], settle=True)
        probe = int(dice.integers(_TILE))
        probes.append((start + probe, int(values[probe % FRAME_BLOCKS])))
    builder.session.ledger.checkpoint_state()
    builder.session.ledger.close()
    picked = dice.permutation(len(probes))[:64].tolist()
    return replace(
        made,
        tail=builder.tail.seq,
        probes=tuple(probes[at] for at in picked),
        window=starts[len(starts) // 2],
    )


def scattered(disk: int, written: int, dice: np.random.Generator) -> U64:
    """Ascending blocks (written,) in extents, one somewhere in each equal share of the disk."""
    extents = max(1, written // _EXTENT)
    length = min(_EXTENT, written)
    share = disk // extents
    if share < length:
        raise ValueError(f"{written} blocks do not fit into {disk}")
    starts = np.arange(extents) * share + dice.integers(0, share - length + 1, extents)
    return (starts[:, None] + np.arange(length)).reshape(-1).astype(np.uint64)


def tiles(disk: int, mapped: int) -> Iterator[int]:
    """First blocks of ``mapped`` / ``_TILE`` tiles: eight side by side, then a gap."""
    count = max(1, mapped // _TILE)
    stride = max(8 * _TILE, disk // -(-count // 8))
    for tile in range(count):
        yield tile // 8 * stride + tile % 8 * _TILE


def content(number: int) -> bytes:
    """What a block of that number holds."""
    return number.to_bytes(8, "little") * (BLOCK // 8)


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
