"""A writer that makes commits of one disk, and a store that can be spoilt for it."""

from __future__ import annotations

from collections.abc import Callable

from stages.errors import (
    BackstayError,
    OutcomeUnknown,
)
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.vault import layout
from tests.ship.support import GROUP, Author, Bench, Content, block, disk
from tests.whole.reading import open_group, read_point

COPY = "/copy"
LOST = Fault(before=OutcomeUnknown)


class Scene:
    """A bench whose writer has made ``commits`` commits, and what the disk held at each."""

    def __init__(self, commits: int = 2):
        self.bench = Bench()
        self.content = Content()
        self.content.resize(0, 20)
        self.held: list[bytes] = []
        self._commits = commits

    async def begin(self) -> Author:
        """An open writer, after those commits."""
        await self.bench.found()
        author = await self.bench.opened()
        await author.disks(disk(0, 20))
        for _ in range(self._commits):
            await self.commit(author)
        return author

    async def commit(self, author: Author) -> int:
        """One more commit; if it fails, the content is what it was."""
        made = len(self.held)
        before = bytes(self.content.disks[0])
        batch = self.content.batch(0, {made % 20: block(made)})
        try:
            seq = await author.commit(batch)
        except BackstayError:
            self.content.disks[0][:] = before
            raise
        self.held.append(bytes(self.content.disks[0]))
        return seq

    async def check(self, tail: int) -> None:
        """The log is whole, its points are what was held."""
        group = await open_group(self.bench.store, self.bench.key)
        assert group.tail == tail
        await group.log.stretch(1, tail, None)
        for checkpoints in (True, False):
            found = await read_point(group, tail, checkpoints=checkpoints)
            assert found["d0"] == self.held[-1]

    def faulty(self, what: Callable[[Operation], Fault | None]) -> FaultStore:
        return FaultStore(self.bench.store, FaultPlan(what), self.bench.clock)


def at_commit(fault: Fault, seq: int) -> Callable[[Operation], Fault | None]:
    """Every put of one commit fails."""
    key = layout.commit(GROUP, seq)
    return lambda found: fault if found.name == "put" and found.key == key else None
