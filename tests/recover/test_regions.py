"""What is kept of a disk that is read: maps of regions; and frames that lie in one piece."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stages.model import BLOCK, FRAME_BLOCKS, U64
from stages.recover import regions
from stages.recover.device import PointDevice
from stages.recover.pointmap import PointMap
from stages.recover.regions import REGION
from stages.vault import location
from tests.ports.watched import InlineOffload
from tests.recover.past import machine, noise, past
from tests.recover.test_device import DISK, ROOT, SIZE, a_disk, content, served

T = TypeVar("T")


async def test_the_map_of_a_region_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    look = PointMap.locations

    async def noted(point: PointMap, disk: int, first: int, count: int) -> U64:
        asked.append((first, count))
        return await look(point, disk, first, count)

    monkeypatch.setattr(PointMap, "locations", noted)
    async with past(DISK) as made:
        image = await a_disk(made)
        async with served(made) as device:
            for at in (0, 700, 5 * BLOCK + 1, 100, 2999 * BLOCK, SIZE - 1):
                assert await content(device, at, 1) == image[at : at + 1]
            assert asked == [(0, REGION), (5 * REGION, 3001 - 5 * REGION)]
            across = (REGION - 1) * BLOCK
            assert await content(device, across, 9000) == image[across : across + 9000]
            assert asked[2:] == [(REGION - 1, 3)]


async def test_maps_of_regions_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "_LOCATED", 2)
    async with past(DISK) as made:
        image = await a_disk(made)
        async with served(made) as device:
            for at in (0, REGION, 2 * REGION, 0, 4 * REGION, 2 * REGION):
                offset = at * BLOCK
                assert await content(device, offset, 5000) == image[offset : offset + 5000]
                assert len(device._located._regions) <= 2


@given(st.lists(st.integers(0, 3) | st.integers((1 << 40) + 60, (1 << 40) + 70), min_size=1))
def test_blocks_in_a_row_in_a_frame_are_told(values: list[int]) -> None:
    for located in (values, list(range(values[0], values[0] + len(values)))):
        row = all(one + 1 == other for one, other in itertools.pairwise(located))
        one_frame = len({at >> 8 for at in located}) == 1
        found = location.in_one_frame(np.array(located, np.uint64))
        assert found == (located[0] if row and one_frame and located[0] > 1 else None)
        if found is not None:
            frame, slot = location.frame_and_slot(found)
            assert frame == int(location.frame_of(np.array([found], np.uint64))[0])
            assert slot == int(location.slot_of(np.array([found], np.uint64))[0])


async def test_a_frame_that_one_reader_wants_is_opened_without_a_hop() -> None:
    """Of several at a time none is but the first: the event loop is there for all."""
    hops = 0

    class Counting(InlineOffload):
        async def run(self, call: Callable[[], T]) -> T:
            nonlocal hops
            hops += 1
            return await super().run(call)

    async with past(DISK) as made:
        await made.write((ROOT, noise(0, 10 * FRAME_BLOCKS)))
        image = made.moments[1].image(ROOT)
        ports = machine()
        point = await PointMap.build(await made.group(), ports.files, made.tail)
        device = PointDevice(point, point.disk("root"), Counting())
        assert await content(device, 0, BLOCK) == image[:BLOCK]
        assert hops == 0

        async def one(frame: int) -> None:
            offset = frame * FRAME_BLOCKS * BLOCK
            assert await content(device, offset, BLOCK) == image[offset : offset + BLOCK]

        async with trio.open_nursery() as nursery:
            for frame in range(1, 10):
                nursery.start_soon(one, frame)
        assert hops > 0
        point.close()
