from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import StateDamaged, TargetError
from stages.model import BLOCK
from stages.recover.overlay_map import BlockMap, decode, encode, most_bytes


def marked(size: int, *runs: tuple[int, int]) -> BlockMap:
    blocks = BlockMap(size)
    for first, count in runs:
        blocks.mark(first, count)
    return blocks


def reread(blocks: BlockMap, size: int) -> BlockMap:
    data = encode(blocks.snapshot(), size, "base")
    assert len(data) <= most_bytes(size)
    return decode(data, size, "base", "path")


SIZES = st.sampled_from([1, BLOCK, 9 * BLOCK, 1000 * BLOCK - 5, 40_000 * BLOCK + 1, 70_001 * BLOCK])


@settings(deadline=None)
@given(SIZES, st.data())
def test_it_is_a_set_of_blocks(size: int, data: st.DataObject) -> None:
    blocks = BlockMap(size)
    model = np.zeros(blocks.blocks, np.bool_)
    for _ in range(data.draw(st.integers(0, 8))):
        first = data.draw(st.integers(0, blocks.blocks - 1))
        count = data.draw(st.integers(1, blocks.blocks - first))
        blocks.mark(first, count)
        model[first : first + count] = True
    again = reread(blocks, size)
    for found in (blocks, again):
        assert found.present == model.sum()
        assert found.complete == bool(model.all())
        assert np.array_equal(found.presence(0, found.blocks), model)
        start = data.draw(st.integers(0, found.blocks))
        absent = np.flatnonzero(~model[start:])
        assert found.first_absent(start) == (start + int(absent[0]) if len(absent) else None)
        first = data.draw(st.integers(0, found.blocks - 1))
        count = data.draw(st.integers(1, found.blocks - first))
        assert np.array_equal(found.presence(first, count), model[first : first + count])


def test_a_snapshot_stays_as_it_was() -> None:
    blocks = marked(100 * BLOCK, (0, 3))
    before = blocks.snapshot()
    version = blocks.version
    blocks.mark(50, 1)
    assert decode(encode(before, 100 * BLOCK, "b"), 100 * BLOCK, "b", "p").present == 3
    assert blocks.version > version
    blocks.mark(0, 3)
    assert blocks.version == version + 1


def test_a_large_disk_has_a_small_file() -> None:
    size = 1 << 40
    blocks = marked(size, (1 << 20, 5), (1 << 27, 100_000))
    assert len(encode(blocks.snapshot(), size, "base")) < 2000
    assert reread(blocks, size).present == 100_005
    everything = [(first, 1 << 20) for first in range(0, 1 << 28, 1 << 20)]
    assert reread(marked(size, *everything), size).complete


def test_every_damaged_byte_is_noticed() -> None:
    size = 5000 * BLOCK
    data = encode(marked(size, (7, 100)).snapshot(), size, "base")
    dice = random.Random(1)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << dice.randrange(8)
        with pytest.raises(StateDamaged):
            decode(bytes(bad), size, "base", "p")
    for cut in range(0, len(data), 7):
        with pytest.raises(StateDamaged):
            decode(data[:cut], size, "base", "p")


def test_another_base_is_refused() -> None:
    data = encode(BlockMap(10 * BLOCK).snapshot(), 10 * BLOCK, "base")
    with pytest.raises(TargetError):
        decode(data, 10 * BLOCK, "other", "p")
    with pytest.raises(TargetError):
        decode(data, 11 * BLOCK, "base", "p")


def test_pages_that_do_not_fit_the_disk_are_damage() -> None:
    small, large = 10 * BLOCK, 100_000 * BLOCK
    for runs in (((90_000, 1),), ((10, 1),), ((9, 2),)):
        snapshot = marked(large, *runs).snapshot()
        with pytest.raises(StateDamaged):
            decode(encode(snapshot, small, "base"), small, "base", "p")


def test_a_long_identity_is_a_defect() -> None:
    with pytest.raises(ValueError, match="identity"):
        encode(BlockMap(1).snapshot(), 1, "x" * 1025)
