"""Taking a log over, being fenced, late and lost commits (R11-R13, R15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from stages.errors import (
    BackstayError,
    BrokenChain,
    Fenced,
    NotAdmitted,
    OutcomeUnknown,
    StoreUnreachable,
)
from stages.ports import Buffer
from stages.ship import session as session_module
from stages.stage import crew
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.store.memory import MemoryStore
from stages.store.port import Put
from stages.vault import layout
from tests.ship.support import FOLDER, GROUP, Author, Bench, Content, block, disk
from tests.whole.reading import open_group, read_point
from tests.whole.world import simulate

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


async def test_a_commit_by_another_admitted_writer_fences() -> None:
    scene = Scene(2)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    stranger = scene.bench.author(folder=COPY, who=1)
    await stranger.open()
    await stranger.commit(scene.content.batch(0, {5: block(500)}))
    stranger.close()

    with pytest.raises(Fenced) as raised:
        await scene.commit(author)
    assert raised.value.subject == layout.commit(GROUP, 3)
    author.close()
    again = scene.bench.author()
    with pytest.raises(Fenced):
        await again.open()
    again.close()


async def test_what_lies_in_the_log_by_nobody_is_told_as_such() -> None:
    scene = Scene(2)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    stranger = scene.bench.author(folder=COPY, who=2)
    await stranger.open()
    await stranger.commit(scene.content.batch(0, {5: block(500)}))
    stranger.close()
    with pytest.raises(NotAdmitted, match="place in the log"):
        await scene.commit(author)
    author.close()
    again = scene.bench.author()
    with pytest.raises(NotAdmitted):
        await again.open()
    again.close()


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(5000)])
async def test_junk_in_the_log_is_told_as_such(junk: bytes) -> None:
    scene = Scene(1)
    author = await scene.begin()
    await scene.bench.store.put(layout.commit(GROUP, 2), [junk])
    with pytest.raises(NotAdmitted):
        await scene.commit(author)
    author.close()


def test_a_writer_that_is_not_admitted_is_stopped_before_it_writes() -> None:
    bench = Bench()
    bench.writer(who=1).check_admitted()
    with pytest.raises(NotAdmitted) as raised:
        bench.writer(who=2).check_admitted()
    assert bench.signers[2].public.hex() in raised.value.hint


@pytest.mark.parametrize("gone", [1, 2, 3])
@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_vault_that_was_rolled_back(gone: int, snapshot: bool) -> None:
    """Its newest commits are missing. The last one, if nothing proves it was there, may be new."""
    scene = Scene(4)
    author = await scene.begin()
    if snapshot:
        author.ledger.checkpoint_state()
    author.close()
    for seq in range(5 - gone, 5):
        assert await scene.bench.store.delete(layout.commit(GROUP, seq))

    again = scene.bench.author()
    if snapshot or gone > 1:
        with pytest.raises(BrokenChain) as raised:
            await again.open()
        assert raised.value.hint
        again.close()
        return
    await again.open()
    assert again.ledger.tail.seq == 3
    known = again.ledger.blocks(0, 0, 20)[:, 0]
    assert known[:3].all()
    assert not known[3], "what the lost commit said of block 3 is not believed"
    again.close()


async def test_a_later_term_fences_after_the_win() -> None:
    """The commit is there and is its writer's own: the next start finds that out."""
    scene = Scene(1)
    author = await scene.begin()
    author.ledger.checkpoint_state()
    scene.bench.files.copy_tree(FOLDER, COPY)
    (await scene.bench.opened(folder=COPY)).close()
    with pytest.raises(Fenced, match="has begun"):
        await scene.commit(author)
    author.close()
    again = await scene.bench.opened()
    assert again.ledger.tail.seq == 2
    assert await scene.commit(again) == 3
    await scene.check(3)
    again.close()


@pytest.mark.parametrize("seed", range(8))
def test_an_epoch_belongs_to_one(seed: int) -> None:
    """Many begin at once: each gets an epoch of its own, or none."""

    async def race() -> None:
        scene = Scene(1)
        author = await scene.begin()
        author.ledger.checkpoint_state()
        author.close()
        won: list[int] = []

        async def begin(number: int) -> None:
            scene.bench.files.copy_tree(FOLDER, f"{COPY}{number}")
            one = scene.bench.author(folder=f"{COPY}{number}")
            try:
                await one.open()
                won.append(one.session.keys.epoch)
            except Fenced:
                pass
            finally:
                one.close()

        async with crew() as nursery:
            for number in range(6):
                nursery.start_soon(begin, number)
        assert len(set(won)) == len(won)
        assert sorted(won) == list(range(2, 2 + len(won)))
        assert len(won) >= session_module._CLAIM_TRIES // 2

    simulate(seed, race)


async def test_an_epoch_whose_claim_was_interrupted_is_left_out() -> None:
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    for number in range(3):

        def wrapped(found: Operation, number: int = number) -> Fault | None:
            key = layout.wrapped_key(GROUP, 2 + number, scene.bench.key.box.public, "index")
            return LOST if found.key == key else None

        dying = scene.bench.author(scene.faulty(wrapped))
        with pytest.raises(OutcomeUnknown):
            await dying.open()
        dying.close()
    again = await scene.bench.opened()
    assert again.session.keys.epoch == 5
    assert await scene.commit(again) == 2
    await scene.check(2)
    again.close()


async def test_many_starts_without_a_commit_do_not_make_the_next_one_slow() -> None:
    scene = Scene(1)
    author = await scene.begin()
    author.close()
    for _ in range(60):
        (await scene.bench.opened()).close()
    asked: list[Operation] = []

    def count(found: Operation) -> None:
        asked.append(found)

    again = await scene.bench.opened(scene.faulty(count))
    assert again.session.keys.epoch == 62
    assert len(asked) < 25
    again.close()


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
