"""A vault in memory with a machine in it, and access to it from several hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.failover.model import Who
from pipeline.recovery import Access
from stages.recover.opened import OpenedVault, open_vault
from stages.store.port import ObjectStore
from stages.vault.failover_log import FailoverLog, load_failovers
from stages.vault.keyfile import PrivateKey
from tests.ship.support import Author, Bench, Content, block, disk
from tests.whole.world import NAME

__all__ = ["NAME"]

ANN, BOB = Who("ann", "replica7"), Who("bob", "replica8")


@dataclass(frozen=True)
class StoreAccess(Access):
    """Access to a vault in a store that a test holds."""

    store: ObjectStore | None = None

    @asynccontextmanager
    async def vault(self, *, patience: float = 0) -> AsyncIterator[OpenedVault]:
        assert self.store is not None
        yield await open_vault(self.store, self.key, self.pins)


@dataclass
class Scene:
    """Commits of a running writer: two at rest ("quiet") by default."""

    bench: Bench
    author: Author
    content: Content

    def access(self, store: ObjectStore | None = None, key: PrivateKey | None = None) -> Access:
        """As an operator, over another store if one is given."""
        bench = self.bench
        return StoreAccess(
            bench.machine(),
            bench.store.url,
            key or bench.key,
            (bench.charter.pin(),),
            store=store or bench.store,
        )

    async def commit(self, seed: int, *, in_gap: bool = False) -> int:
        """One more commit of the source."""
        self.bench.clock.now += 1
        batch = self.content.batch(0, {seed % 8: block(seed)})
        return await self.author.commit(batch, in_gap=in_gap)

    async def log(self) -> FailoverLog:
        """The records as anybody reads them."""
        return await load_failovers(self.bench.store, self.bench.scope, self.bench.charter)

    def clone(self) -> Scene:
        """As it is now; without the writer."""
        return Scene(self.bench.clone(), self.author, self.content)


async def protected(commits: int = 3) -> Scene:
    """A machine with some points."""
    bench = Bench()
    await bench.found()
    author = await bench.opened()
    await author.disks(disk(0, 8))
    content = Content()
    content.resize(0, 8)
    scene = Scene(bench, author, content)
    for seed in range(1, commits + 1):
        await scene.commit(seed)
    return scene
