"""``PagedArray``: full disks, bounds, damaged tables, what takes file space."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from stages.vault import paged
from stages.vault.paged import PagedArray
from tests.vault.test_runs import runs_of
from tests.vault.torn import PAGE, TornFile, array_in


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "PAGE_ROWS", PAGE)


def filled(rows: int, columns: int = 1) -> tuple[PagedArray, TornFile]:
    """An array of stored pages with a number in each row."""
    file = TornFile()
    array = array_in(file, columns)
    array.resize(rows)
    values = np.arange(1, rows * columns + 1, dtype=np.uint64).reshape(-1, columns)
    array.write(0, values)
    return array, file


@pytest.mark.usefixtures("small_pages")
def test_a_full_disk_is_an_error_and_nothing_else() -> None:
    """Every operation that has to make room fails, again and again, and nothing is forgotten."""
    array, file = filled(10 * PAGE)
    file.full = True
    expected = np.arange(1, 10 * PAGE + 1, dtype=np.uint64)[:, None]
    for _ in range(20):
        for attempt in (
            lambda: array.read(0, 10 * PAGE),
            lambda: array.fill(3, 1, 99),
            array.sync,
            array.flush,
        ):
            with pytest.raises(OSError, match="No space"):
                attempt()
    file.full = False
    assert (array.read(0, 10 * PAGE) == expected).all()


@pytest.mark.usefixtures("small_pages")
def test_growing_shows_zeros_even_where_a_fill_ran_up_to_the_end() -> None:
    array = array_in(TornFile())
    array.resize(3)
    array.fill(0, 3, 7)
    array.resize(PAGE + 1)
    assert array.read(0, PAGE + 1)[:, 0].tolist() == [7, 7, 7] + [0] * (PAGE - 2)
    array.fill(0, PAGE + 1, 7)
    array.resize(2)
    array.resize(PAGE)
    assert array.read(0, PAGE)[:, 0].tolist() == [7, 7] + [0] * (PAGE - 2)


@pytest.mark.usefixtures("small_pages")
def test_uniform_pages_take_no_file() -> None:
    file = TornFile()
    array = array_in(file, 2)
    array.resize(1000 * PAGE)
    array.fill(0, 1000 * PAGE, (0, 1))
    array.fill(5, 900 * PAGE, 0)
    array.sync()
    assert file.written == 2 * PAGE * 16  # the pages in which the second run begins and ends
    assert array.uniform(PAGE, 800 * PAGE) == (0, 0)
    assert array.uniform(950 * PAGE, PAGE) == (0, 1)
    assert array.uniform(0, 2 * PAGE) is None


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda array: array.read(0, 25),
        lambda array: array.read(-1, 2),
        lambda array: array.write(24, np.ones((1, 1), np.uint64)),
        lambda array: array.fill(0, 25, 1),
        lambda array: array.fill(16, 100, 1),
        lambda array: array.gather(np.array([24], np.uint64)),
        lambda array: array.gather(np.array([0, 1 << 63], np.uint64)),
        lambda array: array.scatter(np.array([24], np.uint64), np.ones((1, 1), np.uint64)),
        lambda array: array.assign(runs_of([(23, 2)]), np.ones((2, 1), np.uint64)),
    ],
)
def test_rows_beyond_the_end_are_refused(wrong: Callable[[PagedArray], object]) -> None:
    array, _ = filled(24)
    with pytest.raises(IndexError):
        wrong(array)
    assert array.read(0, 24)[:, 0].tolist() == list(range(1, 25))


def test_an_array_is_no_larger_than_its_table_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "_MAX_STATE", 17 * 10)
    array = array_in(TornFile(), 2)
    array.resize(10 * paged.PAGE_ROWS)
    with pytest.raises(ValueError, match="rows"):
        array.resize(10 * paged.PAGE_ROWS + 1)
    assert array.rows == 10 * paged.PAGE_ROWS
    table = array.sync()
    array.restore(table)
    monkeypatch.setattr(paged, "_MAX_STATE", 17 * 9)
    with pytest.raises(ValueError, match="size"):
        array.restore(table)


def _damaged(table: bytes) -> Iterator[bytes]:
    yield from (table[:size] for size in range(len(table)))
    yield (1 << 40).to_bytes(8, "little") + table[8:]
    yield (0).to_bytes(8, "little") + table[8:]
    yield table[:8] + b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 7 + b"\x3f\x01\x00\x00"  # claims 2**62


def test_a_damaged_table_is_told_as_such() -> None:
    array, _ = filled(3 * paged.PAGE_ROWS)
    table = array.sync()
    for damaged in _damaged(table):
        with pytest.raises(ValueError):
            array.restore(damaged)
    array.restore(table)
    assert array.read(0, 3)[:, 0].tolist() == [1, 2, 3]


def test_an_empty_array_is_kept_too() -> None:
    array = array_in(TornFile(), 2)
    array.restore(array.sync())
    assert array.rows == 0
    assert array.read(0, 0).shape == (0, 2)
    assert array.gather(np.empty(0, np.uint64)).shape == (0, 2)
