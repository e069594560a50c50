"""Commits folded many at a time leave what they leave one by one."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from stages.keeper import live, walk
from stages.keeper.history import History
from stages.keeper.live import Frames, live_frames, view
from stages.keeper.walk import Together, Walk
from stages.model import BLOCK, Disk
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import layout
from stages.vault.floors import Floor, KeptPoint
from tests.keeper.world import World, make_world
from tests.vault.author import batch_of
from tests.vault.reading import MACHINE
from tests.vault.support import noise_block
from tests.whole.small import changed, small_pages, small_rollups

ROOT = 0


async def plain(group: Group, seqs: list[int]) -> list[int]:
    """The oracle: each point's map by itself, each commit folded by itself."""
    frames = Frames(group.above)
    for seq in seqs:
        point = await PointMap.build(group, MACHINE.files, seq)
        try:
            for disk in point.machine.disks:
                frames.add(await point.locations(disk.number, 0, disk.blocks))
        finally:
            point.close()
    return list(frames.numbers().tolist())


async def story(world: World, rng: random.Random, commits: int) -> None:
    """Data, zeros, references, disks of other sizes, checkpoints, restarts."""
    record = 1
    for at in range(commits):
        kind = rng.random()
        if kind < 0.3:
            await world.write(rng)
        else:
            blocks = {rng.randrange(30): noise_block(f"{at} {n}") for n in range(rng.randrange(5))}
            zero = ((35, rng.randrange(1, 5)),) if kind < 0.5 else ()
            await world.author.commit((batch_of(1, blocks, zero=zero),), grade="crash")
        if rng.random() < 0.1:
            record += 1
            disks = [Disk(1, "data", rng.choice((10, 90)) * BLOCK)]
            if rng.random() < 0.8:
                disks.insert(0, Disk(ROOT, "root", rng.choice((20, 120)) * BLOCK))
            await world.author.describe(record, *disks)
            await world.author.commit((batch_of(1, {1: noise_block(f"{at}")}),), grade="crash")
            await world.author.describe(
                record + 1, Disk(ROOT, "root", 90 * BLOCK), Disk(1, "data", 40 * BLOCK)
            )
            record += 1
        if rng.random() < 0.1:
            await world.author.checkpoint()
        if rng.random() < 0.05:
            await world.restart()


async def floor_of(group: Group, rng: random.Random) -> Floor:
    """A floor at a checkpoint, with some points before it, each at its nearest checkpoint."""
    keys = await group.log.store.page(layout.checkpoints_prefix(group.scope.group))
    whole = sorted(int(k.key.split("/")[3]) for k in keys if k.key.endswith("/manifest"))
    seq = whole[-1] if whole else 1
    chosen = sorted(rng.sample(range(1, seq), min(seq - 1, rng.randrange(1, 14))))
    points = []
    for each in chosen:
        commit = await group.log.signed(each)
        base = max((one for one in whole if one <= each), default=0)
        points.append(KeptPoint(each, base, commit.header.stamp, 0, commit.link))
    link = (await group.log.signed(seq)).link
    return Floor(1, seq, link, 0, tuple(points))


@pytest.mark.parametrize("seed", range(8))
async def test_as_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    with ExitStack() as stack:
        for each in (small_pages(), small_rollups(), changed((live, "PAGE_ROWS", 32))):
            stack.enter_context(each)
        if seed % 2:
            stack.enter_context(changed((walk, "_FRAMES", 3), (walk, "_WRITTEN", 4)))
        world = await make_world(stack, f"walk {seed}")
        await story(world, rng, 70)
        group = await world.open()
        floor = await floor_of(group, rng)
        seen = view(group, floor)
        seqs = [*(point.seq for point in floor.points), floor.seq]
        found = (await live_frames(seen, MACHINE.files, seqs)).numbers()
        assert found.tolist() == await plain(seen, seqs)


async def test_what_is_not_odd_is_folded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare a thing with itself."""
    folded: list[int] = []
    tables: list[int] = []
    fold, apply = Together._fold, Together._apply

    async def one(self: Together, commit: Any) -> None:
        folded.append(commit.header.seq)
        await fold(self, commit)

    def many(self: Together, writes: Any) -> None:
        tables.append(len(np.unique(writes.location >> np.uint64(8))))
        apply(self, writes)

    monkeypatch.setattr(Together, "_fold", one)
    monkeypatch.setattr(Together, "_apply", many)
    with ExitStack() as stack, small_rollups():
        world = await make_world(stack)
        for at in range(16):
            refs = ((20, 1, 3),) if at == 9 else ()
            batch = batch_of(0, {at % 5: noise_block(str(at))}, zero=((30, 2),), refs=refs)
            await world.author.commit((batch,), grade="crash")
        group = await world.open()
        point = await Walk.begin(group, MACHINE.files, group.tail, History(group))
        point.close()
    assert folded == [10]  # the one with a reference
    assert max(tables) >= 4


async def test_a_rollup_that_lies_is_not_believed() -> None:
    """Any byte of it: the commits themselves are read, and the rollup does not stand in."""
    with ExitStack() as stack, small_rollups():
        world = await make_world(stack)
        rng = random.Random(5)
        for _ in range(8):
            await world.write(rng)
        group = await world.open()
        key = layout.rollup(world.scope.group, 4)
        right = await world.store.get(key)
        expected = await plain(group, [4, 7])
        for at in [*range(32), *range(32, len(right), 37)]:
            spoilt = bytearray(right)
            spoilt[at] ^= 1 << at % 8
            await world.store.delete(key)
            await world.store.put(key, [bytes(spoilt)])
            history = History(group)
            frames = await live_frames(group, MACHINE.files, [4, 7], history)
            assert frames.numbers().tolist() == expected
            assert not await history.prove(4)
        await world.store.delete(key)
        await world.store.put(key, [right])
        assert await History(group).prove(4)
