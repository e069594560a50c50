"""Runs of blocks against what they mean in plain Python."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.model import Runs, distinct
from stages.vault.commit import pack_refs, unpack_refs

BLOCK = st.integers(0, (1 << 48) - 1)
RUN = st.tuples(BLOCK, st.integers(1, 50))
NEAR = st.tuples(st.integers(0, 60), st.integers(1, 9))
PAIR = st.tuples(BLOCK, BLOCK) | st.tuples(st.integers(0, 9), st.integers(0, 9))


def runs_of(pairs: list[tuple[int, int]]) -> Runs:
    rows = np.array(pairs, np.uint64).reshape(-1, 2)
    return Runs(rows[:, 0], rows[:, 1])


def expanded(pairs: list[tuple[int, int]]) -> list[int]:
    return [block for start, count in pairs for block in range(start, start + count)]


@given(st.lists(RUN | NEAR, max_size=20))
def test_runs_expand_in_their_order(pairs: list[tuple[int, int]]) -> None:
    runs = runs_of(pairs)
    assert runs.blocks().tolist() == expanded(pairs)
    assert runs.total == len(expanded(pairs))


@given(st.sets(BLOCK | st.integers(0, 100), max_size=60))
def test_ascending_blocks_become_the_fewest_runs(blocks: set[int]) -> None:
    ascending = sorted(blocks)
    runs = Runs.of(np.array(ascending, np.uint64))
    assert runs.blocks().tolist() == ascending
    starts = [block for block in ascending if block - 1 not in blocks]
    assert runs.start.tolist() == starts


@given(st.lists(st.lists(NEAR, max_size=5), max_size=5))
def test_joined_runs_expand_to_all_of_them(parts: list[list[tuple[int, int]]]) -> None:
    joined = Runs.join([runs_of(part) for part in parts])
    assert joined.blocks().tolist() == [block for part in parts for block in expanded(part)]
    gaps = joined.start[1:] != joined.start[:-1] + joined.count[:-1]
    assert gaps.all()  # touching neighbours are one run


def test_no_runs_are_no_blocks() -> None:
    assert Runs.none().blocks().tolist() == []
    assert Runs.of(np.empty(0, np.uint64)).total == 0
    assert Runs.join([]).total == 0
    assert Runs.join([Runs.none(), Runs.none()]).total == 0


@given(st.lists(PAIR, max_size=30))
def test_references_come_back_from_runs(pairs: list[tuple[int, int]]) -> None:
    refs = np.array(pairs, np.uint64).reshape(-1, 2)
    blocks, targets = unpack_refs(pack_refs(refs))
    assert list(zip(blocks.tolist(), targets.tolist(), strict=True)) == pairs


@given(BLOCK, BLOCK, st.integers(1, 100))
def test_consecutive_references_are_one_run(block: int, target: int, count: int) -> None:
    refs = np.array([(block + at, target + at) for at in range(count)], np.uint64)
    assert pack_refs(refs).tolist() == [[block, target, count]]


@given(st.lists(st.integers(0, 20), max_size=30))
def test_distinct_is_unique(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    assert distinct(array).tolist() == sorted(set(values))
    assert distinct(np.sort(array)).tolist() == sorted(set(values))


def test_distinct_does_not_load_the_rest_of_numpy() -> None:
    code = (
        "import sys, numpy as np; from stages.model import distinct; "
        "distinct(np.array([2, 1, 2], np.uint64)); sys.exit('numpy.ma' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
