"""Vaults with a history, and a model of what every commit's disks hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory
from typing import TypeAlias

import trio

from stages.model import BLOCK, Disk
from stages.ports import Machine
from stages.recover.opened import Group, open_vault
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.vault.commit import Header
from tests.vault.author import Author, batch_of
from tests.vault.support import People, noise_block, put_charter, seeded_machine

Blocks: TypeAlias = dict[int, bytes]  # content of a disk; what is not there is zeros
Change: TypeAlias = tuple[int, Mapping[int, bytes]]  # disk number, blocks

PEOPLE = People.of("recover")


@dataclass(frozen=True)
class Moment:
    """What the disks hold at a commit."""

    header: Header
    disks: tuple[Disk, ...]
    blocks: dict[int, Blocks]

    def image(self, number: int) -> bytes:
        """A disk's bytes."""
        disk = next(disk for disk in self.disks if disk.number == number)
        held = self.blocks.get(number, {})
        zeros = bytes(BLOCK)
        return b"".join(held.get(at, zeros) for at in range(disk.blocks))[: disk.size]


@dataclass
class Past:
    """A writer's session, and all moments so far by commit."""

    author: Author
    disks: tuple[Disk, ...] = ()
    blocks: dict[int, Blocks] = field(default_factory=dict)
    moments: dict[int, Moment] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        """The newest commit."""
        return max(self.moments, default=0)

    @property
    def machine(self) -> int:
        """Number of the machine record in force."""
        return self.author.ledger.machine

    async def describe(self, *disks: Disk) -> None:
        """A new machine record; what a disk loses by it reads zeros if it comes back."""
        self.disks = disks
        for disk in disks:
            held = self.blocks.setdefault(disk.number, {})
            self.blocks[disk.number] = {at: held[at] for at in held if at < disk.blocks}
        await self.author.describe(self.machine + 1, *disks)

    async def write(
        self,
        *changes: Change,
        zero: Mapping[int, tuple[tuple[int, int], ...]] | None = None,
        refs: Mapping[int, tuple[tuple[int, int, int], ...]] | None = None,
        in_gap: bool = False,
        grade: str = "quiet",
    ) -> int:
        """One commit of one segment; the number of the commit.

        ``zero``: runs (block, count) by disk; ``refs``: (block, other disk, other block) by disk.
        """
        data, zeros, copies = dict(changes), dict(zero or {}), dict(refs or {})
        batches = [
            batch_of(
                number,
                dict(data.get(number, {})),
                zero=zeros.get(number, ()),
                refs=copies.get(number, ()),
            )
            for number in sorted({*data, *zeros, *copies})
        ]
        self._apply(data, zeros, copies)
        header = await self.author.commit(tuple(batches), in_gap=in_gap, grade=grade)
        held = {number: dict(blocks) for number, blocks in self.blocks.items()}
        self.moments[header.seq] = Moment(header, self.disks, held)
        return header.seq

    async def group(self, store: ObjectStore | None = None) -> Group:
        """The group as a bare machine opens it."""
        return await open_group(store or self.author.store)

    async def group_by_id(self) -> Group:
        """The same, without its name."""
        return await open_group(self.author.store, self.author.scope.group.hex())

    def _apply(
        self,
        data: dict[int, Mapping[int, bytes]],
        zero: dict[int, tuple[tuple[int, int], ...]],
        refs: dict[int, tuple[tuple[int, int, int], ...]],
    ) -> None:
        for number, blocks in data.items():
            self.blocks[number].update(blocks)
        for number, runs in zero.items():
            for start, count in runs:
                for at in range(start, start + count):
                    self.blocks[number].pop(at, None)
        zeros = bytes(BLOCK)
        taken = [
            (number, block, self.blocks[other].get(target, zeros))
            for number, rows in refs.items()
            for block, other, target in rows
        ]
        for number, block, content in taken:
            self.blocks[number][block] = content


@asynccontextmanager
async def past(*disks: Disk, store: ObjectStore | None = None) -> AsyncIterator[Past]:
    """A new vault of one machine, ``web1``, with these disks."""
    with TemporaryDirectory() as folder:
        machine = seeded_machine("recover")
        store = store or MemoryStore()
        await put_charter(store, PEOPLE.charter, PEOPLE.operator.signer)
        author = Author(PEOPLE, store, folder, machine)
        await author.begin()
        made = Past(author)
        await made.describe(*disks)
        yield made
        author.end()


async def open_group(store: ObjectStore, name: str = "web1") -> Group:
    """Open a vault made by ``past``, and find its machine."""
    return await (await open_vault(store, PEOPLE.operator)).find(name)


def machine(files: object = None) -> Machine:
    """Ports to recover with, no threads."""
    made = seeded_machine("reader")
    return made if files is None else replace(made, files=files)  # type: ignore[arg-type]


def noise(first: int, count: int, *, word: str = "") -> Blocks:
    """Blocks that do not compress."""
    return {at: noise_block(f"{word} {at}") for at in range(first, first + count)}


class CountingStore(MemoryStore):
    """Remembers every get; ``before`` runs first and may raise; ``gate`` holds data back."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: trio.Event | None = None
        self.gets: list[tuple[str, int, int | None]] = []
        self.before: Callable[[str], None] = lambda _: None

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self.gets.append((key, offset, length))
        self.before(key)
        if self.gate is not None and "/data/" in key:
            await self.gate.wait()
        return await super().get(key, offset, length)

    async def spoil(self, key: str, at: int, *, cut: bool = False) -> None:
        """Invert one byte of an object, or end it there."""
        data = bytearray(await super().get(key))
        await self.delete(key)
        if cut:
            del data[at:]
        else:
            data[at] ^= 0xFF
        await self.put(key, [data])

    async def keys(self, part: str) -> list[str]:
        """All keys with ``part`` in them."""
        return [info.key for info in await self.page("") if part in info.key]
