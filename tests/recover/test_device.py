"""A point as a block device: what it reads, what it fetches, what it keeps, what damage costs."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio
import trio.testing

from stages.errors import DamagedObject, StoreUnreachable
from stages.model import BLOCK, FRAME_BLOCKS, Disk
from stages.nbd import wire
from stages.nbd.device import FileRange, error_code
from stages.recover.device import TOGETHER, PointDevice
from stages.recover.pointmap import PointMap
from tests.recover.past import CountingStore, Past, machine, noise, past

ROOT = 1
SIZE = 3000 * BLOCK + 1000
DISK = Disk(ROOT, "root", SIZE)


@asynccontextmanager
async def served(
    made: Past, *, cache: int = 8 << 20, nursery: trio.Nursery | None = None
) -> AsyncIterator[PointDevice]:
    ports = machine()
    point = await PointMap.build(await made.group(), ports.files, made.tail)
    disk = point.disk("root")
    yield PointDevice(point, disk, ports.offload, cache_bytes=cache, nursery=nursery)
    point.close()


async def content(device: PointDevice, offset: int, length: int) -> bytes:
    parts = await device.read(offset, length)
    assert not any(isinstance(part, FileRange) for part in parts)
    return b"".join(part for part in parts if not isinstance(part, FileRange))


async def a_disk(made: Past) -> bytes:
    """Frames whose blocks lie scattered, holes, references, a short last block."""
    await made.write((ROOT, noise(0, 200) | noise(2990, 11)))
    await made.write((ROOT, noise(0, 130, word="again") | noise(500, 3)), zero={ROOT: ((150, 9),)})
    scattered = {at * 7 % 400 + 1000: noise(at, 1)[at] for at in range(100)}
    await made.write(
        (ROOT, scattered),
        refs={ROOT: tuple((2000 + at, ROOT, 3 * at) for at in range(50))},
    )
    return made.moments[made.tail].image(ROOT)


async def test_reads_anywhere_equal_the_model() -> None:
    async with past(DISK) as made:
        image = await a_disk(made)
        dice = random.Random(4)
        async with served(made) as device:
            assert (device.info.size, device.info.read_only) == (SIZE, True)
            assert await content(device, 0, SIZE) == image
            for _ in range(300):
                offset = dice.choice([dice.randrange(SIZE), dice.randrange(3000) * BLOCK])
                offset = min(offset, SIZE - 1)
                length = min(
                    dice.choice([1, 100, BLOCK, 70_000, 800_000, 5_000_000]), SIZE - offset
                )
                assert await content(device, offset, length) == image[offset : offset + length]


async def test_extents_equal_the_model() -> None:
    async with past(DISK) as made:
        await a_disk(made)
        held = made.moments[made.tail].blocks[ROOT]
        dice = random.Random(5)
        async with served(made) as device:
            for offset in [0, *(dice.randrange(SIZE) for _ in range(100))]:
                length = dice.randrange(1, SIZE - offset + 1)
                at = offset
                kinds = []
                for extent in await device.extents(offset, length):
                    kinds.append(bool(extent.flags & wire.STATE_ZERO))
                    blocks = range(at // BLOCK, -(-(at + extent.length) // BLOCK))
                    assert {block not in held for block in blocks} == {kinds[-1]}
                    at += extent.length
                assert at == offset + length
                assert all(one != other for one, other in itertools.pairwise(kinds))


async def test_a_frame_is_fetched_once_for_all_who_want_it() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await made.write((ROOT, noise(0, FRAME_BLOCKS)))
        image = made.moments[1].image(ROOT)
        async with served(made) as device:
            store.gets.clear()
            results: dict[int, bytes] = {}

            async def one(at: int) -> None:
                results[at] = await content(device, at * BLOCK, 3 * BLOCK)

            async with trio.open_nursery() as nursery:
                for at in range(40):
                    nursery.start_soon(one, at)
            fetched = [key for key, _, _ in store.gets if "/data/" in key]
            assert len(fetched) == 1
            for at, found in results.items():
                assert found == image[at * BLOCK : (at + 3) * BLOCK]
            await content(device, 0, BLOCK)
            assert len([key for key, _, _ in store.gets if "/data/" in key]) == 1


async def test_whoever_waits_for_a_cancelled_read_reads_itself() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await made.write((ROOT, noise(0, FRAME_BLOCKS)))
        image = made.moments[1].image(ROOT)
        async with served(made) as device:
            store.gate = trio.Event()
            given_up = trio.CancelScope()
            results: list[bytes] = []

            async def first() -> None:
                with given_up:
                    await content(device, 0, BLOCK)

            async def second() -> None:
                results.append(await content(device, BLOCK, BLOCK))

            async with trio.open_nursery() as nursery:
                for task in (first, second):
                    nursery.start_soon(task)
                    await trio.testing.wait_all_tasks_blocked()
                assert len([key for key, _, _ in store.gets if "/data/" in key]) == 1
                given_up.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert len([key for key, _, _ in store.gets if "/data/" in key]) == 2
                store.gate.set()
            assert results == [image[BLOCK : 2 * BLOCK]]


async def test_reading_in_a_row_fetches_much_at_a_time_and_here_and_there_little() -> None:
    store = CountingStore()
    async with past(Disk(ROOT, "root", 4096 * BLOCK), store=store) as made:
        for first in range(0, 4096, 1024):
            await made.write((ROOT, noise(first, 1024)))
        image = made.moments[made.tail].image(ROOT)

        def fetched() -> list[int]:
            return [length or 0 for key, _, length in store.gets if "/data/" in key]

        async with served(made) as device:
            store.gets.clear()
            for offset in range(0, len(image), 65536):
                assert await content(device, offset, 65536) == image[offset : offset + 65536]
            assert sum(fetched()) < len(image) * 1.01  # nothing twice
            assert len(fetched()) <= 2 * (4096 // 512)
        async with served(made) as device:
            store.gets.clear()
            places = list(range(0, 4096, 128))
            random.Random(6).shuffle(places)
            for block in places:
                await content(device, block * BLOCK, BLOCK)
            assert len(fetched()) == len(places)
            assert max(fetched()) < 2 * FRAME_BLOCKS * BLOCK  # a frame, not a region


@pytest.mark.parametrize("cache", [0, FRAME_BLOCKS * BLOCK, 3 * FRAME_BLOCKS * BLOCK])
async def test_the_cache_is_bounded(cache: int) -> None:
    async with past(DISK) as made:
        image = await a_disk(made)
        async with served(made, cache=cache) as device:
            for offset in range(0, SIZE, 100_000):
                length = min(100_000, SIZE - offset)
                assert await content(device, offset, length) == image[offset : offset + length]
                held = sum(len(each) for each in device._frames._cache.values())
                assert held == device._frames.held <= cache


async def test_a_short_frame_ends_where_it_ends() -> None:
    """Behind it in memory is still what a longer one left there: never content, and not kept."""
    async with past(DISK) as made:
        await made.write((ROOT, noise(0, FRAME_BLOCKS)))
        await made.write((ROOT, noise(100, 3)))
        async with served(made) as device:
            await content(device, 0, FRAME_BLOCKS * BLOCK)
            await content(device, 100 * BLOCK, BLOCK)
            kept = [len(each) for each in device._frames._cache.values()]
            assert kept == [FRAME_BLOCKS * BLOCK, 3 * BLOCK]
            located = await device._located.region(0)
            located[103] = located[102] + np.uint64(1)  # a map that says more than there is
            for first in (103, 102, 98):  # alone, with some that is there, beside a hole
                with pytest.raises(DamagedObject, match="fewer blocks"):
                    await device.read(first * BLOCK, (104 - first) * BLOCK)
            assert len(await content(device, 100 * BLOCK, 3 * BLOCK)) == 3 * BLOCK


async def test_a_large_read_of_scattered_blocks_holds_few_frames_at_a_time() -> None:
    async with past(DISK) as made:
        for at in range(3 * TOGETHER):  # a frame for each block, all of it one read
            await made.write((ROOT, noise(at, 1) | noise(1000 + 2 * at, 1)))
        image = made.moments[made.tail].image(ROOT)
        async with served(made, cache=0) as device:
            most = 0
            fetch = device._frames._fetch

            async def watched(frames, wanted, arrived):  # type: ignore[no-untyped-def]
                nonlocal most
                most = max(most, len(wanted))
                return await fetch(frames, wanted, arrived)

            device._frames._fetch = watched  # type: ignore[method-assign]
            assert await content(device, 0, SIZE) == image
            assert most == TOGETHER


async def test_damage_fails_what_needs_it_and_nothing_else() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await made.write((ROOT, noise(0, 2 * FRAME_BLOCKS)))
        await made.write((ROOT, noise(1000, 10)))
        image = made.moments[2].image(ROOT)
        (whole, other) = await store.keys("/data/")
        frame = (len(await store.get(whole)) // 2) + 100
        await store.spoil(whole, frame)
        async with served(made, cache=0) as device:
            with pytest.raises(DamagedObject) as caught:
                await device.read(0, SIZE)
            assert error_code(caught.value) == wire.EIO
            assert caught.value.subject == whole
            end = FRAME_BLOCKS * BLOCK
            assert await content(device, 0, end) == image[:end]
            assert await content(device, 2 * end, SIZE - 2 * end) == image[2 * end :]
            await store.delete(other)
            with pytest.raises(DamagedObject, match="missing"):
                await device.read(1000 * BLOCK, 1)


async def test_an_error_of_the_store_is_of_one_read_only() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await made.write((ROOT, noise(0, FRAME_BLOCKS)))
        image = made.moments[1].image(ROOT)
        async with served(made) as device:

            def outage(key: str) -> None:
                if "/data/" in key:
                    raise StoreUnreachable("away", subject=key)

            store.before = outage
            with pytest.raises(StoreUnreachable):
                await device.read(0, BLOCK)
            store.before = lambda _: None
            assert await content(device, 0, BLOCK) == image[:BLOCK]


async def test_it_cannot_be_written() -> None:
    async with past(DISK) as made:
        await made.write((ROOT, noise(0, 1)))
        async with served(made) as device:
            await device.flush()
            for attempt in (
                device.write(0, memoryview(b"x"), fua=False),
                device.trim(0, 1, fua=False),
                device.zero(0, 1, no_hole=False, fua=False),
            ):
                with pytest.raises(PermissionError):
                    await attempt
