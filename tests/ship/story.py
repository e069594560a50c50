"""An author with two disks whose lives end, and all that it ever intended."""

from __future__ import annotations

import random
from typing import Any, TypeVar
from unittest import mock

import pytest
import trio

from stages.model import Batch
from stages.ship.wal import Intent
from tests.ship.support import Author, Bench, Content, arrays, block, disk
from tests.whole.world import simulate

T = TypeVar("T")


class Story:
    """A bench with one author and two disks, and the intents of all its commits."""

    def __init__(self, seed: int = 1, blocks: int = 50):
        self.bench = Bench(seed)
        self.content = Content()
        self.content.resize(0, blocks)
        self.content.resize(1, blocks)
        self.intents: list[Intent] = []
        simulate(0, self._begin, blocks)

    async def _begin(self, blocks: int) -> None:
        await self.bench.found()
        author = await self.bench.opened()
        await author.disks(disk(0, blocks), disk(1, blocks))
        author.close()

    def commit(self, *batches: tuple[Batch, ...]) -> None:
        """One life that makes these commits and dies."""
        simulate(0, self._commit, batches)

    async def _commit(self, batches: tuple[tuple[Batch, ...], ...]) -> None:
        author = await self.bench.opened()
        intend = author.ledger.intend

        def remember(intent: Intent) -> None:
            self.intents.append(intent)
            intend(intent)

        with mock.patch.object(author.ledger, "intend", remember):
            for each in batches:
                await author.commit(*each)
        author.close()

    def recovered(self) -> dict[str, bytes]:
        """The arrays as the next life has them."""
        return simulate(0, self._recovered)

    async def _recovered(self) -> dict[str, bytes]:
        author = await self.bench.opened()
        found = arrays(author.ledger)
        author.close()
        return found


def random_batch(content: Content, dice: random.Random) -> Batch:
    """Data, zeros and references, as disjoint as a segment wants them."""
    number = dice.randrange(2)
    blocks = len(content.disks[number]) // 4096
    places = dice.sample(range(blocks), min(blocks, 12))
    data = {at: block(dice.randrange(1 << 30)) for at in places[:4]}
    zero = sorted({at // 3 * 3 for at in places[4:7]} - {at // 3 * 3 for at in data})
    taken = set(data) | {at + more for at in zero for more in range(3)}
    refs = {}
    for at in places[7:]:
        target = dice.choice(list(data)) if dice.random() < 0.5 else dice.randrange(blocks)
        settled = target not in taken - set(data) and target not in places[7:]
        if at not in taken and settled and any(content.at(number, target)):
            refs[at] = (number, target)
    runs = [(at, min(3, blocks - at)) for at in zero]
    return content.batch(number, data, runs, refs)


def planned(story: Story, *batches: Batch) -> tuple[Author, Intent]:
    """An author whose commit of these batches is intended, and not put."""

    async def plan() -> tuple[Author, Intent]:
        author = await story.bench.opened()
        found: list[Intent] = []
        caught = mock.patch.object(author.session, "advance", _caught(found))
        with caught, pytest.raises(Stop):
            await author.commit(*batches)
        author.ledger.intend(found[0])
        return author, found[0]

    return simulate(0, plan)


class Stop(Exception):
    """Far enough."""


def _caught(found: list[Intent]) -> Any:
    async def advance(intent: Intent, _parts: object) -> None:
        found.append(intent)
        await trio.lowlevel.checkpoint()
        raise Stop

    return advance
