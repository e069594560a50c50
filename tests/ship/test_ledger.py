"""The ledger: after a crash at any step it is the record of exactly the settled commits."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TypeVar
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import durable
from stages.errors import StateDamaged
from stages.model import UNKNOWN
from stages.ship import ledger as ledger_module
from stages.ship.ledger import Ledger
from tests.ship.story import Story, planned, random_batch
from tests.ship.support import FOLDER, arrays, block
from tests.whole.small import small_pages
from tests.whole.world import simulate

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_pages():
        yield


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


def test_open_intents_stay_in_the_log() -> None:
    story = Story()
    author, intent = planned(story, story.content.batch(0, {0: block(1)}))
    for _ in range(3):
        author.ledger.checkpoint_state()
        author.close()
        author = simulate(0, story.bench.opened)
        assert author.ledger.intent_of(1, intent.object_digest) is not None
    author.close()


def test_what_is_durable_is_not_synced_again() -> None:
    story = Story()
    story.commit((story.content.batch(0, {0: block(1)}),))
    author = simulate(0, story.bench.opened)
    with mock.patch.object(durable, "replace", wraps=durable.replace) as kept:
        author.ledger.checkpoint_state()
        assert kept.call_count == 0
        simulate(0, lambda: author.commit(story.content.batch(0, {1: block(2)})))
        for _ in range(2):
            author.ledger.checkpoint_state()
            assert kept.call_count == 1
    wanted = arrays(author.ledger)
    author.close()
    assert story.recovered() == wanted


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
