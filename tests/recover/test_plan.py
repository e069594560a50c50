"""Planning: every wanted block exactly once, gets within bounds."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.recover.plan import GAP, HAUL_BYTES, FrameNeed, Haul, hauls, needs
from stages.recover.sweep import content_runs
from stages.vault import layout, location

GROUP = bytes(16)

_located = st.builds(
    lambda epoch, frame, slot: epoch << 40 | frame << 8 | slot,
    st.integers(1, 3),
    st.integers(0, 5) | st.just((1 << 32) - 1),
    st.integers(0, 63),
)
_locations = st.lists(st.sampled_from([0, 1]) | _located, max_size=80)


@settings(deadline=None)
@given(_locations, st.integers(0, 1 << 40))
def test_needs_name_every_block_with_content_once(locations: list[int], first: int) -> None:
    frames, wanted = needs(np.array(locations, np.uint64), first)
    found = sorted(
        (int(block), need.epoch << 40 | need.number << 8 | int(slot))
        for need in wanted
        for slot, block in zip(need.slots, need.blocks, strict=True)
    )
    expected = [(first + at, value) for at, value in enumerate(locations) if value > 1]
    assert found == expected
    assert [need.epoch << 32 | need.number for need in wanted] == frames.tolist()
    assert len(set(frames.tolist())) == len(frames)
    assert all((np.diff(need.slots.astype(int)) >= 0).all() for need in wanted)


@settings(deadline=None)
@given(_locations, st.integers(0, 1 << 40))
def test_runs_of_a_frame_are_its_slots_and_blocks_in_order(
    locations: list[int], first: int
) -> None:
    for need in needs(np.array(locations, np.uint64), first)[1]:
        runs = content_runs(need)
        pairs = [(slot + at, block + at) for slot, block, run in runs for at in range(run)]
        assert pairs == list(zip(need.slots.tolist(), need.blocks.tolist(), strict=True))
        for (slot, block, run), (slot2, block2, _) in itertools.pairwise(runs):
            assert (slot + run, block + run) != (slot2, block2)  # as long as can be


def test_nothing_is_needed_for_zeros() -> None:
    frames, wanted = needs(np.array([0, 1, 1, 0], np.uint64), 7)
    assert (len(frames), wanted) == (0, [])
    none = np.empty(0, np.uint64)
    assert content_runs(FrameNeed(1, 1, none, none)) == []


@st.composite
def _directories(draw: st.DrawFn) -> tuple[list[FrameNeed], np.ndarray]:
    """Frames at places: objects of frames one after the other, of which some are wanted."""
    wanted, rows = [], []
    number = 0
    for inline, object_number in draw(
        st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=4, unique=True)
    ):
        offset = 0
        for length, picked in draw(
            st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=40)
        ):
            if picked:
                one = np.zeros(1, np.uint64)
                wanted.append(FrameNeed(1, number, one, one))
                span = offset << 32 | length
                rows.append((object_number | (location.INLINE if inline else 0), span))
            number += 1
            offset += length
    order = draw(st.permutations(range(len(wanted))))
    table = np.array([rows[at] for at in order], np.uint64).reshape(-1, 2)
    return [wanted[at] for at in order], table


@settings(deadline=None)
@given(_directories())
def test_hauls_fetch_every_frame_once_and_stay_in_bounds(
    directory: tuple[list[FrameNeed], np.ndarray],
) -> None:
    wanted, rows = directory
    found = hauls(GROUP, wanted, rows)
    at = {need.number: location.place(row) for need, row in zip(wanted, rows, strict=True)}
    fetched = [need.number for haul in found for _, _, need in haul.frames]
    assert sorted(fetched) == sorted(at)
    for haul in found:
        assert haul.length <= HAUL_BYTES
        for offset, length, need in haul.frames:
            place = at[need.number]
            assert (offset, length, haul.tail) == (place.offset, place.length, place.inline)
            key = layout.commit if place.inline else _data
            assert haul.key == key(GROUP, place.number)
            assert haul.offset <= offset
            assert offset + length <= haul.offset + haul.length
        gaps = _gaps(haul)
        assert all(gap <= GAP for gap in gaps)
    for one, other in itertools.pairwise(found):
        if one.key == other.key:  # two gets of one object: too far apart, or too long together
            gap = other.offset - (one.offset + one.length)
            first = other.frames[0]
            assert gap > GAP or first[0] + first[1] - one.offset > HAUL_BYTES


def _data(group: bytes, number: int) -> str:
    return layout.data(group, 1, number)


def _gaps(haul: Haul) -> list[int]:
    return [
        following[0] - (before[0] + before[1])
        for before, following in itertools.pairwise(haul.frames)
    ]


def test_long_stretches_are_cut() -> None:
    one = np.zeros(1, np.uint64)
    wanted = [FrameNeed(1, number, one, one) for number in range(100)]
    rows = np.array([(7, number * 200_000 << 32 | 200_000) for number in range(100)], np.uint64)
    found = hauls(GROUP, wanted, rows)
    assert [haul.length for haul in found] == [20 * 200_000] * 5
    assert all(haul.length <= HAUL_BYTES for haul in found)


def test_a_length_that_no_frame_has_is_not_asked_for() -> None:
    one = np.zeros(1, np.uint64)
    rows = np.array([(5, 0xFFFFFFFF)], np.uint64)
    (haul,) = hauls(GROUP, [FrameNeed(1, 1, one, one)], rows)
    assert haul.length <= HAUL_BYTES
