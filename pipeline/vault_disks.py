"""Which of the vault's disks each of the stream's is, and what intake's scan may ask of them.

The stream numbers disks as they come and go; the vault by their names, for as long as a name is not
given to another disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.state import Identity
from stages import durable
from stages.cache.fold.stage import NewGeometry
from stages.model import U64, Disk, chunks_of
from stages.ports import Machine
from stages.ship.ledger import Ledger

_MAX_NOTE = 1 << 20


@dataclass
class Numbers:
    """Which of the vault's disks each of the stream's is; kept beside the record of the vault."""

    disks: dict[int, Disk] = field(default_factory=dict)  # by the stream's number, vault's inside
    machine: int = 0  # the machine record that says so

    def encode(self) -> bytes:
        """As a file."""
        rows = [[at, disk.number, disk.name, disk.size] for at, disk in self.disks.items()]
        return json.dumps({"machine": self.machine, "disks": rows}).encode()

    @staticmethod
    def decode(data: bytes) -> Numbers:
        """Undo ``encode``."""
        fields = json.loads(data)
        rows = fields["disks"]
        return Numbers(
            {int(at): Disk(int(n), str(name), int(size)) for at, n, name, size in rows},
            int(fields["machine"]),
        )

    def following(
        self, found: NewGeometry, known: Iterable[Disk], next_number: int
    ) -> dict[int, Disk]:
        """The vault's disks from a change of the stream's on, by the stream's numbers.

        ``known``: the vault's until then. A disk of a known name is the same one, unless the stream
        has given it another number meanwhile: then it was taken away and is another, and gets
        ``next_number`` or one after it, like one of a new name.
        """
        disks: dict[int, Disk] = {}
        by_name = {disk.name: disk for disk in known}
        for number, name, size in found.disks:
            same = by_name.get(name)
            moved = self.disks and number not in self.disks and same is not None
            if same is None or moved:
                disks[number] = Disk(next_number, name, size)
                next_number += 1
            else:
                disks[number] = Disk(same.number, name, size)
        return disks


async def load(machine: Machine, folder: str) -> Numbers:
    """What ``keep`` left beside the record of the vault. Raises ``OSError``, ``ValueError``."""
    files, path = machine.files, _path(folder)

    def look() -> Numbers:
        if files.stat(path) is None:
            return Numbers()
        return Numbers.decode(files.read(path, _MAX_NOTE))

    return await machine.offload.run(look)


async def keep(machine: Machine, folder: str, numbers: Numbers) -> None:
    """Durable on return. Raises ``OSError``."""
    token = machine.entropy.token(8).hex()
    data = numbers.encode()
    await machine.offload.run(
        lambda: durable.replace(machine.files, _path(folder), data, token=token)
    )


def _path(folder: str) -> str:
    return f"{folder}/numbers"


def is_news(disk: Disk, before: Disk | None) -> bool:
    """The vault has not seen all of it."""
    return before is None or before.number != disk.number or before.size < disk.size


class Answers:
    """What intake's scan may ask (``Digests``), out of the ledger."""

    def __init__(self, machine: Machine, ledger: Ledger, identity: Identity, numbers: Numbers):
        self._machine = machine
        self._ledger = ledger
        self._identity = identity
        self.numbers = numbers

    async def key(self) -> bytes:
        """The group's digest key."""
        return self._identity.digest_key

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``."""
        found = self.numbers.disks.get(disk)
        return await self._read(
            found, self._ledger.chunks, chunks_of(found.size) if found else 0, first, count
        )

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``."""
        found = self.numbers.disks.get(disk)
        return await self._read(
            found, self._ledger.blocks, found.blocks if found else 0, first, count
        )

    async def _read(
        self,
        disk: Disk | None,
        read: Callable[[int, int, int], U64],
        rows: int,
        first: int,
        count: int,
    ) -> U64:
        """Unknown where the vault's disk does not reach."""
        answer = np.zeros((count, 2), np.uint64)
        there = min(count, max(0, rows - first))
        if disk is not None and there:
            number = disk.number
            answer[:there] = await self._machine.offload.run(lambda: read(number, first, there))
        return answer
