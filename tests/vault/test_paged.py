"""``PagedArray`` against a numpy array, through evictions, full disks and crashes."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stages.model import U64, Runs
from stages.ports import Buffer, OpenFile
from stages.vault import paged
from stages.vault.paged import PagedArray
from tests.vault.test_runs import runs_of

PAGE = 8  # rows, so that small arrays have many pages
SECTOR = 64
VALUES = st.integers(0, 3) | st.integers(0, (1 << 64) - 1)


class TornFile:
    """A file whose writes reach the disk when synced; before that each may or may not, in part."""

    path = "array"

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.full = False
        self.written = 0
        self._pending: list[tuple[int, bytes]] = []

    def pread_into(self, offset: int, target: memoryview) -> int:
        found = self.data[offset : offset + len(target)]
        target[: len(found)] = found
        return len(found)

    def pwrite(self, offset: int, data: Buffer) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        content = memoryview(data).cast("B").tobytes()
        self.written += len(content)
        self._pending.append((offset, content))
        _put(self.data, offset, content)

    def fdatasync(self) -> None:
        for offset, content in self._pending:
            _put(self.durable, offset, content)
        self._pending.clear()

    def crash(self, dice: random.Random) -> None:
        for offset, content in self._pending:
            for at in range(0, len(content), SECTOR):
                if dice.random() < 0.5:
                    _put(self.durable, offset + at, content[at : at + SECTOR])
        self._pending.clear()
        self.data = bytearray(self.durable)

    def close(self) -> None:
        pass


def array_in(file: TornFile, columns: int = 1, cache: int = 0) -> PagedArray:
    """An array needs but a few calls of the port."""
    return PagedArray(cast(OpenFile, file), columns, cache=cache)


def _put(data: bytearray, offset: int, content: bytes) -> None:
    data.extend(bytes(max(0, offset + len(content) - len(data))))
    data[offset : offset + len(content)] = content


Change = Callable[[PagedArray], None]


class Arrays(RuleBasedStateMachine):
    """Every change is made to the array and to a model; both must stay equal, whatever happens."""

    @initialize(columns=st.integers(1, 2))
    def begin(self, columns: int) -> None:
        self.page_rows, paged.PAGE_ROWS = paged.PAGE_ROWS, PAGE
        self.columns = columns
        self.file = TornFile()
        self.array = array_in(self.file, columns)
        self.model = np.zeros((0, columns), np.uint64)
        self.table = self.array.sync()
        self.seen = [self.model]  # since that
        self.changes: list[Change] = []

    def teardown(self) -> None:
        paged.PAGE_ROWS = self.page_rows

    def change(self, change: Change, model: U64) -> None:
        self.model = model
        self.seen.append(model)
        self.changes.append(change)
        try:
            change(self.array)
        except OSError:
            self.file.full = False
            change(self.array)  # nothing was lost: done again it is done

    def rows_values(self, data: st.DataObject, count: int) -> U64:
        flat = data.draw(st.lists(VALUES, min_size=2, max_size=2))
        base = np.arange(count * self.columns, dtype=np.uint64).reshape(-1, self.columns)
        return base * np.uint64(flat[0] % 7) + np.uint64(flat[1] % (1 << 40))

    def span(self, data: st.DataObject) -> tuple[int, int]:
        first = data.draw(st.integers(0, len(self.model)))
        return first, data.draw(st.integers(0, len(self.model) - first))

    @rule(rows=st.integers(0, 12 * PAGE))
    def resize(self, rows: int) -> None:
        model = np.zeros((rows, self.columns), np.uint64)
        keep = min(rows, len(self.model))
        model[:keep] = self.model[:keep]
        self.change(lambda array: array.resize(rows), model)

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        first, count = self.span(data)
        values = self.rows_values(data, count)
        model = self.model.copy()
        model[first : first + count] = values
        self.change(lambda array: array.write(first, values), model)

    @rule(data=st.data(), value=VALUES, pair=st.booleans())
    def fill(self, data: st.DataObject, value: int, pair: bool) -> None:
        first, count = self.span(data)
        row = (0, value)[-self.columns :] if pair else (value,) * self.columns
        model = self.model.copy()
        model[first : first + count] = row
        given = row if pair else value
        self.change(lambda array: array.fill(first, count, given), model)

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data(), value=VALUES)
    def fill_runs(self, data: st.DataObject, value: int) -> None:
        runs = Runs.of(np.array(sorted(set(self.numbers(data))), np.uint64))
        model = self.model.copy()
        model[runs.blocks().astype(np.int64)] = value
        self.change(lambda array: array.fill_runs(runs, value), model)

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def scatter(self, data: st.DataObject) -> None:
        rows = np.array(self.numbers(data), np.uint64)
        values = self.rows_values(data, len(rows))
        model = self.model.copy()
        for row, value in zip(rows.tolist(), values, strict=True):
            model[row] = value
        self.change(lambda array: array.scatter(rows, values), model)

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        blocks = sorted(set(self.numbers(data))) if data.draw(st.booleans()) else []
        runs = Runs.of(np.array(blocks, np.uint64)) if blocks else runs_of([self.span(data)])
        if not runs.count.all():
            return
        values = self.rows_values(data, runs.total)
        model = self.model.copy()
        model[runs.blocks().astype(np.int64)] = values
        self.change(lambda array: array.assign(runs, values), model)

    def numbers(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.integers(0, len(self.model) - 1), max_size=30))

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def gather(self, data: st.DataObject) -> None:
        rows = np.array(self.numbers(data), np.uint64)
        self.file.full = False
        assert (self.array.gather(rows) == self.model[rows.astype(np.int64)]).all()

    @precondition(lambda self: len(self.model) > 0)
    @rule(data=st.data())
    def uniform(self, data: st.DataObject) -> None:
        first, count = self.span(data)
        row = self.array.uniform(first, count) if count else None
        if row is not None:
            assert (self.model[first : first + count] == row).all()

    @rule()
    def fills_up(self) -> None:
        """From now on the disk is full, until an operation has met it."""
        self.file.full = True

    @rule()
    def sync(self) -> None:
        self.file.full = False
        self.table = self.array.sync()
        self.seen, self.changes = [self.model], []

    @rule(seed=st.integers(0, 1 << 32), flush=st.booleans())
    def crash(self, seed: int, flush: bool) -> None:
        self.file.full = False
        if flush:
            self.array.flush()
        self.file.crash(random.Random(seed))
        self.array = array_in(self.file, self.columns)
        self.array.restore(self.table)
        self._check_restored()
        for change in self.changes:
            change(self.array)

    def _check_restored(self) -> None:
        """What was synced, or in part what came later."""
        kept = self.array.read(0, self.array.rows)
        assert len(kept) == len(self.seen[0])
        for row, value in enumerate(kept):
            later = [model[row] for model in self.seen if row < len(model)]
            cut = any(row >= len(model) for model in self.seen)
            if cut and not value.any():
                continue
            for column in range(self.columns):
                assert any(value[column] == other[column] for other in later) or cut

    @invariant()
    def equal(self) -> None:
        full, self.file.full = self.file.full, False
        assert self.array.rows == len(self.model)
        assert (self.array.read(0, len(self.model)) == self.model).all()
        assert len(self.array._pages) <= 4
        self.file.full = full


TestArrays = Arrays.TestCase
TestArrays.settings = settings(max_examples=60, stateful_step_count=40)


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
