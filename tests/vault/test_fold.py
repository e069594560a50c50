"""Folding: the order in which the steps of a commit apply, against plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import DamagedObject
from stages.model import Runs
from stages.vault.commit import Part, SegmentIndex
from stages.vault.fold import CopyRefs, SetData, SetZero, check_bounds, steps
from stages.vault.location import ZERO
from tests.vault.test_commit import HEADER
from tests.vault.test_runs import runs_of

DISK_BLOCKS = 12
Map = dict[tuple[int, int], int]


def references(
    rows: list[tuple[int, int, int, int]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """Rows of block, target disk, target block, count."""
    found = [(block, disk << 48 | target, count) for block, disk, target, count in rows]
    return np.array(found, np.uint64).reshape(-1, 3)


def segment(*parts: Part) -> SegmentIndex:
    held = sum(part.data.total for part in parts)
    spans = [(0, 9, 1)] * held
    return SegmentIndex(-1, np.array(spans, np.uint32).reshape(-1, 3), parts)


def folded(blocks: Map, *segments: SegmentIndex) -> Map:
    """The map after a commit, by its steps."""
    blocks = dict(blocks)
    for step in steps(HEADER, segments):
        match step:
            case SetData(disk=disk, runs=runs, locations=locations):
                for block, value in zip(runs.blocks().tolist(), locations[:, 0], strict=True):
                    blocks[disk, block] = int(value)
            case SetZero(disk=disk, runs=runs):
                blocks |= {(disk, block): ZERO for block in runs.blocks().tolist()}
            case CopyRefs():
                targets = zip(step.target_disk.tolist(), step.target_block.tolist(), strict=True)
                values = [blocks.get(target, 0) for target in targets]
                named = zip(step.disk.tolist(), step.block.tolist(), values, strict=True)
                for disk, block, value in named:
                    blocks[disk, block] = value
    return blocks


def naive(blocks: Map, *segments: SegmentIndex) -> Map:
    """The same by what FORMAT.md says, block by block."""
    blocks = dict(blocks)
    slots = _slots(HEADER.epoch, HEADER.first_frame)
    for each in segments:
        for part in each.parts:
            for block in part.data.blocks().tolist():
                blocks[part.disk, block] = next(slots)
            for block in part.zero.blocks().tolist():
                blocks[part.disk, block] = 1
        before = dict(blocks)
        for part in each.parts:
            for block, target, count in part.refs.tolist():
                for at in range(count):
                    other = (target + at) >> 48, (target + at) & ((1 << 48) - 1)
                    blocks[part.disk, block + at] = before.get(other, 0)
    return blocks


def _slots(epoch: int, first: int) -> Iterator[int]:
    """Frames of one block each."""
    while True:
        yield epoch << 40 | first << 8
        first += 1


RUNS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), max_size=2).map(runs_of)
REFS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 1), st.integers(0, 8), st.integers(1, 4)),
    max_size=3,
).map(references)
PARTS = st.builds(Part, st.integers(0, 1), RUNS, RUNS, REFS)
SEGMENTS = st.lists(PARTS, max_size=4).map(lambda parts: segment(*parts))
BEFORE = st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 11)), st.integers(2, 99))


@settings(max_examples=150)
@given(BEFORE, st.lists(SEGMENTS, max_size=3))
def test_steps_give_what_the_format_says(before: Map, index: list[SegmentIndex]) -> None:
    assert folded(before, *index) == naive(before, *index)


def test_references_see_the_content_of_their_whole_segment() -> None:
    """Also of parts that come after them."""
    early = Part(0, Runs.none(), Runs.none(), references([(5, 1, 7, 1)]))
    late = Part(1, runs_of([(7, 1)]), Runs.none(), references([]))
    found = folded({}, segment(early, late))
    assert found[0, 5] == found[1, 7] == HEADER.epoch << 40 | HEADER.first_frame << 8


def test_references_do_not_see_each_other() -> None:
    """Two blocks can change places, within a part and across parts."""
    within = Part(0, Runs.none(), Runs.none(), references([(1, 0, 2, 1), (2, 0, 1, 1)]))
    assert folded({(0, 1): 11, (0, 2): 22}, segment(within)) == {(0, 1): 22, (0, 2): 11}
    first = Part(0, Runs.none(), Runs.none(), references([(1, 1, 1, 1)]))
    second = Part(1, Runs.none(), Runs.none(), references([(1, 0, 1, 1)]))
    assert folded({(0, 1): 11, (1, 1): 22}, segment(first, second)) == {(0, 1): 22, (1, 1): 11}


def test_a_later_segment_sees_the_one_before() -> None:
    one = Part(0, Runs.none(), Runs.none(), references([(1, 0, 2, 1)]))
    two = Part(0, Runs.none(), Runs.none(), references([(3, 0, 1, 1)]))
    assert folded({(0, 2): 22}, segment(one), segment(two))[0, 3] == 22


def test_an_unset_target_leaves_a_block_unset() -> None:
    one = Part(0, Runs.none(), Runs.none(), references([(1, 0, 2, 1)]))
    assert folded({(0, 1): 11}, segment(one)) == {(0, 1): 0}


def test_frames_are_counted_through_all_segments() -> None:
    one = Part(0, runs_of([(0, 2)]), Runs.none(), references([]))
    two = Part(0, runs_of([(4, 1)]), Runs.none(), references([]))
    found = folded({}, segment(one), segment(), segment(two))
    first = HEADER.epoch << 40 | HEADER.first_frame << 8
    assert found == {(0, 0): first, (0, 1): first + 256, (0, 4): first + 512}


def test_blocks_of_one_frame_are_its_slots() -> None:
    part = Part(0, runs_of([(9, 2), (3, 1)]), Runs.none(), references([]))
    index = replace(segment(part), spans=np.array([(0, 9, 3)], np.uint32))
    first = HEADER.epoch << 40 | HEADER.first_frame << 8
    assert folded({}, index) == {(0, 9): first, (0, 10): first + 1, (0, 3): first + 2}


@pytest.mark.parametrize(
    "part",
    [
        Part(2, runs_of([(0, 1)]), Runs.none(), references([])),
        Part(0, runs_of([(DISK_BLOCKS, 1)]), Runs.none(), references([])),
        Part(0, runs_of([(DISK_BLOCKS - 1, 2)]), Runs.none(), references([])),
        Part(0, runs_of([(0, 1)]), runs_of([(0, 1 << 48)]), references([])),
        Part(0, runs_of([(0, 1)]), runs_of([((1 << 48) - 1, 1)]), references([])),
        Part(0, runs_of([(0, 1)]), Runs.none(), references([(DISK_BLOCKS, 0, 0, 1)])),
        Part(0, runs_of([(0, 1)]), Runs.none(), references([(0, 0, 0, DISK_BLOCKS + 1)])),
    ],
)
def test_an_index_that_leaves_its_disk_is_damage(part: Part) -> None:
    with pytest.raises(DamagedObject) as caught:
        check_bounds((segment(part),), {0: DISK_BLOCKS, 1: DISK_BLOCKS}, "the key")
    assert caught.value.subject == "the key"


def test_an_index_may_fill_its_disk() -> None:
    whole = runs_of([(0, DISK_BLOCKS)])
    part = Part(0, whole, whole, references([(0, 1, 0, DISK_BLOCKS)]))
    check_bounds((segment(part),), {0: DISK_BLOCKS}, "the key")
