"""Block maps of what is damaged or missing, scratch files that fail, and what stays open then."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import trio

from stages.errors import Damage, DamagedObject, MissingData, NoSpace
from stages.recover.pointmap import PointMap
from stages.system import SystemFiles
from stages.vault import layout
from tests.ports.watched import Tripwire, WatchedFiles
from tests.recover.maps import DATA, FILES, ROOT, check, content, naive, open_files, two_disks
from tests.recover.past import CountingStore, Past, noise, past


async def a_history(made: Past) -> None:
    """Commits, a checkpoint in the middle, references to what lies before it."""
    await made.write((ROOT, noise(0, 70)), (DATA, noise(8190, 4)))
    await made.write((ROOT, noise(16384, 3)), zero={ROOT: ((1, 1),)})
    await made.author.checkpoint()
    await made.write((ROOT, noise(5, 1, word="new")), refs={DATA: ((0, ROOT, 2), (1, DATA, 8191))})
    await made.write((DATA, noise(3, 1)), refs={ROOT: ((30, DATA, 0),)})


PARTS = ("manifest", "page", "part")


async def spoil(store: CountingStore, part: str) -> None:
    keys = await store.keys("checkpoints/")
    (manifest,) = [key for key in keys if key.endswith("manifest")]
    pages, *_ = [key for key in keys if key != manifest]  # of maps and digests
    if part == "manifest":
        await store.spoil(manifest, 200)
    elif part == "page":
        await store.spoil(pages, 60)
    else:
        await store.delete(pages)


@pytest.mark.parametrize("part", PARTS)
async def test_a_damaged_checkpoint_costs_time_not_data(part: str) -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        await a_history(made)
        await spoil(store, part)
        group = await made.group()
        await check(group, made.tail, checkpoints=True)
        (note,) = group.log.ignored
        assert "commits are read instead" in note


async def test_readers_side_by_side_rebuild_once() -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        # Nothing after the checkpoint names its pages: they are first looked at when read.
        await made.write((ROOT, noise(0, 70)), (DATA, noise(0, 70)))
        await made.author.checkpoint()
        await made.write((ROOT, noise(9000, 1)))
        await spoil(store, "part")
        group = await made.group()
        point = await PointMap.build(group, FILES, made.tail)
        known, _ = await naive(await made.group(), made.tail)
        store.gets.clear()

        async def read(disk: int, first: int) -> None:
            found = content(await point.locations(disk, first, 10))
            assert found.tolist() == [known.get((disk, first + at), 0) for at in range(10)]

        async with trio.open_nursery() as nursery:
            for first in range(0, 60, 10):
                nursery.start_soon(read, ROOT, first)
                nursery.start_soon(read, DATA, first)
        commits = [key for key, _, _ in store.gets if "/log/" in key]
        assert len(commits) == made.tail - 1  # the newest was read when it was opened
        assert len(group.log.ignored) == 1
        point.close()


async def test_damage_in_the_log_is_damage() -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        await a_history(made)
        group = await made.group()
        await store.delete(layout.commit(group.scope.group, 3))
        with pytest.raises(MissingData) as caught:
            await PointMap.build(group, FILES, made.tail)
        assert caught.value.subject.endswith("3")
        await check(group, 2, checkpoints=True)  # what lies before it is whole


async def test_what_a_checkpoint_covers_may_be_missing() -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        await a_history(made)
        expected = await PointMap.build(await made.group(), FILES, made.tail)
        await store.delete(layout.commit(expected.group.scope.group, 1))
        group = await made.group()
        point = await PointMap.build(group, FILES, made.tail)
        for disk in point.machine.disks:
            found = await point.locations(disk.number, 0, disk.blocks)
            assert (found == await expected.locations(disk.number, 0, disk.blocks)).all()
        point.close()
        expected.close()


async def test_a_map_that_names_unknown_frames_is_damage() -> None:
    async with past(*two_disks(3, 3)) as made:
        await made.write((ROOT, noise(0, 3)))
        point = await PointMap.build(await made.group(), FILES, 1)
        for frame in (7 << 32, 1 << 32 | 99):
            with pytest.raises(DamagedObject):
                await point.places(np.array([frame], np.uint64))
        point.close()


async def test_pages_are_kept_within_a_bound_and_read_once() -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        await a_history(made)
        point = await PointMap.build(await made.group(), FILES, made.tail)
        await point.locations(ROOT, 0, 20000)
        store.gets.clear()
        for first in (0, 8000, 16380):
            await point.locations(ROOT, first, 100)
        assert not store.gets
        point.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
async def test_no_place_for_scratch_files(code: int) -> None:
    async with past(*two_disks(3, 3)) as made:
        await made.write((ROOT, noise(0, 3)))
        group = await made.group()
        for at in range(2):
            tripwire = Tripwire(at=at, code=code)
            with pytest.raises(NoSpace) as caught:
                await PointMap.build(group, WatchedFiles(tripwire), 1)
            assert "TMPDIR" in caught.value.hint
            opened = [name for name in tripwire.names if name == "scratch"]
            closed = [name for name in tripwire.names if name == "close"]
            assert len(closed) == len(opened) - 1


async def test_files_are_closed_whatever_happens() -> None:
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
        await a_history(made)
        group = await made.group()
        before = open_files()
        for key in [layout.commit(group.scope.group, at) for at in (3, 4)]:
            await store.spoil(key, 300)
            with pytest.raises(Damage):
                await PointMap.build(await made.group(), SystemFiles(), made.tail)
            assert open_files() == before
            await store.spoil(key, 300)
        point = await PointMap.build(await made.group(), SystemFiles(), made.tail)
        point.close()
        assert open_files() == before
