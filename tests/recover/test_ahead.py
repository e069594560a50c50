"""Reading ahead of a reader, behind its back: it waits for what it wants, and for nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from stages.errors import StoreUnreachable
from stages.model import BLOCK, FRAME_BLOCKS, Disk
from stages.recover.device import PointDevice
from stages.recover.regions import REGION
from tests.recover.past import CountingStore, noise, past
from tests.recover.test_device import ROOT, content, served

FRAME = FRAME_BLOCKS * BLOCK
REGIONS = 12
DISK = Disk(ROOT, "root", REGIONS * REGION * BLOCK)


class Held(CountingStore):
    """What is more than a frame is held back until ``let`` is set, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.let = trio.Event()
        self.failing = False

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        found = await super().get(key, offset, length)
        if "/data/" in key and len(found) > 1.5 * FRAME:
            if self.failing:
                raise StoreUnreachable("away", subject=key)
            await self.let.wait()
        return found

    @property
    def data(self) -> list[int]:
        """Bytes that were asked for."""
        return [length or 0 for key, _, length in self.gets if "/data/" in key]


@dataclass
class Scene:
    store: Held
    device: PointDevice
    image: bytes
    nursery: trio.Nursery

    async def right(self, block: int, count: int = FRAME_BLOCKS) -> None:
        found = await content(self.device, block * BLOCK, count * BLOCK)
        assert found == self.image[block * BLOCK : (block + count) * BLOCK]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    store = Held()
    async with past(DISK, store=store) as made:
        for at in range(REGIONS):
            await made.write((ROOT, noise(at * REGION, REGION)))
        image = made.moments[made.tail].image(ROOT)
        async with (
            trio.open_nursery() as nursery,
            served(made, cache=64 << 20, nursery=nursery) as device,
        ):
            store.gets.clear()
            with trio.fail_after(60):
                yield Scene(store, device, image, nursery)
            nursery.cancel_scope.cancel()


async def test_a_reader_goes_on_with_what_it_needs() -> None:
    """The second frame of a region makes that the rest is fetched, and does not wait for it."""
    async with scene() as on:
        await on.right(0)
        await on.right(FRAME_BLOCKS)
        assert all(length < 1.5 * FRAME for length in on.store.data[:2])
        await trio.testing.wait_all_tasks_blocked()
        assert len(on.store.data) == 3
        on.store.let.set()
        for block in range(0, REGION, FRAME_BLOCKS):
            await on.right(block)
        assert len(on.store.data) == 3


async def test_the_next_region_is_on_its_way_before_it_is_read() -> None:
    async with scene() as on:
        on.store.let.set()
        for block in range(0, REGION + FRAME_BLOCKS, FRAME_BLOCKS):
            await on.right(block)
        await trio.testing.wait_all_tasks_blocked()
        on.store.gets.clear()
        on.store.let = trio.Event()  # of the one after it
        for block in range(REGION, 3 * REGION, FRAME_BLOCKS):
            await on.right(block)
        await trio.testing.wait_all_tasks_blocked()
        assert len(on.store.data) == 1
        on.store.let.set()
        for block in range(3 * REGION, REGIONS * REGION, FRAME_BLOCKS):
            await on.right(block)
        assert len(on.store.data) == REGIONS - 3  # each region once, and none beyond the end


async def test_what_is_on_its_way_is_bounded() -> None:
    """Two regions; a reader of a third waits for it, and fetches it as a whole."""
    async with scene() as on:
        for region in (0, 2, 5):
            await on.right(region * REGION)
        for region in (0, 2):
            await on.right(region * REGION + FRAME_BLOCKS)
        done = trio.Event()

        async def third() -> None:
            await on.right(5 * REGION + FRAME_BLOCKS)
            done.set()

        on.nursery.start_soon(third)
        await trio.testing.wait_all_tasks_blocked()
        assert len([length for length in on.store.data if length > 1.5 * FRAME]) == 3
        assert not done.is_set()
        on.store.let.set()
        await done.wait()
        on.store.gets.clear()
        await on.right(5 * REGION, REGION)
        assert not on.store.data


async def test_nothing_is_left_of_what_was_cancelled() -> None:
    async with scene() as on:
        async with trio.open_nursery() as nursery:
            on.device._nursery = nursery
            await on.right(0)
            await on.right(FRAME_BLOCKS)
            await trio.testing.wait_all_tasks_blocked()
            assert on.device._on_their_way == 1
            nursery.cancel_scope.cancel()
        assert (on.device._on_their_way, on.device._frames._under_way) == (0, {})
        on.device._nursery = on.nursery
        for block in range(0, REGION, FRAME_BLOCKS):  # whoever wants one of them fetches it
            await on.right(block)


async def test_errors_are_for_those_who_want_what_fails() -> None:
    async with scene() as on:
        on.store.failing = True
        for block in range(0, REGION, FRAME_BLOCKS):
            await on.right(block)
        with pytest.raises(StoreUnreachable):
            await on.right(5 * REGION, 4 * FRAME_BLOCKS)
        on.store.failing = False
        on.store.let.set()
        for block in range(0, REGIONS * REGION, REGION // 4):
            await on.right(block, REGION // 4)
