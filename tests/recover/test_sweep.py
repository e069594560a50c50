"""Fetching and opening: what is whole arrives once, what is not is named, bounds hold."""

from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import Damage, StoreUnreachable
from stages.model import BLOCK, FRAME_BLOCKS, Disk
from stages.recover.extract import DamagedExtent, each
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.sweep import AHEAD, Sweep, content_runs, stretches
from stages.store.port import ObjectStore
from stages.vault import layout
from tests.recover.past import Blocks, CountingStore, Past, machine, noise, past

ROOT = 1
DISK = Disk(ROOT, "root", 3000 * BLOCK - 100)


class Swept:
    """What a sweep brought."""

    def __init__(self) -> None:
        self.blocks: Blocks = {}
        self.damage: list[DamagedExtent] = []
        self.lost = 0

    def take(self, need: FrameNeed, content: memoryview) -> None:
        for slot, block, count in content_runs(need):
            for at in range(count):
                assert block + at not in self.blocks
                there = content[(slot + at) * BLOCK : (slot + at + 1) * BLOCK]
                self.blocks[block + at] = bytes(there)


async def swept(made: Past, *, window: int, store: ObjectStore | None = None) -> Swept:
    ports = machine()
    point = await PointMap.build(await made.group(store), ports.files, made.tail)
    found = Swept()
    sweep = Sweep(point, ports, window_blocks=window)
    for first in sweep.windows(DISK):
        found.damage += await sweep.extract(await sweep.locate(DISK, first), each(found.take))
    assert found.damage == sweep.damage
    found.lost = sweep.lost
    point.close()
    return found


async def a_disk(made: Past) -> Blocks:
    await made.write((ROOT, noise(0, 200) | noise(2990, 10)))
    await made.write((ROOT, noise(100, 1, word="inline")))
    await made.write(refs={ROOT: tuple((2000 + at, ROOT, 2 * at) for at in range(90))})
    return made.blocks[ROOT]


@pytest.mark.parametrize("window", [1, 7, 64, 100_000])
async def test_all_content_arrives_once_whatever_the_window(window: int) -> None:
    async with past(DISK) as made:
        blocks = await a_disk(made)
        found = await swept(made, window=window)
        assert found.blocks == blocks
        assert (found.damage, found.lost) == ([], 0)


@pytest.mark.parametrize("how", ["missing", "cut", "flipped", "empty"])
async def test_what_is_damaged_is_named_and_the_rest_arrives(how: str) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        blocks = await a_disk(made)
        (key,) = await store.keys("/data/")
        size = len(await store.get(key))
        if how == "missing":
            await store.delete(key)
        elif how == "cut":
            await store.spoil(key, size // 2, cut=True)
        elif how == "flipped":
            await store.spoil(key, size // 2)
        else:
            await store.spoil(key, 0, cut=True)
        found = await swept(made, window=100_000)
        lost = blocks.keys() - found.blocks.keys()
        assert lost
        assert found.blocks == {at: blocks[at] for at in blocks.keys() - lost}
        if how == "flipped":
            assert len(lost) <= 2 * FRAME_BLOCKS  # one frame, and references into it
        ranges = [
            range(extent.offset // BLOCK, -(-(extent.offset + extent.length) // BLOCK))
            for extent in found.damage
        ]
        assert sorted(block for one in ranges for block in one) == sorted(lost)
        assert {extent.key for extent in found.damage} == {key}
        assert found.lost == sum(extent.length for extent in found.damage)
        assert all(extent.offset + extent.length <= DISK.size for extent in found.damage)


async def test_a_damaged_commit_loses_its_inline_frames() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_disk(made)
        await made.author.checkpoint()
        await made.write((ROOT, noise(50, 1, word="later")))
        key = layout.commit(made.author.scope.group, 2)
        await store.spoil(key, 40, cut=True)
        found = await swept(made, window=100_000)
        assert [(each.offset, each.length) for each in found.damage] == [
            (100 * BLOCK, BLOCK),
            (2050 * BLOCK, BLOCK),
        ]
        assert {each.key for each in found.damage} == {key}


async def _lose_keys(store: CountingStore, use: str) -> None:
    for key in await store.keys(f"/{use}"):
        if "/for/" in key:
            await store.delete(key)


async def test_an_index_key_that_is_gone_costs_its_epoch() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_disk(made)
        await _lose_keys(store, "index")
        with pytest.raises(Damage, match="key"):
            await PointMap.build(await made.group_by_id(), machine().files, made.tail)


async def test_a_data_key_that_is_gone_costs_the_frames_of_its_epoch() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_disk(made)
        await _lose_keys(store, "data")
        ports = machine()
        point = await PointMap.build(await made.group_by_id(), ports.files, made.tail)
        sweep = Sweep(point, ports)
        for disk in point.machine.disks:
            await sweep.extract(await sweep.locate(disk, 0), lambda _room, _laid: None)
        point.close()
        assert sweep.lost
        assert all("wrapped key" in each.reason for each in sweep.damage)


async def test_trouble_of_the_store_is_no_damage() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_disk(made)

        def outage(key: str) -> None:
            if "/data/" in key:
                raise StoreUnreachable("away", subject=key)

        store.before = outage
        with pytest.raises(StoreUnreachable):
            await swept(made, window=100_000)


async def test_gets_run_ahead_but_not_away() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        for at in range(3 * AHEAD):
            await made.write((ROOT, noise(at * 20, 10)))
        store.gate = trio.Event()
        store.gets.clear()

        def under_way() -> int:
            return len([key for key, _, _ in store.gets if "/data/" in key])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: swept(made, window=100_000))
            await trio.testing.wait_all_tasks_blocked()
            assert under_way() == AHEAD
            store.gate.set()
        assert under_way() == 3 * AHEAD


@st.composite
def rooms(draw: st.DrawFn) -> list[tuple[int, int, FrameNeed]]:
    """Frames one after the other, some of whose blocks are wanted, mostly in a row."""
    laid, at, block = [], 0, 0
    for number in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 9))
        slots = draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True).map(sorted))
        blocks = []
        for _ in slots:
            block += draw(st.sampled_from([1, 1, 1, 2, 100]))
            blocks.append(block)
        need = FrameNeed(1, number, np.array(slots, np.uint64), np.array(blocks, np.uint64))
        laid.append((at * BLOCK, size * BLOCK, need))
        at += size
    return laid


@given(rooms())
def test_stretches_of_a_room_are_all_that_is_wanted_of_it(
    laid: list[tuple[int, int, FrameNeed]],
) -> None:
    wanted = [
        (at // BLOCK + slot, block)
        for at, _, need in laid
        for slot, block in zip(need.slots.tolist(), need.blocks.tolist(), strict=True)
    ]
    found = stretches(laid)
    pairs = [(slot + at, block + at) for slot, block, count in found for at in range(count)]
    assert pairs == wanted
    ends = [(slot + count, block + count) for slot, block, count in found]
    starts = [(slot, block) for slot, block, _ in found]
    assert not set(ends) & set(starts), "neighbours are one stretch"
