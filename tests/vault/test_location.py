"""Locations: 64 bits that name a block of a frame of an epoch, and where frames are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.model import U32
from stages.vault import location
from stages.vault.commit import FRAME_NUMBERS
from stages.vault.location import Place
from stages.vault.terms import MAX_EPOCH

EPOCHS = st.integers(1, MAX_EPOCH)
BLOCKS = st.lists(st.integers(1, 64), max_size=20)


def u32(values: list[int]) -> U32:
    return np.array(values, np.uint32)


@given(EPOCHS, st.integers(0, FRAME_NUMBERS - 21), BLOCKS)
def test_locations_name_every_block_of_every_frame(
    epoch: int, first: int, blocks: list[int]
) -> None:
    found = location.of_frames(epoch, first, u32(blocks))
    expected = [
        (epoch, first + at, slot) for at, count in enumerate(blocks) for slot in range(count)
    ]
    frames = [location.split(frame) for frame in location.frame_of(found).tolist()]
    slots = location.slot_of(found).tolist()
    assert [(*frame, slot) for frame, slot in zip(frames, slots, strict=True)] == expected
    assert found.tolist() == [e << 40 | f << 8 | s for e, f, s in expected]


def test_the_outermost_locations_fit() -> None:
    last = location.of_frames(MAX_EPOCH, FRAME_NUMBERS - 1, u32([64]))
    assert int(last[-1]) == MAX_EPOCH << 40 | 0xFFFFFFFF << 8 | 63
    first = location.of_frames(1, 0, u32([1]))
    assert int(first[0]) > location.ZERO > location.UNSET  # epochs begin at 1


@given(
    st.integers(0, (1 << 62) - 1),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(1, 0xFFFFFFFF), st.integers(1, 64)),
        max_size=10,
    ),
)
def test_places_come_back(number: int, inline: bool, spans: list[tuple[int, int, int]]) -> None:
    rows = location.places(number, inline, u32([0, 0, 0] * 0).reshape(0, 3))
    assert rows.shape == (0, 2)
    rows = location.places(number, inline, np.array(spans, np.uint32).reshape(-1, 3))
    found = [location.place(row) for row in rows]
    assert found == [Place(inline, number, offset, length) for offset, length, _ in spans]
