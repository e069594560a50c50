"""The invariants, held against the model (architecture.md, 6)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from stages.crypto.digest import digest
from stages.digests import DigestKeys, block_digests, raw_chunk_digests
from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, U64
from stages.ship.ledger import Ledger
from stages.stream import ORIGIN, Position
from stages.vault.commit import Header
from tests.simulation.guests import Wrong
from tests.simulation.image import Image
from tests.simulation.model import Expected, Life, Model, Op


@dataclass(frozen=True, slots=True)
class Known:
    """What delivery says of a disk: digests (n, 2) of blocks and of chunks, under ``key``."""

    disk: str
    key: bytes
    blocks: U64
    chunks: U64


@dataclass
class Checker:
    """``places``: where in the stream each commit put ends, by the digest of its object."""

    model: Model
    image: Image
    places: dict[bytes, Position] = field(default_factory=dict)
    known: dict[int, list[Known]] = field(default_factory=dict)  # by commit
    frozen: dict[int, dict[str, bytes]] = field(default_factory=dict)  # by commit
    writers: list[tuple[str, int]] = field(default_factory=list)  # who settled which commit
    points: int = 0
    delivered: Position = ORIGIN
    newest: Position = ORIGIN  # of consistent points
    _life: Life | None = None
    _expected: Expected | None = None

    def learn(self, ledger: Ledger, key: bytes) -> None:
        """Delivery has begun: what it says of the vault's content as of its tail."""
        for disk in ledger.disks.values():
            blocks = ledger.blocks(disk.number, 0, disk.blocks)
            chunks = ledger.chunks(disk.number, 0, -(-disk.blocks // CHUNK_BLOCKS))
            found = Known(disk.name, key, blocks, chunks)
            self.known.setdefault(ledger.tail.seq, []).append(found)

    def recovered(self, kept: dict[int, int]) -> None:
        """What intake has found of its journal: for each run where it ends."""
        if not self.model.lives:
            return
        run, offset = self.model.life.flushed
        if offset > kept.get(run, 0) and self.delivered < (run, offset):
            raise Wrong(f"flush: the journal of run {run} should reach to {offset}: {kept}")
        run, offset = self.delivered
        if run in kept and offset > kept[run]:
            raise Wrong(f"R2: {offset} of run {run} was delivered, the journal ends at {kept[run]}")

    async def follow(self) -> None:
        """Check every commit that is new."""
        self._one_writer()
        tail = await self.image.tail()
        self._check_known()
        while self.image.seq < tail:
            header, whole = await self.image.advance()
            position = self.places[digest([whole])]
            if position < self.delivered:
                raise Wrong(f"#{header.seq} goes back from {self.delivered} to {position}")
            self.delivered = position
            if header.consistent:
                self._check_point(header, position)
            self._check_known()

    def settle(self, sources: dict[str, bytes]) -> None:
        """All is quiet: the newest point and the sources are equal."""
        for disk, content in sources.items():
            bad = _differing(self.image.content(disk), content)
            if bad:
                raise Wrong(f"heals: {disk}, blocks {bad[:8]} of the newest point are not the disk")

    def _check_point(self, header: Header, position: Position) -> None:
        self.points += 1
        if position < self.newest:
            raise Wrong(f"point #{header.seq} goes back to {position}")
        self.newest = position
        life = self.model.life_of(position.run)
        if life is not self._life or self._expected is None:
            self._life, self._expected = life, Expected(life)
        rest = self._expected.advance(position)
        unsure = self._expected.unsure(rest)
        for disk, content in self._expected.content.items():
            for block in _differing(self.image.content(disk), content):
                self._check_block(header, position, disk, block, rest)
            for _, block in [one for one in unsure if one[0] == disk]:
                self._check_block(header, position, disk, block, rest)
        for disk, was in self.frozen.pop(header.seq, {}).items():
            if self.image.content(disk) != was:
                raise Wrong(f"R20: point #{header.seq} is not what was frozen")

    def _check_block(
        self, header: Header, position: Position, disk: str, block: int, rest: list[Op]
    ) -> None:
        assert self._expected is not None
        held = self.image.block(disk, block)
        if held not in self._expected.versions(disk, block, rest, position):
            raise Wrong(
                f"prefix: block {block} of {disk} in point #{header.seq} at {tuple(position)}"
                f" is not what was written before it"
            )

    def _check_known(self) -> None:
        for known in self.known.pop(self.image.seq, []):
            content = bytes(self.image.disks.get(known.disk, b""))
            keys = DigestKeys.derive(known.key)
            for name, bad in (
                ("block", _false_blocks(content, known.blocks, keys)),
                ("chunk", _false_chunks(content, known.chunks, keys)),
            ):
                if bad:
                    raise Wrong(f"R3: digests of {name}s {bad[:8]} of {known.disk} are not true")

    def _one_writer(self) -> None:
        """Who has lost the log never wins again, and no commit has two authors."""
        seqs = Counter(seq for _, seq in self.writers)
        order = [name for at, (name, _) in enumerate(self.writers) if self._changes(at)]
        if len(order) != len(set(order)) or max(seqs.values(), default=0) > 1:
            raise Wrong(f"one writer: {self.writers}")

    def _changes(self, at: int) -> bool:
        return at == 0 or self.writers[at - 1][0] != self.writers[at][0]


def _differing(one: bytes | bytearray, other: bytes | bytearray) -> list[int]:
    """Blocks that differ."""
    if one == other:
        return []
    if len(one) != len(other):
        raise Wrong(f"{len(one)} and {len(other)} bytes")
    starts = range(0, len(one), BLOCK)
    return [at // BLOCK for at in starts if one[at : at + BLOCK] != other[at : at + BLOCK]]


def _false_blocks(content: bytes, digests: U64, keys: DigestKeys) -> list[int]:
    view = memoryview(content)
    said = np.flatnonzero(digests.any(axis=1)).tolist()
    live = [at for at in said if digests[at, 0]]
    true = dict(zip(live, block_digests(view, live, keys).tolist(), strict=True))
    return [
        at
        for at in said
        if (digests[at].tolist() != true[at] if at in true else _holds(view[at * BLOCK :][:BLOCK]))
    ]


def _false_chunks(content: bytes, digests: U64, keys: DigestKeys) -> list[int]:
    said = np.flatnonzero(digests.any(axis=1)).tolist()
    false = []
    for at in said:
        piece = content[at * CHUNK : (at + 1) * CHUNK]
        if digests[at, 0]:
            true = raw_chunk_digests(memoryview(piece), [0], keys)
            if digests[at].astype("<u8").tobytes() != true:
                false.append(at)
        elif _holds(piece):
            false.append(at)
    return false


def _holds(piece: bytes | memoryview) -> bool:
    """True unless all of it is zero: compared at once, since stories look at millions of blocks."""
    return bytes(piece) != bytes(len(piece))
