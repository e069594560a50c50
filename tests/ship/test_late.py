"""Commits that were put and never answered for: lost, late, or just in time (R11)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stages.errors import (
    BackstayError,
    OutcomeUnknown,
    StoreUnreachable,
)
from stages.ports import Buffer
from stages.store.faults import Fault, FaultPlan, FaultStore
from stages.store.memory import MemoryStore
from stages.store.port import Put
from stages.vault import layout
from tests.ship.scene import LOST, Scene, at_commit
from tests.ship.support import GROUP, block, disk
from tests.whole.reading import open_group, read_point


async def test_open_intents_are_settled_by_their_lineage() -> None:
    scene = Scene(4)
    author = await scene.begin()
    link = author.ledger.tail.link
    author.close()  # nothing was snapshotted since the first commit

    again = scene.bench.author()
    assert sorted(again.ledger.pending) == [1, 2, 3, 4]
    await again.open()
    assert not again.ledger.pending
    assert (again.ledger.tail.seq, again.ledger.tail.link) == (4, link)
    assert await scene.commit(again) == 5
    await scene.check(5)
    again.close()


async def test_an_intent_that_never_arrived_is_no_commit() -> None:
    scene = Scene(2)
    author = await scene.begin()
    author.close()
    dying = await scene.bench.opened(scene.faulty(at_commit(LOST, 3)))
    with pytest.raises(OutcomeUnknown):
        await scene.commit(dying)
    dying.close()

    again = await scene.bench.opened()
    assert again.ledger.tail.seq == 2
    assert sorted(again.ledger.pending) == [3]
    assert await scene.commit(again) == 3
    assert not again.ledger.pending
    await scene.check(3)
    again.close()


@pytest.mark.parametrize("more", [0, 1, 3], ids="{} lives between".format)
async def test_a_put_that_arrives_after_a_restart_is_ones_own(more: int) -> None:
    """The abandoned put of an earlier life takes the place that this life wants."""
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    slow = scene.faulty(at_commit(Fault(late=100.0), 2))
    dying = await scene.bench.opened(slow)
    with pytest.raises(OutcomeUnknown):
        await scene.commit(dying)
    dying.close()
    for _ in range(more):  # others whose put never takes effect
        other = await scene.bench.opened(scene.faulty(at_commit(LOST, 2)))
        with pytest.raises(OutcomeUnknown):
            await scene.commit(other)
        other.close()

    late = await scene.bench.opened()
    await slow.settle()
    with pytest.raises(StoreUnreachable, match="arrived late") as raised:
        await scene.commit(late)
    assert raised.value.recoverable
    late.close()

    again = await scene.bench.opened()
    assert again.ledger.tail.seq == 2
    assert await scene.commit(again) == 3
    again.close()
    group = await open_group(scene.bench.store, scene.bench.key)
    await group.log.stretch(1, 3, None)


async def test_a_late_put_of_disks_that_have_changed_meanwhile() -> None:
    """One disk was removed and one cut before the commit about both of them turned up."""
    scene = Scene(0)
    bench = scene.bench
    content = scene.content
    content.resize(1, 30)
    author = await scene.begin()
    await author.disks(disk(0, 20), disk(1, 30))
    author.close()
    slow = scene.faulty(at_commit(Fault(late=100.0), 1))
    dying = await bench.opened(slow)
    filled = content.batch(0, {at: block(at) for at in range(20)}, chunks=[0])
    other = content.batch(1, {at: block(50 + at) for at in range(30)}, chunks=[0])
    with pytest.raises(OutcomeUnknown):
        await dying.commit(filled, other)
    dying.close()

    late = await bench.opened()
    await late.disks(disk(0, 7))
    content.resize(0, 7)
    del content.disks[1]
    await slow.settle()
    with pytest.raises(StoreUnreachable):
        await late.commit()
    late.close()

    again = await bench.opened()
    assert again.ledger.tail.seq == 1
    await again.disks(disk(0, 12))
    content.resize(0, 12)
    assert await again.commit(content.batch(0, {}, [(7, 5)])) == 2
    again.close()
    group = await open_group(bench.store, bench.key)
    for checkpoints in (True, False):
        found = await read_point(group, 2, checkpoints=checkpoints)
        assert found == {"d0": bytes(content.disks[0])}


class Forgetful(MemoryStore):
    """Says that a put was made, and has nothing."""

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        if "/log/" in key and key.endswith("2"):
            raise OutcomeUnknown("lost", operation="put", subject=key)
        return await super().put(key, parts)


async def test_a_put_that_is_never_there_ends_the_run() -> None:
    scene = Scene(1)
    scene.bench.store = Forgetful()
    author = await scene.begin()
    with pytest.raises(OutcomeUnknown, match="is not there") as raised:
        await scene.commit(author)
    assert isinstance(raised.value, BackstayError)
    author.close()


async def test_a_put_that_arrives_while_the_next_life_opens() -> None:
    """Just after this life has looked for it, and found nothing: it is settled all the same."""
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    slow = scene.faulty(at_commit(Fault(late=100.0), 2))
    dying = await scene.bench.opened(slow)
    with pytest.raises(OutcomeUnknown):
        await scene.commit(dying)
    dying.close()

    looking = Arriving(scene.bench.store, slow)
    late = await scene.bench.opened(looking)
    assert looking.arrived
    assert late.ledger.tail.seq == 2
    assert await scene.commit(late) == 3
    group = await open_group(scene.bench.store, scene.bench.key)
    await group.log.stretch(1, 3, None)
    late.close()


class Arriving(FaultStore):
    """Abandoned puts of another life arrive after the first look at commit 2."""

    def __init__(self, inner: MemoryStore, slow: FaultStore):
        super().__init__(inner, FaultPlan(), slow.clock)
        self._slow = slow
        self.arrived = False

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return await super().get(key, offset, length)
        finally:
            if key == layout.commit(GROUP, 2) and not self.arrived:
                self.arrived = True
                await self._slow.settle()
