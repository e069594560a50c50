"""Delta against a plain array, with limits that make it merge and spill at every turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model import U64, Runs
from stages.recover.delta import ROW_BYTES, Delta
from stages.system import SystemFiles

ROWS = 20_000


def delta(limit_rows: int) -> Delta:
    made = Delta(SystemFiles().scratch(), cache=1 << 20, limit=limit_rows * ROW_BYTES)
    made.resize(ROWS)
    return made


def column(values: list[int]) -> U64:
    return np.array(values, np.uint64)


def distinct(dice: np.random.Generator, count: int) -> U64:
    return np.sort(dice.choice(ROWS, count, replace=False)).astype(np.uint64)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), limit=st.sampled_from([1, 40, 1000, 1 << 20]))
def test_it_is_an_array(seed: int, limit: int) -> None:
    dice = np.random.default_rng(seed)
    made, model = delta(limit), np.zeros(ROWS, np.uint64)
    for step in range(1, 60):
        match int(dice.integers(6)):
            case 0 | 1:
                blocks = distinct(dice, int(dice.integers(1, 200)))
                values = dice.integers(1, 1 << 40, (len(blocks), 1), dtype=np.uint64)
                made.assign(Runs.of(blocks), values)
                model[blocks.astype(np.int64)] = values[:, 0]
            case 2:
                start, count = int(dice.integers(ROWS - 9000)), int(dice.integers(1, 9000))
                made.fill(start, count, step)
                model[start : start + count] = step
            case 3:
                blocks = dice.integers(0, 300, 100, dtype=np.uint64)  # unsorted, repeated
                values = dice.integers(1, 1 << 40, (100, 1), dtype=np.uint64)
                made.scatter(blocks, values)
                for block, value in zip(blocks.tolist(), values[:, 0].tolist(), strict=True):
                    model[block] = value
            case 4:
                start = int(dice.integers(ROWS - 5000))
                run = Runs(column([start]), column([5000]))
                made.assign(run, np.full((5000, 1), step, np.uint64))
                model[start : start + 5000] = step
            case _:
                wanted = dice.integers(0, ROWS, 50, dtype=np.uint64)
                assert (made.gather(wanted)[:, 0] == model[wanted.astype(np.int64)]).all()
    assert (made.read(0, ROWS)[:, 0] == model).all()
    assert (made.read(777, 5000)[:, 0] == model[777:5777]).all()
    made.close()


def test_what_is_gathered_stays_within_its_limit() -> None:
    made = delta(1000)
    dice = np.random.default_rng(1)
    for _ in range(200):
        made.scatter(distinct(dice, 90), np.ones((90, 1), np.uint64))
        assert made._held <= 1000
        assert made._held == sum(len(run[0]) for run in made._oldest_first())
    made.close()


def test_growing_keeps_and_cutting_forgets() -> None:
    made = delta(1000)
    made.scatter(column([5, ROWS - 1]), column([7, 8])[:, None])
    made.resize(ROWS + 10)
    assert made.gather(column([5, ROWS - 1, ROWS + 9]))[:, 0].tolist() == [7, 8, 0]
    made.resize(100)
    made.resize(ROWS)
    assert made.gather(column([5, ROWS - 1]))[:, 0].tolist() == [7, 0]
    made.close()


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_nothing_set_reads_zero(limit: int, tmp_path: Path) -> None:
    made = delta(limit)
    made.scatter(np.empty(0, np.uint64), np.empty((0, 1), np.uint64))
    assert not made.read(0, ROWS).any()
    assert made.gather(np.empty(0, np.uint64)).shape == (0, 1)
    made.close()
