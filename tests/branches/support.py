"""Histories that branch: each branch with a model of what every commit's disks hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from tempfile import TemporaryDirectory

from pipeline.branching import inherit
from stages.digests import DigestKeys, block_digests
from stages.model import BLOCK, Disk
from stages.recover.opened import Group, open_vault
from stages.recover.pointmap import PointMap
from stages.ship.group import found_group
from stages.ship.ledger import Ledger
from stages.ship.rollups import Rollups
from stages.ship.session import LogSession, Writer
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.system import SystemFiles
from stages.vault.records import Parent
from tests.recover.past import PEOPLE, Moment, Past, machine
from tests.vault.author import Author
from tests.vault.support import put_charter, seeded_machine

KEY = bytes(32)  # the digest key that the builders use


@dataclass
class Branch(Past):
    """A history, and by commit the digest that a branch of it has to name."""

    links: dict[int, bytes] = field(default_factory=dict)

    @property
    def gid(self) -> bytes:
        return self.author.scope.group

    async def write(self, *changes, **more) -> int:  # type: ignore[no-untyped-def]
        seq = await super().write(*changes, **more)
        self.links[seq] = self.author.ledger.tail.link
        return seq

    async def opened(self, store: ObjectStore | None = None) -> Group:
        """As a bare machine opens it, by its id."""
        vault = await open_vault(store or self.author.store, PEOPLE.operator)
        return await vault.group(self.gid)

    def parent(self, seq: int) -> Parent:
        return Parent(self.gid, seq, self.links[seq])


@dataclass
class Forest:
    """A vault, and the histories in it by the order of their making."""

    store: ObjectStore
    stack: AsyncExitStack
    made: list[Branch] = field(default_factory=list)

    async def plant(self, *disks: Disk) -> Branch:
        """A group that begins with nothing."""
        branch = Branch(self._author(), disks)
        await branch.author.begin(KEY)
        await branch.describe(*disks)
        self.made.append(branch)
        return branch

    async def branch(self, of: Branch, seq: int, *disks: Disk) -> Branch:
        """A group that begins at a commit; its disks those of that moment, or ``disks``."""
        moment = of.moments[seq]
        author = self._author()
        group = await of.opened()
        point = await PointMap.build(group, SystemFiles(), seq)
        await inherit(author.ledger, point, machine(), KEY, link=of.links[seq])
        point.close()
        await found_group(author.writer, KEY, of.parent(seq))
        await author.session.open()
        author.rollups = Rollups(author.session)
        blocks = {disk.number: dict(moment.blocks[disk.number]) for disk in moment.disks}
        made = Branch(author, moment.disks, blocks)
        await made.describe(*(disks or moment.disks))
        self.made.append(made)
        return made

    def _author(self) -> Author:
        count = len(self.made)
        folder = self.stack.enter_context(TemporaryDirectory())
        ports = seeded_machine(f"forest {count}")
        ports.clock.wall += 3600_000_000 * count  # type: ignore[attr-defined]
        author = Author(PEOPLE, self.store, folder, ports)
        author.ledger.close()
        author.scope = replace(author.scope, group=bytes([count + 1]) * 16)
        author.writer = Writer(self.store, author.scope, PEOPLE.charter, PEOPLE.daemon, ports)
        author.ledger = Ledger(ports, folder, author.scope)
        author.session = LogSession(author.writer, author.ledger)
        self.stack.callback(author.ledger.close)
        return author


@asynccontextmanager
async def forest(store: ObjectStore | None = None) -> AsyncIterator[Forest]:
    """A new vault."""
    async with AsyncExitStack() as stack:
        store = store or MemoryStore()
        await put_charter(store, PEOPLE.charter, PEOPLE.operator.signer)
        yield Forest(store, stack)


def digests_of(moment: Moment, disk: Disk) -> list[tuple[int, int]]:
    """What a writer's record of these blocks has to say."""
    keys = DigestKeys.derive(KEY)
    image = moment.image(disk.number).ljust(disk.blocks * BLOCK, b"\0")
    found = []
    for at in range(disk.blocks):
        block = image[at * BLOCK : (at + 1) * BLOCK]
        if any(block):
            one, other = block_digests(memoryview(block), (0,), keys)[0].tolist()
            found.append((one, other))
        else:
            found.append((0, 1))
    return found
