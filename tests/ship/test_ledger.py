"""The ledger: after a crash at any step it is the record of exactly the settled commits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import StateDamaged, StateError
from stages.model import UNKNOWN, Batch
from stages.ship import ledger as ledger_module
from stages.ship.ledger import Ledger
from stages.ship.wal import Intent
from tests.ports.watched import Around, Tripwire
from tests.ship.support import FOLDER, Author, Bench, Content, arrays, block, disk
from tests.whole.small import small_pages
from tests.whole.world import simulate

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_pages():
        yield


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


def test_a_reference_keeps_its_meaning_when_replayed_over_later_arrays() -> None:
    """Block 1 equals block 0 at its time; later block 0 changes; then the log is replayed."""
    story = Story()
    story.commit((story.content.batch(0, {0: block(1)}),))  # the next life begins with a snapshot
    second = story.content.batch(0, refs={1: (0, 0)})
    third = story.content.batch(0, {0: block(2)})

    async def live() -> bytes:
        author = await story.bench.opened()
        for batch in (second, third):
            await author.commit(batch)
        for _, array in author.ledger.record.arrays():
            array.sync()  # what evictions do at any time; the snapshot stays as it is
        wanted = arrays(author.ledger)
        author.close()
        return wanted["disk-0000.map"]

    wanted = simulate(0, live)
    found = story.recovered()["disk-0000.map"]
    assert found == wanted
    locations = np.frombuffer(found, np.uint64)
    assert locations[0] != locations[1]


@given(st.integers(0, 1 << 30), st.integers(1, 6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_replaying_gives_what_applying_gave(seed: int, commits: int, power: bool) -> None:
    dice = random.Random(seed)
    story = Story(seed)
    for _ in range(2):
        story.commit((random_batch(story.content, dice),))
    batches = [(random_batch(story.content, dice),) for _ in range(commits)]
    wanted: dict[str, bytes] = {}

    async def live() -> None:
        author = await story.bench.opened()
        for each in batches:
            await author.commit(*each)
            if dice.random() < 0.5:
                for _, array in author.ledger.record.arrays():
                    array.flush()
        wanted.update(arrays(author.ledger))
        author.close()

    simulate(0, live)
    if power:
        story.bench.files.power_cut(seed)
    assert story.recovered() == wanted


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_disks_change_leaves_the_old_ones_or_the_new(after: bool) -> None:
    """One disk is cut short, one removed, one added; power fails at every step of it."""
    story = Story()
    dice = random.Random(3)
    story.commit(*[(random_batch(story.content, dice),) for _ in range(4)])
    old = story.recovered()
    geometry = (disk(0, 21), disk(7, 5))

    def change(bench: Bench, around: Around) -> None:
        bench.ledger(around=around).set_disks(2, geometry)

    wire = Tripwire()
    changed = story.bench.clone()
    change(changed, wire)
    new = arrays(changed.ledger())
    assert new != old
    seen = set()
    for number in range(len(wire.names)):
        bench = story.bench.clone()
        with pytest.raises(StateError, match="dies"):
            change(bench, _Dying(number, after=after))
        bench.files.power_cut(number)
        found = arrays(bench.ledger())
        assert found in (old, new), (number, wire.steps[number])
        seen.add(found == new)
    assert seen == {False, True} or not after


class _Dying(Tripwire):
    """From a step on everything fails; the step itself may still be done."""

    def __init__(self, first: int, *, after: bool):
        super().__init__()
        self._first = first
        self._after = after

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T:
        self.names.append(name)
        number = len(self.names) - 1
        if number < self._first:
            return call()
        if number == self._first and self._after:
            call()
        raise OSError("dies")


def test_files_of_disks_that_have_gone_go_too() -> None:
    story = Story()
    ledger = story.bench.ledger()
    ledger.set_disks(2, (disk(1, 50),))
    names = story.bench.files.listdir(FOLDER)
    assert not [name for name in names if name.startswith("disk-0000")]
    assert [name for name in names if name.startswith("disk-0001")]
    ledger.close()


def test_what_killed_lives_left_is_swept() -> None:
    story = Story()
    left = ["disk-0009.map", "epoch-00000099.frames", "snapshot.tmp-0123", "identity.tmp-4"]
    kept = ["identity", "note"]
    for name in left + kept:
        story.bench.files.put(f"{FOLDER}/{name}", b"x")
    story.bench.ledger().close()
    names = story.bench.files.listdir(FOLDER)
    assert set(kept) <= set(names)
    assert not set(left) & set(names)


def test_a_damaged_snapshot_is_never_believed() -> None:
    story = Story()
    dice = random.Random(4)
    story.commit(*[(random_batch(story.content, dice),) for _ in range(3)])
    story.recovered()
    path = f"{FOLDER}/snapshot"
    whole = story.bench.files.read(path, 1 << 20)
    damaged = [whole[:length] for length in (0, 1, 17, 40, len(whole) // 2, len(whole) - 1)]
    for at in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        damaged.append(bytes(flipped))
    for content in [*damaged, whole + b"x"]:
        story.bench.files.put(path, content)
        ledger = Ledger(story.bench.machine(), FOLDER, story.bench.scope)
        with pytest.raises(StateDamaged) as raised:
            ledger.recover()
        assert raised.value.hint
        assert raised.value.subject == path
        ledger.close()


def test_the_log_is_cleared_at_its_limit() -> None:
    story = Story()
    dice = random.Random(5)
    sizes = []

    async def live() -> dict[str, bytes]:
        author = await story.bench.opened()
        for _ in range(12):
            await author.commit(random_batch(story.content, dice))
            sizes.append(author.ledger._wal.size)
        found = arrays(author.ledger)
        author.close()
        return found

    with mock.patch.object(ledger_module, "WAL_LIMIT", 3000):
        wanted = simulate(0, live)
    assert max(sizes) < 3000 + 2 * sizes[0]
    assert sum(after < before for before, after in itertools.pairwise(sizes)) >= 2
    assert story.recovered() == wanted


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


def test_open_intents_stay_in_the_log() -> None:
    story = Story()
    author, intent = planned(story, story.content.batch(0, {0: block(1)}))
    for _ in range(3):
        author.ledger.checkpoint_state()
        author.close()
        author = simulate(0, story.bench.opened)
        assert author.ledger.intent_of(1, intent.object_digest) is not None
    author.close()


@pytest.mark.parametrize("blocks", [1, 15, 16, 21, 33, 64])
def test_a_commit_planned_for_larger_disks_is_settled_as_far_as_they_reach(blocks: int) -> None:
    """It was put, nobody knew; meanwhile one disk was removed, the other cut or grown."""
    story = Story(blocks=50)
    filled = story.content.batch(0, {at: block(at) for at in range(32)}, [(32, 15)], {49: (0, 0)})
    told = story.content.batch(1, {at: block(at) for at in range(16)}, chunks=[0])
    author, intent = planned(story, filled, told)
    author.ledger.settle(intent)
    plain = arrays(author.ledger)
    author.close()

    ledger = story.bench.ledger()
    ledger.set_disks(2, (disk(0, blocks),))
    ledger.settle(intent)
    found = arrays(ledger)
    for name, width in (("map", 8), ("digests", 16)):
        wanted = plain[f"disk-0000.{name}"][: blocks * width]
        assert found[f"disk-0000.{name}"][: len(wanted)] == wanted
        assert not any(found[f"disk-0000.{name}"][len(wanted) :]), "what has grown is unknown"
    assert not [name for name in found if name.startswith("disk-0001")]
    ledger.close()


def test_nothing_is_known_of_blocks_in_commits_that_are_not_there() -> None:
    story = Story()
    story.commit((story.content.batch(0, {at: block(at) for at in range(32)}, chunks=[0, 1]),))
    ledger = simulate(0, story.bench.opened).ledger
    assert ledger.blocks(0, 0, 32)[:, 0].all()
    assert ledger.chunks(0, 0, 2)[:, 0].all()
    ledger.close()
    batch = story.content.batch(0, {3: block(99)}, [(20, 2)], {40: (0, 5)})
    author, _ = planned(story, batch)
    author.close()

    ledger = story.bench.ledger()
    ledger.doubt_pending()
    known = ledger.blocks(0, 0, 50)
    doubted = {3, 20, 21, 40}
    for at in range(50):
        assert (tuple(known[at].tolist()) == UNKNOWN) == (at in doubted or at >= 32)
    assert tuple(ledger.chunks(0, 0, 1)[0].tolist()) == UNKNOWN
    assert tuple(ledger.chunks(0, 1, 1)[0].tolist()) == UNKNOWN
    ledger.close()


@pytest.mark.parametrize("sizes", [(50, 10, 50), (50, 15, 16), (48, 47, 49), (3, 40, 3, 40)])
def test_what_was_cut_off_is_unknown_when_it_comes_back(sizes: tuple[int, ...]) -> None:
    """Also of the chunk that was cut through: its digest was that of all its blocks."""
    story = Story(blocks=sizes[0])
    ledger = simulate(0, story.bench.opened).ledger
    record = ledger.record.disks[0]
    low = sizes[0]
    for number, size in enumerate(sizes, 2):
        ledger.set_disks(number, (disk(0, size),))
        low = min(low, size)
        known = ledger.blocks(0, 0, size)[:, 0]
        assert not known[low:].any()
        assert not record.map.read(0, size)[low:].any()
        assert not ledger.chunks(0, 0, -(-size // 16))[low // 16 :].any()
        record.digests.fill(0, size, (7, 7))
        record.map.fill(0, size, 1)
        record.chunks.fill(0, record.chunks.rows, (7, 7))
        low = size
    ledger.close()
