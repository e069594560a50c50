"""Writes the golden vaults: ``python -m tests.vault.build_golden`` from the checkout.

Run it only when the format is changed on purpose: the files it writes are what holds it still.
Everything is drawn from seeds, so the same code gives the same bytes, wherever it runs.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trio
import zstandard
from blake3 import blake3

from stages.model import BLOCK, Batch, Disk
from stages.ports import Buffer
from stages.store.memory import MemoryStore
from stages.store.port import Put
from stages.vault.charter import Member
from stages.vault.keyfile import encode_private, encode_public
from tests.vault.author import Author, batch_of
from tests.vault.support import (
    People,
    SeededEntropy,
    noise_block,
    put_charter,
    seeded_machine,
    text_block,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("aegis256", "xchacha20poly1305")
PASSPHRASE = "correct horse battery staple"
DIGEST_KEY = bytes(range(32))
ROOT = Disk(0, "root", 90 * BLOCK + 100)
DATA = Disk(1, "data", 17_000 * BLOCK)  # three pages of a map
GROWN = Disk(1, "data", 17_100 * BLOCK)
CUT = Disk(0, "root", 60 * BLOCK)


class KeepingStore(MemoryStore):
    """A store in memory that hands over all it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        found = await super().put(key, parts)
        if found is Put.CREATED:
            self.objects[key] = b"".join(parts)
        return found


@dataclass
class Golden:
    """A vault as it should be: objects by key; per commit the digests of the disks' bytes."""

    objects: dict[str, bytes] = field(default_factory=dict)
    points: dict[int, dict[str, str]] = field(default_factory=dict)


class Story:
    """Tells the same batches to a vault and to plain byte arrays."""

    def __init__(self, author: Author):
        self.author = author
        self.disks: dict[int, bytearray] = {}
        self.names: dict[int, str] = {}
        self.points: dict[int, dict[str, str]] = {}

    async def describe(self, number: int, *disks: Disk) -> None:
        await self.author.describe(number, *disks)
        for disk in disks:
            content = self.disks.setdefault(disk.number, bytearray())
            del content[disk.size :]
            content.extend(bytes(disk.size - len(content)))
            self.names[disk.number] = disk.name

    async def commit(
        self,
        *segments: tuple[Batch, ...],
        in_gap: bool = False,
        grade: str = "quiet",
        note: bool = False,
    ) -> None:
        header = await self.author.commit(*segments, in_gap=in_gap, grade=grade)
        for segment in segments:
            self._write(segment)
        if note:
            self.points[header.seq] = {
                self.names[number]: blake3(disk).hexdigest()
                for number, disk in sorted(self.disks.items())
            }

    def _write(self, segment: tuple[Batch, ...]) -> None:
        for batch in segment:
            payload = np.asarray(batch.payload)
            for at, block in enumerate(batch.data.tolist()):
                self._put(batch.disk, block, bytes(payload[at]))
            for start, count in zip(
                batch.zero.start.tolist(), batch.zero.count.tolist(), strict=True
            ):
                self._put(batch.disk, start, bytes(count * BLOCK))
        copies = [
            (batch.disk, block, self._get(target >> 48, target & (1 << 48) - 1))
            for batch in segment
            for block, target in batch.refs.tolist()
        ]
        for disk, block, content in copies:
            self._put(disk, block, content)

    def _put(self, disk: int, block: int, content: bytes) -> None:
        there = self.disks[disk]
        there[block * BLOCK : block * BLOCK + len(content)] = content[: len(there) - block * BLOCK]

    def _get(self, disk: int, block: int) -> bytes:
        content = bytes(self.disks[disk][block * BLOCK : (block + 1) * BLOCK])
        return content + bytes(BLOCK - len(content))


def _batch(disk: int, content: dict[int, bytes] | None = None, **more: object) -> Batch:
    return batch_of(disk, content, digest_key=DIGEST_KEY, **more)  # type: ignore[arg-type]


async def _first_scan(story: Story) -> None:
    """Commit 1: an object of two frames and an inline segment; commit 2: references, the point."""
    words = {block: text_block(f"root {block}") for block in range(70)}
    words |= {block: noise_block(f"root {block}") for block in (80, 81, 82)}
    await story.commit(
        (_batch(0, words), _batch(1, {9: noise_block("data 9")}, zero=((0, 9), (10, 16_990)))),
        (_batch(0, {90: text_block("the last block")[:100] + bytes(BLOCK - 100)}),),
        in_gap=True,
        note=True,
    )
    await story.commit(
        (
            _batch(0, {71: text_block("new")}, refs=((72, 0, 71), (73, 0, 0), (74, 0, 1))),
            _batch(1, refs=((100, 0, 80), (101, 0, 81), (102, 1, 5000), (103, 0, 89))),
            _batch(0, zero=((3, 2),), refs=((75, 1, 9), (76, 0, 72))),
        ),
        note=True,
    )


async def build(name: str, folder: str) -> Golden:
    """A vault with every kind of object. ``folder`` is for the writer's record."""
    machine = seeded_machine(f"golden {name}")
    people = People.of(f"golden {name}", name)
    store = KeepingStore()
    first = people.charter
    await put_charter(store, first, people.operator.signer)
    admitted = first.with_writer(Member(SeededEntropy("another").token(32), "another daemon"))
    await put_charter(store, admitted, people.operator.signer)
    author = Author(people, store, folder, machine)
    await author.begin(DIGEST_KEY)
    story = Story(author)
    await story.describe(1, ROOT, DATA)
    await _first_scan(story)
    await author.checkpoint()
    if name == NAMES[0]:
        await _long_history(story, author)
    author.ledger.close()
    golden = Golden(dict(store.objects), story.points)
    entropy = SeededEntropy(f"key files {name}")
    pin = admitted.pin()
    operator, second = people.operator.pinned(pin), people.second.pinned(pin)
    golden.objects["keys/operator.key"] = encode_private(operator, PASSPHRASE, entropy)
    golden.objects["keys/operator.pub"] = encode_public(operator.public)
    golden.objects["keys/second.key"] = encode_private(second, None, entropy)
    return golden


async def _long_history(story: Story, author: Author) -> None:
    """A second term, disks that grow and shrink, a rollup, a second checkpoint, a fuzzy end."""
    await author.session.open()
    author.restart_numbers()
    await story.describe(2, ROOT, GROWN)
    for seq in range(3, 258):
        if seq in (120, 130):
            await story.describe(seq // 10 - 9, CUT if seq == 120 else ROOT, GROWN)
        content = {seq % 90: text_block(f"commit {seq}")} if seq % 4 else {}
        extra = {17_050: text_block("grown")} if seq == 10 else {}
        await story.commit(
            (_batch(0, content), _batch(1, extra)),
            in_gap=seq % 16 == 5,
            note=seq in (10, 125, 130, 256),
        )
        if seq == 200:
            await author.checkpoint()
    await story.commit((_batch(0, {7: noise_block("torn")}),), grade="fuzzy", note=True)


def write(name: str, golden: Golden) -> None:
    """Store a golden vault: an archive of its objects, and what is expected of it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, data in sorted(golden.objects.items()):
            entry = tarfile.TarInfo(key)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (GOLDEN / f"{name}.tar.xz").write_bytes(lzma.compress(packed.getvalue(), preset=9))
    expected = {
        "zstd": list(zstandard.ZSTD_VERSION),
        "points": {str(seq): disks for seq, disks in golden.points.items()},
    }
    (GOLDEN / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


def read(name: str) -> tuple[Golden, tuple[int, ...]]:
    """A stored golden vault, and the version of zstd that its frames were made with."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    golden = Golden(points={int(seq): disks for seq, disks in expected["points"].items()})
    with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            golden.objects[entry.name] = file.read() if file else b""
    return golden, tuple(expected["zstd"])


async def _main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            write(name, await build(name, folder))


if __name__ == "__main__":
    trio.run(_main)
