"""The table of references."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.capture.dedup import BACKLOG_RUNS, ENTRY, PIECE, Backlog, DedupTable, first_equal
from stages.model import U64, pack_block


def digests(*values: int) -> U64:
    return np.array([(value, value * 7 + 1) for value in values], np.uint64)


def column(*values: int) -> U64:
    return np.array(values, np.uint64)


def test_what_was_inserted_is_found() -> None:
    table = DedupTable(1 << 16)
    table.insert(digests(1, 2, 3), column(10, 20, 30))
    hit, target = table.lookup(digests(3, 4, 1))
    assert hit.tolist() == [True, False, True]
    assert target[hit].tolist() == [30, 10]


def test_both_halves_count() -> None:
    table = DedupTable(1 << 16)
    table.insert(np.array([[5, 6]], np.uint64), column(1))
    assert not table.lookup(np.array([[5, 7]], np.uint64))[0].any()


def test_the_first_place_is_kept() -> None:
    table = DedupTable(1 << 16)
    table.insert(digests(1), column(10))
    table.insert(digests(1), column(99))
    assert table.lookup(digests(1))[1].tolist() == [10]


def test_inside_one_batch_the_first_leads() -> None:
    table = DedupTable(1 << 16)
    fresh = np.array([True, True, True, False, True])
    refs, target = table.resolve(digests(8, 9, 8, 9, 9), column(1, 2, 3, 4, 5), fresh)
    assert refs.tolist() == [False, False, True, False, True]
    assert target[refs].tolist() == [1, 2]


def test_a_reference_is_never_a_target() -> None:
    table = DedupTable(1 << 16)
    everything = np.array([True, True])
    table.resolve(digests(1, 2), column(1, 2), everything)
    refs, target = table.resolve(digests(2, 2), column(3, 4), everything)
    assert refs.all()
    assert target.tolist() == [2, 2]
    assert table.lookup(digests(2))[1].tolist() == [2]


def test_unchanged_blocks_are_targets_but_not_references() -> None:
    table = DedupTable(1 << 16)
    refs, target = table.resolve(digests(1, 1), column(1, 2), np.array([False, True]))
    assert refs.tolist() == [False, True]
    assert target[1] == 1


def test_memory_is_bounded_and_a_full_table_forgets() -> None:
    table = DedupTable(100 * ENTRY)
    assert table.capacity == 100
    values = np.arange(1, 5001, dtype=np.uint64)
    pairs = np.column_stack((values * np.uint64(0x9E3779B97F4A7C15), values))
    for at in range(0, 5000, 50):
        table.insert(pairs[at : at + 50], values[at : at + 50])
    hit, target = table.lookup(pairs)
    assert 60 <= hit.sum() <= 100
    assert (target[hit] == values[hit]).all()


@settings(max_examples=200, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=20), max_size=6
    ),
    slots=st.sampled_from([2, 4, 10, 1000]),
)
def test_references_always_name_an_equal_block_that_was_not_one(
    batches: list[list[tuple[int, bool]]], slots: int
) -> None:
    table = DedupTable(slots * ENTRY)
    content: dict[int, int] = {}
    referring: set[int] = set()
    at = 0
    for batch in batches:
        values = [value for value, _ in batch]
        packed = pack_block(3, np.arange(at, at + len(batch), dtype=np.uint64))
        fresh = np.array([new for _, new in batch])
        refs, target = table.resolve(digests(*values), packed, fresh)
        for row, name in enumerate(packed.tolist()):
            if refs[row]:
                assert fresh[row]
                assert target[row] < name
                assert target[row] not in referring
                assert content[int(target[row])] == values[row]
                referring.add(name)
            content[name] = values[row]
        at += len(batch)


@given(values=st.lists(st.integers(1, 9), min_size=1, max_size=50))
def test_first_equal(values: list[int]) -> None:
    found = first_equal(digests(*values)).tolist()
    assert found == [values.index(value) for value in values]


def test_equal_first_halves_are_not_equal() -> None:
    pairs = np.array([[1, 1], [1, 2], [1, 1]], np.uint64)
    assert first_equal(pairs).tolist() == [0, 1, 0]


def test_the_backlog_joins_neighbours_and_gives_pieces() -> None:
    backlog = Backlog(10 * PIECE)
    backlog.add(1, 0, 100)
    backlog.add(1, 100, 2 * PIECE)
    backlog.add(2, 100 + 2 * PIECE, 5)
    assert list(backlog.take()) == [
        (1, 0, PIECE),
        (1, PIECE, PIECE),
        (1, 2 * PIECE, 100),
        (2, 100 + 2 * PIECE, 5),
    ]
    assert list(backlog.take()) == []


def test_the_backlog_forgets_the_oldest() -> None:
    backlog = Backlog(10)
    backlog.add(1, 0, 4)
    backlog.add(1, 100, 4)
    backlog.add(1, 200, 5)
    assert list(backlog.take()) == [(1, 3, 1), (1, 100, 4), (1, 200, 5)]
    backlog.add(1, 0, 1000)
    assert list(backlog.take()) == [(1, 990, 10)]
    backlog = Backlog(1 << 40)
    for at in range(BACKLOG_RUNS + 10):
        backlog.add(1, 2 * at, 1)
    assert len(list(backlog.take())) == BACKLOG_RUNS
