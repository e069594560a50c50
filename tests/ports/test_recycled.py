"""Memory is used again when nobody looks at it any more, and never before."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.model import U8
from stages.recycled import Recycled

SIZE = 64


def place(array: U8) -> int:
    """Where it lies."""
    return int(array.__array_interface__["data"][0])


def test_the_last_view_counts() -> None:
    pool = Recycled(SIZE, 2)
    array = pool.take(40)
    at = place(array)
    view = array.reshape(-1, 8)[1:]
    piece = view[2:].reshape(-1).data
    del array
    assert pool.spare == 0
    del view
    assert pool.spare == 0
    del piece
    assert pool.spare == 1
    assert place(pool.take(SIZE)) == at


def test_no_more_is_kept_than_that() -> None:
    pool = Recycled(SIZE, 2)
    held = [pool.take(1) for _ in range(5)]
    held.clear()
    assert pool.spare == 2


def test_what_is_larger_is_not_kept() -> None:
    pool = Recycled(SIZE, 2)
    assert pool.take(SIZE + 1).shape == (SIZE + 1,)
    assert pool.spare == 0


def test_it_may_go_in_another_thread() -> None:
    pool = Recycled(SIZE, 2)
    held = [pool.take(SIZE)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pool.spare == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, SIZE)), max_size=60))
def test_no_two_that_are_held_share_memory(steps: list[tuple[bool, int]]) -> None:
    pool = Recycled(SIZE, 3)
    held: list[tuple[U8, int]] = []
    for number, (give, size) in enumerate(steps):
        if give and held:
            held.pop(size % len(held))
        else:
            array = pool.take(size)
            array[:] = number
            held.append((array, number))
        assert all(np.all(array == value) for array, value in held)
