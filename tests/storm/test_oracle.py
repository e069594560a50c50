"""The oracle lets through what a file system may be, and nothing else."""

from __future__ import annotations

import pytest

from tests.storm.blocks import EMPTY, INVALID, SIZE, block, generation_of
from tests.storm.oracle import History, Op

NAME = "d0/a/1.0"
Tree = dict[str, tuple[int, ...]]


def op(number: int, kind: str, *, name: str = NAME, first: int = 0, count: int = 0) -> Op:
    """An operation begun at 10 times its number."""
    return Op(number, kind, 1, name, first, count, True, 10 * number)


def history(*ops: Op, done: int) -> History:
    """The first ``done`` have returned, 5 µs after they began."""
    found = History()
    for each in ops:
        found.begin(each)
        if each.number <= done:
            found.done(each.number, each.begun + 5)
    return found


CREATED = op(1, "create", count=2)
WRITTEN = op(2, "write", first=1, count=2)
REPLACED = op(2, "replace", count=1)
RENAMED = op(2, "rename", name="d0/b/1.1")
DELETED = op(2, "delete")


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (WRITTEN, {NAME: (1, 1)}),
        (WRITTEN, {NAME: (1, 2)}),
        (WRITTEN, {NAME: (1, 1, EMPTY)}),
        (WRITTEN, {NAME: (1, 2, 2)}),
        (REPLACED, {NAME: (1, 1)}),
        (REPLACED, {NAME: (2,), "d0/a/1.tmp": ()}),
        (REPLACED, {NAME: (1, 1), "d0/a/1.tmp": (2, EMPTY)}),
        (RENAMED, {NAME: (1, 1)}),
        (RENAMED, {"d0/b/1.1": (1, 1)}),
        (DELETED, {NAME: (1, 1)}),
        (DELETED, {}),
    ],
)
def test_what_is_under_way_may_be_there_or_not(second: Op, found: Tree) -> None:
    assert history(CREATED, second, done=1).complaints(found) == []


@pytest.mark.parametrize(
    ("second", "found", "word"),
    [
        (WRITTEN, {}, "is not there"),
        (WRITTEN, {NAME: (1,)}, "has 1 blocks"),
        (WRITTEN, {NAME: (2, 1)}, "block 0 is of generation 2"),
        (WRITTEN, {NAME: (1, INVALID)}, "block 1 is garbage"),
        (WRITTEN, {NAME: (1, EMPTY)}, "block 1 is empty"),
        (WRITTEN, {NAME: (1, 2, 2, 2)}, "has 4 blocks"),
        (WRITTEN, {NAME: (1, 1), "d0/a/1.tmp": (9,)}, "1.tmp: block 0 is of generation 9"),
        (WRITTEN, {NAME: (1, 1), "d0/a/2.0": ()}, "nobody made it"),
        (RENAMED, {NAME: (1, 1), "d0/b/1.1": (1, 1)}, "is there as"),
        (RENAMED, {"d0/b/1.2": (1, 1)}, "must not be there"),
    ],
)
def test_what_is_durable_has_to_be_there(second: Op, found: Tree, word: str) -> None:
    (said,) = history(CREATED, second, done=1).complaints(found)
    assert word in said


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (WRITTEN, {NAME: (1, 1, 2)}),
        (REPLACED, {NAME: (1, 1)}),
        (RENAMED, {NAME: (1, 1)}),
        (DELETED, {NAME: (1, 1)}),
    ],
)
def test_nothing_that_is_durable_is_undone(second: Op, found: Tree) -> None:
    both = history(CREATED, second, done=2)
    assert both.complaints(found)
    assert both.complaints(found, 26)
    assert not both.complaints(found, 25)  # it returned in that µs: nothing is known


@pytest.mark.parametrize("done", [1, 2])
def test_nothing_of_the_future_is_there(done: int) -> None:
    """Begun at 20: a point stamped 19 must not show it, one stamped 20 may."""
    both = history(CREATED, WRITTEN, done=done)
    assert both.complaints({NAME: (1, 2, 2)}, 19)
    assert not both.complaints({NAME: (1, 2, 2)}, 20)
    assert not both.complaints({NAME: (1, 1)}, 19)


def test_what_was_found_after_a_crash_is_gone_on_from() -> None:
    crashed = history(CREATED, WRITTEN, done=1)
    crashed.adopt({NAME: (1, 2)}, 30)
    assert crashed.states()[1].blocks == (1, 2)
    assert not crashed.complaints({NAME: (1, 1)}, 31)  # it is not synced again
    crashed.begin(op(4, "rename", name="d0/b/1.1"))
    crashed.done(4, 45)
    assert not crashed.complaints({"d0/b/1.1": (1, 2)})
    assert crashed.complaints({"d0/b/1.1": (1, 1)})


def test_a_file_that_a_crash_has_lost_stays_lost() -> None:
    crashed = history(CREATED, DELETED, done=1)
    crashed.adopt({}, 30)
    assert crashed.states() == {}


@pytest.mark.parametrize("at", [0, 20, 100, SIZE - 1])
def test_one_wrong_byte_of_a_block_is_found(at: int) -> None:
    for file in (6, 7):
        good = block(file, 3, 1 << 40)
        assert len(good) == SIZE
        assert generation_of(good, file, 3) == 1 << 40
        bad = bytearray(good)
        bad[at] ^= 1
        assert generation_of(bytes(bad), file, 3) == INVALID
        assert generation_of(good, file, 4) == INVALID
        assert generation_of(good, file + 2, 3) == INVALID
    assert generation_of(bytes(SIZE), 6, 3) == EMPTY
    assert generation_of(bytes(SIZE - 1), 6, 3) == INVALID
