"""``PagedArray`` against a numpy array, through evictions, full disks and crashes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stages.model import U64, Runs
from stages.vault import paged
from stages.vault.paged import PagedArray
from tests.vault.test_runs import runs_of
from tests.vault.torn import PAGE, TornFile, array_in

VALUES = st.integers(0, 3) | st.integers(0, (1 << 64) - 1)
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
