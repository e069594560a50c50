"""Checkpoints: small, incremental, never between a reader and the truth."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import StoreUnreachable
from stages.model import U64
from stages.ports import Machine
from stages.ship import checkpointer as checkpointer_module
from stages.ship.checkpointer import SHARE, Checkpointer
from stages.store.faults import LOST_ANSWER, LOST_REQUEST, Fault, FaultPlan, FaultStore, nth
from stages.vault.paged import PagedArray
from tests.ship.story import random_batch
from tests.ship.support import FOLDER, GROUP, Author, Bench, Content, block, disk
from tests.whole.reading import open_group, read_point
from tests.whole.small import PAGE, eager_checkpoints, small_pages, small_rollups
from tests.whole.world import simulate

T = TypeVar("T")
EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))
PREFIX = f"groups/{GROUP.hex()}/checkpoints/"


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_pages(), small_rollups():
        yield


async def begun(bench: Bench, content: Content, *blocks: int) -> Author:
    await bench.found()
    author = await bench.opened()
    for number, count in enumerate(blocks):
        content.resize(number, count)
    await author.disks(*(disk(number, count) for number, count in enumerate(blocks)))
    return author


async def same_both_ways(bench: Bench, content: Content) -> None:
    """The newest point is what is there, through checkpoints and without them."""
    group = await open_group(bench.store, bench.key)
    wanted = {f"d{number}": bytes(held) for number, held in content.disks.items()}
    assert await read_point(group, group.tail) == wanted
    assert await read_point(group, group.tail, checkpoints=False) == wanted


async def stored(bench: Bench) -> tuple[int, int]:
    """Bytes of commits and data, bytes of checkpoints."""
    infos = await bench.store.page("groups/", limit=100_000)
    parts = sum(info.size for info in infos if info.key.startswith(PREFIX))
    shipped = sum(info.size for info in infos if "/log/" in info.key or "/data/" in info.key)
    return shipped, parts


async def manifests(bench: Bench) -> int:
    found = await bench.store.page(PREFIX, limit=100_000)
    return sum(info.key.endswith("/manifest") for info in found)


@pytest.mark.parametrize("seed", range(4))
async def test_they_stay_within_their_share(seed: int) -> None:
    """Writes here and there, whole stretches, zeros, many lives: never more than 5 %."""
    dice = random.Random(seed)
    bench, content = Bench(seed), Content()
    blocks = 40 * PAGE
    author = await begun(bench, content, blocks)
    for turn in range(120):
        if turn % 11 == 10:
            author.close()
            author = await bench.opened()
        if dice.random() < 0.5:
            start = dice.randrange(blocks - 60)
            places = list(range(start, start + dice.randrange(1, 60)))
        else:
            places = sorted(dice.sample(range(blocks), dice.randrange(1, 30)))
        data = {at: block(dice.randrange(1 << 40)) for at in places}
        zero = [(dice.randrange(blocks - 50), 50)] if dice.random() < 0.1 else []
        data = {at: new for at, new in data.items() if not any(a <= at < a + n for a, n in zero)}
        await author.commit(content.batch(0, data, zero))
        shipped, parts = await stored(bench)
        assert parts <= SHARE * shipped, turn
    assert await manifests(bench) >= 2, "else nothing was measured"
    await same_both_ways(bench, content)
    author.close()


async def test_many_epochs_and_little_content_do_not_break_the_share() -> None:
    """The manifest names every epoch: that counts too."""
    bench, content = Bench(), Content()
    author = await begun(bench, content, 2 * PAGE)
    for turn in range(80):
        author.close()
        author = await bench.opened()
        await author.commit(content.batch(0, {at: block(100 * turn + at) for at in range(8)}))
        shipped, parts = await stored(bench)
        assert parts <= SHARE * shipped, turn
    assert await manifests(bench) >= 2
    author.close()


async def test_only_what_changed_is_stored_again() -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content, 50 * PAGE)
    with eager_checkpoints():
        await author.commit(content.batch(0, {at: block(at) for at in range(50 * PAGE)}))
        _, first = await stored(bench)
        await author.commit(content.batch(0, {7 * PAGE + 3: block(9999)}))
        _, second = await stored(bench)
    assert second - first < first / 8
    await same_both_ways(bench, content)
    author.close()


async def test_inside_a_gap_there_is_none_before_a_reader_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scan fills its pages little by little: they are stored once, behind it."""
    monkeypatch.setattr(checkpointer_module, "GAP_COMMITS", 8)
    monkeypatch.setattr(checkpointer_module, "SHARE", 1e9)
    bench, content = Bench(), Content()
    author = await begun(bench, content, 2 * PAGE)
    for turn in range(7):
        await author.commit(content.batch(0, {turn: block(turn)}), in_gap=True)
        assert await manifests(bench) == 0
    await author.commit(content.batch(0, {7: block(7)}), in_gap=True)
    assert (await manifests(bench), author.ledger.tail.checkpoint) == (1, 8)
    await author.commit(content.batch(0, {8: block(8)}), in_gap=True)
    assert await manifests(bench) == 1
    await author.commit(content.batch(0, {9: block(9)}))
    assert (await manifests(bench), author.ledger.tail.checkpoint) == (2, 10)
    await same_both_ways(bench, content)
    author.close()


async def test_the_directories_of_ended_epochs_are_closed() -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content, 3 * PAGE)
    for turn in range(6):
        author.close()
        author = await bench.opened()
        with eager_checkpoints():
            places = range(turn * 10, turn * 10 + 10)
            await author.commit(content.batch(0, {at: block(turn * 1000 + at) for at in places}))
        open_now = [name for name in bench.files.listdir(FOLDER) if name.startswith("epoch-")]
        assert len(open_now) == len(author.ledger.record.frames) == 1
        assert len(author.ledger.epoch_rows) == turn
    await same_both_ways(bench, content)
    author.close()
    again = bench.ledger()
    assert len(again.epoch_rows) == 5
    again.close()


@given(st.integers(0, 1 << 30), st.integers(1, 9))
@settings(max_examples=50 * EXPLORE, deadline=None)
def test_reading_through_them_is_reading_the_log(seed: int, turns: int) -> None:
    """Random histories: data, zeros, references, sizes that change, lives, checkpoints or none."""

    async def history() -> None:
        dice = random.Random(seed)
        bench, content = Bench(seed), Content()
        author = await begun(bench, content, dice.randrange(40, 90), dice.randrange(40, 90))
        for _ in range(turns):
            if dice.random() < 0.3:
                author.close()
                author = await bench.opened()
            if dice.random() < 0.3:
                await resize(author, content, dice)
            batch = random_batch(content, dice)
            if dice.random() < 0.5:
                with eager_checkpoints():
                    await author.commit(batch, inline=dice.choice([0, 1 << 20]))
            else:
                await author.commit(batch)
        await same_both_ways(bench, content)
        author.close()

    simulate(seed, history)


async def resize(author: Author, content: Content, dice: random.Random) -> None:
    """As a run does it: what is new is unknown, so it is told, zeros too."""
    sizes = {number: dice.randrange(20, 120) for number in content.disks}
    known = {number: len(held) // 4096 for number, held in content.disks.items()}
    await author.disks(*(disk(number, size) for number, size in sizes.items()))
    told = []
    for number, size in sizes.items():
        content.resize(number, size)
        if size > known[number]:
            told.append(content.batch(number, {}, [(known[number], size - known[number])]))
    await author.commit(*told)


@pytest.mark.parametrize("fault", [LOST_REQUEST, LOST_ANSWER], ids=["request", "answer"])
async def test_one_that_was_interrupted_is_as_if_it_had_not_been(fault: Fault) -> None:
    bench, content = Bench(), Content()
    author = await begun(bench, content, 5 * PAGE, 2 * PAGE)
    await author.commit(content.batch(0, {at: block(at) for at in range(4 * PAGE)}))
    with eager_checkpoints():
        await author.commit(content.batch(1, {at: block(-at % 999) for at in range(PAGE)}))
    batch = content.batch(0, {at * PAGE: block(7000 + at) for at in range(5)}, [(3, 9)])
    await author.commit(batch)
    author.close()
    more = {2 * PAGE + 1: block(1)}
    for number in itertools.count():
        here = bench.clone()
        faulty = FaultStore(here.store, FaultPlan(), here.clock)
        dying = await here.opened(faulty)
        faulty.plan.rule = nth(number, fault)
        try:
            await Checkpointer(dying.session).write()
            ended = True
        except StoreUnreachable:
            ended = False
        dying.close()
        here.files.power_cut(number)
        await same_both_ways(here, content)
        again = await here.opened()
        now = Content({at: bytearray(held) for at, held in content.disks.items()})
        with eager_checkpoints():
            await again.commit(now.batch(0, more))
        await same_both_ways(here, now)
        again.close()
        if ended:
            assert number >= 2
            return


class Guard:
    """A lock that knows whether it is held."""

    def __init__(self) -> None:
        self.held = False

    def __enter__(self) -> Guard:
        assert not self.held
        self.held = True
        return self

    def __exit__(self, *_: object) -> None:
        self.held = False


class Guarded:
    """Offload with that lock."""

    def __init__(self, guard: Guard):
        self._guard = guard

    async def run(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()

    def lock(self) -> AbstractContextManager[object]:
        return self._guard


async def test_digests_are_never_read_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan reads them in other threads while a checkpoint is written."""
    guard = Guard()
    bench, content = Bench(), Content()
    real = bench.machine()
    guarded = Machine(real.clock, Guarded(guard), real.entropy, real.files)
    monkeypatch.setattr(bench, "machine", lambda around=None: guarded)
    read = PagedArray.read
    reads = []

    def watched(self: PagedArray, first: int, count: int) -> U64:
        if self.path.endswith((".digests", ".chunks")):
            assert guard.held
            reads.append(first)
        return read(self, first, count)

    monkeypatch.setattr(PagedArray, "read", watched)
    author = await begun(bench, content, 3 * PAGE)
    with eager_checkpoints():
        await author.commit(content.batch(0, {at: block(at) for at in range(40)}))
    assert reads
    author.ledger.blocks(0, 0, 3)
    author.close()


def test_an_estimate_is_never_below_what_is_stored() -> None:
    """``due`` trusts it: whatever is dirty, the pages stored are no larger than was said."""

    async def measure(seed: int) -> None:
        dice = random.Random(seed)
        bench, content = Bench(seed), Content()
        author = await begun(bench, content, 12 * PAGE, 3)
        for _ in range(5):
            places = dice.sample(range(12 * PAGE), dice.randrange(1, 90))
            await author.commit(
                content.batch(0, {at: block(dice.randrange(9999)) for at in places})
            )
            _, before = await stored(bench)
            checkpointer = Checkpointer(author.session)
            most = checkpointer._most()
            await checkpointer.write()
            _, after = await stored(bench)
            assert after - before <= most
        author.close()

    for seed in range(3):
        simulate(seed, measure, seed)
    assert checkpointer_module.SHARE == SHARE == 0.05
