"""Stories that random ones seldom tell: each was a way to lose data, or to be stuck."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from stages.errors import BackstayError, SourceShrunk, StoreDenied
from stages.model import BLOCK
from stages.store.faults import Fault, Operation
from tests.whole.model import (
    Add,
    Event,
    Killed,
    Player,
    Protect,
    Remove,
    Resize,
    Revert,
    Story,
    Write,
)
from tests.whole.reading import check, differing, newest
from tests.whole.scenario import TUNING, after_one_run, small
from tests.whole.world import KIB, Crash, Tuning, World

FILL = Write(0, 0, 100, "random", 1)
CLEAR = Write(0, 0, 100, "zero", 0)


def tell(*events: Event, pages: bool, checkpoints: bool) -> World:
    return Player(Story(events, pages=pages, checkpoints=checkpoints)).play()


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("pages", [True, False])
@pytest.mark.parametrize(("large", "little"), [(16, 10), (40, 17), (50, 48), (33, 1), (20, 0)])
class TestSizes:
    def test_cut_and_grown_again_with_what_was_there(
        self, large: int, little: int, pages: bool, checkpoints: bool
    ) -> None:
        """The chunk that was cut through still had the digest of all its blocks."""
        cut, grow = Resize(0, little * BLOCK), Resize(0, large * BLOCK)
        first = (Add(large * BLOCK, sparse=True), FILL, Protect())
        events = (*first, cut, Protect(), grow, Revert(0, 0), Protect())
        tell(*events, pages=pages, checkpoints=checkpoints)

    def test_cut_and_grown_again_empty(
        self, large: int, little: int, pages: bool, checkpoints: bool
    ) -> None:
        """What was cut off must not come back."""
        cut, grow = Resize(0, little * BLOCK), Resize(0, large * BLOCK)
        first = (Add(large * BLOCK, sparse=True), FILL, Protect())
        events = (*first, cut, CLEAR, Protect(), grow, Protect())
        tell(*events, pages=pages, checkpoints=checkpoints)

    def test_grown_while_runs_die(
        self, large: int, little: int, pages: bool, checkpoints: bool
    ) -> None:
        """A checkpoint is written before the disk that has grown is scanned."""
        disks = (Add(20 * BLOCK, sparse=False), Add(little * BLOCK, sparse=True))
        grow = (Resize(1, large * BLOCK), Write(1, 0, large, "random", 5))
        deaths = [Killed(at, after=True, power=True, seed=at) for at in range(9, 24, 3)]
        change = Write(0, 0, 20, "random", 7)
        events: list[Event] = [*disks, FILL, Protect(), *grow, change]
        tell(*events, *deaths, pages=pages, checkpoints=checkpoints)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("start", "count"), [(0, 100), (16, 16), (5, 30), (3, 60), (40, 9)])
def test_zeroed_and_back_again(sparse: bool, start: int, count: int) -> None:
    """What was known of the content does not outlive it: not by block, not by chunk."""
    zero, back = Write(0, start, count, "zero", 0), Revert(0, 0)
    first = (Add(70 * BLOCK, sparse), FILL, Protect())
    tell(*first, zero, Protect(), back, Protect(), zero, Protect(), pages=True, checkpoints=True)


@pytest.mark.parametrize("seed", range(4))
def test_copies_that_change_places(seed: int) -> None:
    """Of every copy its own digest is known, in whatever order references were made."""
    dice = random.Random(seed)
    letters = [dice.randbytes(BLOCK) for _ in range(5)]
    world = World(seed, Tuning(seal_bytes=16 * KIB))
    with small():
        for _ in range(6):
            order = letters * 8
            dice.shuffle(order)
            world.disks["a"] = bytearray(b"".join(letters + order))
            world.disks["b"] = bytearray(b"".join(order[::-1]))
            world.protect()
            assert not differing(newest(world), world.attempts[-1])


def test_a_disk_that_leaves_and_one_of_its_name_that_comes() -> None:
    """Another disk, another number: nothing of the first is known of it."""
    world = World(5, Tuning())
    with small():
        for turn in range(4):
            world.disks["a"] = bytearray(random.Random(turn).randbytes(9 * BLOCK))
            world.disks["b"] = bytearray(9 * BLOCK)
            world.protect()
            del world.disks["b" if turn % 2 else "a"]
            world.protect()
        check(world)


def test_removed_in_a_run_that_dies_and_kept_after_all() -> None:
    disks = (Add(30 * BLOCK, sparse=True), Add(30 * BLOCK, sparse=True), FILL)
    for at in range(4, 16):
        player = Player(Story((), tuning=Tuning(seal_bytes=16 * KIB)))
        with small():
            for event in (*disks, Write(1, 0, 30, "random", 3), Protect()):
                player.do(event)
            kept = dict(player.world.disks)
            player.do(Remove(0))
            player.do(Killed(at, after=at % 2 == 0, power=True, seed=at))
            player.world.disks = kept
            player.do(Protect())
            check(player.world)


def test_a_vault_that_loses_the_newest_commit_gets_it_again() -> None:
    """It was settled, its digests were in the arrays; then both sides lost power."""
    with small():
        for lost in (4, 5):
            world = after_one_run(replace(TUNING, retried=False))
            parts = f"/checkpoints/{lost:015d}/"

            def die(operation: Operation, parts: str = parts) -> Fault | None:
                return Fault(before=Crash) if parts in operation.key else None

            with pytest.raises(Crash):
                world.protect(world.process(die))
            (key,) = [key for key in world.store._keys if key.endswith(f"/log/{lost:015d}")]
            forget(world, key)
            outcome = world.protect()
            assert outcome.changed_bytes
            assert not differing(newest(world), world.attempts[-1])


def test_a_disk_that_shrinks_by_accident_is_no_point() -> None:
    world = after_one_run(Tuning())
    del world.disks["a"][5 * BLOCK :]
    with pytest.raises(SourceShrunk) as raised:
        world.protect(accept_shrink=False)
    assert "--accept-shrink" in raised.value.hint
    assert isinstance(raised.value, BackstayError)
    world.protect()
    assert not differing(newest(world), world.attempts[-1])


def forget(world: World, key: str) -> None:
    """The store loses an object."""
    found = world.store._objects.pop(key)
    world.store._held_bytes -= len(found.data)
    world.store._keys.remove(key)


@pytest.mark.parametrize("seed", range(30))
def test_the_error_told_is_the_cause(seed: int) -> None:
    """The stages before the one that fails see its channel close: that is nobody's news."""
    tuning = Tuning(seal_bytes=BLOCK, dedup=0, inline=2 * BLOCK, in_flight=1, retried=False)
    world = World(seed, tuning)
    world.disks["a"] = bytearray(random.Random(seed).randbytes(BLOCK))
    world.disks["b"] = bytearray(BLOCK)

    def refuse(operation: Operation) -> Fault | None:
        first = operation.name == "put" and "/log/" in operation.key
        return Fault(before=StoreDenied) if first else None

    with pytest.raises(StoreDenied):
        world.protect(world.process(refuse))
