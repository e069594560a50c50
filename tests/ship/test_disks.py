"""The ledger when disks are cut, grown, added and removed: at every step the old or the new."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from stages.errors import StateError
from tests.ports.watched import Around, Tripwire
from tests.ship.story import Story, planned, random_batch
from tests.ship.support import FOLDER, Bench, arrays, block, disk
from tests.whole.small import small_pages
from tests.whole.world import simulate

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_pages():
        yield


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
