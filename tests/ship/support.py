"""Writers without a scan: commits made by hand, and a model of what the vault then holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import zstandard
from blake3 import blake3

from stages.channel import Channel
from stages.compress.stage import pack_frames
from stages.crypto.sign import Signer
from stages.model import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BLOCKS,
    U64,
    Batch,
    Disk,
    Runs,
    SealedSegment,
    Segment,
    empty_pairs,
)
from stages.ports import Machine
from stages.ship.group import found_group
from stages.ship.ledger import Ledger
from stages.ship.session import LogSession, Writer
from stages.ship.stage import Ship
from stages.stage import crew
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.charter import Charter, Member, encode
from stages.vault.frame import seal
from stages.vault.keyfile import PrivateKey, generate
from stages.vault.records import MachineRecord, machine_object
from stages.vault.sealing import Scope
from tests.ports.watched import Around, InlineOffload, WatchedFiles
from tests.store.doubles import StillClock
from tests.whole.memfiles import MemFiles
from tests.whole.world import NAME, YEAR_2100, Dice

GROUP = bytes(range(16))
DIGEST_KEY = bytes(range(32))
FOLDER = "/state"


def block(seed: int) -> bytes:
    """Content that is not zero and does not compress."""
    return blake3(seed.to_bytes(8, "little")).digest(BLOCK)


def digest_of(content: bytes) -> tuple[int, int]:
    """As good as the scan's: equal for equal content, (0, 1) for zeros."""
    if not any(content):
        return 0, 1
    found = blake3(content).digest(16)
    return int.from_bytes(found[:8], "little") or 1, int.from_bytes(found[8:], "little")


@dataclass
class Content:
    """What the disks hold, by number."""

    disks: dict[int, bytearray] = field(default_factory=dict)

    def batch(
        self,
        disk: int,
        data: Mapping[int, bytes] | None = None,
        zero: Sequence[tuple[int, int]] = (),
        refs: Mapping[int, tuple[int, int]] | None = None,
        chunks: Sequence[int] = (),
    ) -> Batch:
        """Change a disk: ``data`` and ``zero`` first, then ``refs``, block to (disk, block).

        ``chunks``: consecutive ones whose digests are told.
        """
        data, refs = data or {}, refs or {}
        content = self.disks[disk]
        for at, new in data.items():
            content[at * BLOCK : (at + 1) * BLOCK] = new
        for start, count in zero:
            content[start * BLOCK : (start + count) * BLOCK] = bytes(count * BLOCK)
        for at, target in refs.items():
            content[at * BLOCK : (at + 1) * BLOCK] = self.at(*target)
        pairs = [(at, d << BLOCK_BITS | b) for at, (d, b) in sorted(refs.items())]
        blocks = sorted(data)
        whole = [self._chunk(disk, chunk) for chunk in chunks]
        return Batch(
            disk=disk,
            data=np.array(blocks, np.uint64),
            payload=np.frombuffer(b"".join(data[at] for at in blocks), np.uint8).reshape(-1, BLOCK),
            digests=_pairs([digest_of(data[at]) for at in blocks]),
            zero=Runs(
                np.array([start for start, _ in zero], np.uint64),
                np.array([count for _, count in zero], np.uint64),
            ),
            refs=_pairs(pairs),
            ref_digests=_pairs([digest_of(self.at(disk, at)) for at, _ in pairs]),
            chunk_first=chunks[0] if chunks else 0,
            chunk_digests=_pairs(whole),
            scanned=BLOCK,
        )

    def at(self, disk: int, at: int) -> bytes:
        return bytes(self.disks[disk][at * BLOCK : (at + 1) * BLOCK])

    def resize(self, disk: int, blocks: int) -> None:
        content = self.disks.setdefault(disk, bytearray())
        del content[blocks * BLOCK :]
        content.extend(bytes(blocks * BLOCK - len(content)))

    def _chunk(self, disk: int, chunk: int) -> tuple[int, int]:
        size = CHUNK_BLOCKS * BLOCK
        return digest_of(bytes(self.disks[disk][chunk * size : (chunk + 1) * size]))


def _pairs(rows: Iterable[tuple[int, int]]) -> U64:
    found = list(rows)
    return np.array(found, np.uint64) if found else empty_pairs()


class Bench:
    """A vault, two admitted writers' keys and one that is not, a place for state folders."""

    def __init__(self, seed: int = 1):
        self.files = MemFiles()
        self.store = MemoryStore()
        self.clock = StillClock(now=YEAR_2100)
        self.entropy = Dice(seed)
        self.key: PrivateKey = generate("operator", self.entropy)
        self.signers = [Signer(self.entropy.token(32)) for _ in range(3)]
        self.charter = Charter(
            vault=self.entropy.token(16),
            operator=self.key.signer.public,
            generation=1,
            cipher="aegis256",
            recipients=(Member(self.key.box.public, "operator"),),
            writers=tuple(Member(signer.public, "daemon") for signer in self.signers[:2]),
        )
        self.key = self.key.pinned(self.charter.pin())
        self.scope = Scope(self.charter.vault, GROUP, self.charter.cipher)
        self.files.mkdir(FOLDER)
        self.files.sync_dir("/")

    async def found(self) -> None:
        """Vault and group exist from here on."""
        await self.store.put(layout.VAULT, [encode(self.charter, self.key.signer)])
        await found_group(self.writer(), DIGEST_KEY)

    def machine(self, around: Around | None = None) -> Machine:
        files = WatchedFiles(around, self.files) if around else self.files
        return Machine(self.clock, InlineOffload(), self.entropy, files)

    def writer(
        self, store: ObjectStore | None = None, *, who: int = 0, around: Around | None = None
    ) -> Writer:
        return Writer(
            store or self.store,
            self.scope,
            self.charter,
            self.signers[who],
            self.machine(around),
        )

    def ledger(self, folder: str = FOLDER, around: Around | None = None) -> Ledger:
        ledger = Ledger(self.machine(around), folder, self.scope)
        ledger.recover()
        return ledger

    def author(
        self,
        store: ObjectStore | None = None,
        *,
        folder: str = FOLDER,
        who: int = 0,
        around: Around | None = None,
    ) -> Author:
        return Author(self.writer(store, who=who, around=around), self.ledger(folder, around))

    async def opened(self, store: ObjectStore | None = None, folder: str = FOLDER) -> Author:
        """A new life of the writer of a folder."""
        author = self.author(store, folder=folder)
        await author.open()
        return author

    def clone(self) -> Bench:
        return copy.deepcopy(self)


class Author:
    """One life of a writer: a session, and commits on it."""

    def __init__(self, writer: Writer, ledger: Ledger):
        self.ledger = ledger
        self.session = LogSession(writer, ledger)
        self._frames = 0
        self._objects = 0

    async def open(self) -> None:
        await self.session.open()

    async def disks(self, *disks: Disk) -> None:
        """What is protected from here on."""
        number = self.ledger.machine + 1
        writer = self.session.writer
        record = MachineRecord(number, NAME, disks)
        parts = machine_object(
            writer.scope, self.session.keys, record, writer.signer, writer.machine.entropy
        )
        await writer.store.put(layout.machine(GROUP, number), parts)
        self.ledger.set_disks(number, disks)

    async def commit(self, *batches: Batch, in_gap: bool = False, inline: int = 1 << 20) -> int:
        """One commit of these batches; returns its number."""
        await self.ship([self.sealed(batches, in_gap=in_gap)], inline=inline)
        return self.ledger.tail.seq

    async def ship(self, segments: Sequence[SealedSegment], *, inline: int = 1 << 20) -> None:
        """Run the ship stage over whole segments."""
        source: Channel[SealedSegment] = Channel("sealed", max_bytes=1 << 30, max_items=100_000)
        ship = Ship(self.session, source, in_flight=2, inline=inline)
        ship._next_object = self._objects
        with source:
            for segment in segments:
                await source.send(segment, 1)
        async with crew() as nursery:
            nursery.start_soon(ship.run)
        self._objects = ship._next_object

    def sealed(self, batches: Sequence[Batch], *, in_gap: bool = False) -> SealedSegment:
        """What compress and encrypt would make of a segment."""
        segment = Segment(tuple(batches), in_gap, "quiet", self.ledger.machine)
        frames = pack_frames(segment.batches, zstandard.ZstdCompressor(level=1))
        keys, writer, first = self.session.keys, self.session.writer, self._frames
        assert keys.data
        self._frames += len(frames)
        stored = tuple(
            seal(writer.scope, keys.data, keys.epoch, first + at, frame, writer.machine.entropy)
            for at, frame in enumerate(frames)
        )
        bare = tuple(
            replace(batch, payload=np.empty((0, BLOCK), np.uint8)) for batch in segment.batches
        )
        return SealedSegment(
            replace(segment, batches=bare),
            keys.epoch,
            first,
            stored,
            tuple(frame.blocks for frame in frames),
        )

    def close(self) -> None:
        self.ledger.close()


def disk(number: int, blocks: int, *, less: int = 0) -> Disk:
    """A disk of so many blocks, the last short of ``less`` bytes."""
    return Disk(number, f"d{number}", blocks * BLOCK - less)


def arrays(ledger: Ledger) -> dict[str, bytes]:
    """The content of all arrays but the frame directories, by name."""
    return {
        name: array.read(0, array.rows).tobytes()
        for name, array in ledger.record.arrays()
        if name.startswith("disk-")
    }
