"""The block map of any point against a fold that takes one block at a time."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.errors import Damage, DamagedObject, MissingData, NoSpace
from stages.model import BLOCK, U64, Disk
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.system import SystemFiles
from stages.vault import layout, location
from stages.vault.checkpoint import PAGE_ROWS
from stages.vault.commit import unpack_refs
from tests.ports.watched import Tripwire, WatchedFiles
from tests.recover.past import Change, CountingStore, Past, machine, noise, past

FILES = machine().files
ROOT, DATA = 1, 2
# Around the borders of pages: 4,096 rows in scratch files, 8,192 in checkpoints.
PLACES = (0, 2, 64, 4095, 4096, 8191, 8192, 19999)
SIZES = (3, 4097, 8193, 20000)
Known = dict[tuple[int, int], int]
Rows = dict[tuple[int, int], tuple[int, int]]


async def naive(group: Group, seq: int) -> tuple[Known, Rows]:
    """Locations of blocks, places of frames: all commits, block by block."""
    known: Known = {}
    rows: Rows = {}
    for at in range(1, seq + 1):
        commit = await group.log.signed(at)
        for disk in (await group.machine(commit.header.machine)).disks:
            for gone in [key for key in known if key[0] == disk.number and key[1] >= disk.blocks]:
                del known[gone]
        index = commit.index(group.scope, await group.ring.keys(commit.header.epoch))
        frame = commit.header.first_frame
        for segment in index:
            places = []
            for offset, length, blocks in segment.spans.tolist():
                inline = segment.source < 0
                owner = at | location.INLINE if inline else commit.header.objects[segment.source]
                number = owner if isinstance(owner, int) else owner.number
                rows[commit.header.epoch, frame] = (number, offset << 32 | length)
                places += [commit.header.epoch << 40 | frame << 8 | slot for slot in range(blocks)]
                frame += 1
            for part in segment.parts:
                for block in part.data.blocks().tolist():
                    known[part.disk, block] = places.pop(0)
                for block in part.zero.blocks().tolist():
                    known.pop((part.disk, block), None)
            copied = []
            for part in segment.parts:
                found = zip(*(each.tolist() for each in unpack_refs(part.refs)), strict=True)
                for block, target in found:
                    other = (target >> 48, target & (1 << 48) - 1)
                    copied.append(((part.disk, block), known.get(other)))
            for place, value in copied:
                known.pop(place, None)
                if value is not None:
                    known[place] = value
    return known, rows


async def check(group: Group, seq: int, *, checkpoints: bool, whole: bool = True) -> PointMap:
    """Hold a map against the naive one: all blocks, and the places of all frames they need."""
    known, rows = await naive(group, seq)
    point = await PointMap.build(group, FILES, seq, checkpoints=checkpoints)
    for disk in point.machine.disks:
        expected = np.zeros(disk.blocks, np.uint64)
        for (number, block), value in known.items():
            if number == disk.number:
                expected[block] = value
        found = await point.locations(disk.number, 0, disk.blocks)
        assert (_content(found) == expected).all()
        for first in [place for place in PLACES if place < disk.blocks]:
            count = min(disk.blocks - first, 70)
            piece = await point.locations(disk.number, first, count)
            assert (_content(piece) == expected[first : first + count]).all()
        frames = np.unique(location.frame_of(expected[expected > 0]))
        places = await point.places(frames)
        wanted = [rows[location.split(int(frame))] for frame in frames]
        assert [tuple(row) for row in places.tolist()] == wanted
    if whole:
        point.close()
    return point


def _content(locations: U64) -> U64:
    return np.where(locations > location.ZERO, locations, np.uint64(0))


@dataclass(frozen=True)
class Commit:
    data: dict[int, list[int]]
    zero: dict[int, list[tuple[int, int]]]
    refs: dict[int, list[tuple[int, int, int]]]


@dataclass(frozen=True)
class Resize:
    sizes: tuple[int, int]


class Checkpoint:
    def __repr__(self) -> str:
        return "Checkpoint"


_place = st.sampled_from(PLACES)
_disk = st.sampled_from([ROOT, DATA])
_commit = st.builds(
    Commit,
    data=st.dictionaries(_disk, st.lists(_place, unique=True, max_size=6), max_size=2),
    zero=st.dictionaries(
        _disk, st.lists(st.tuples(_place, st.sampled_from([1, 3, 5000])), max_size=2), max_size=2
    ),
    refs=st.dictionaries(_disk, st.lists(st.tuples(_place, _disk, _place), max_size=3), max_size=2),
)
_resize = st.builds(Resize, st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)))
_steps = st.lists(
    _commit | _commit | _commit | _resize | st.builds(Checkpoint), min_size=3, max_size=12
)


async def play(made: Past, steps: list[Commit | Resize | Checkpoint]) -> None:
    for word, step in enumerate(steps):
        # Disks that no commit names are no part of the log. The daemon makes checkpoints after
        # commits only; what is cut and grown again without one, a scan sends anew.
        named = made.tail and made.moments[made.tail].header.machine == made.machine
        match step:
            case Resize(sizes=sizes) if named or not made.tail:
                await made.describe(*_disks(*sizes))
            case Checkpoint() if named:
                await made.author.checkpoint()
            case Commit():
                data, rest = _fitting(made, step, word)
                await made.write(*data, **rest)


def _disks(root: int, data: int) -> tuple[Disk, Disk]:
    return Disk(ROOT, "root", root * BLOCK), Disk(DATA, "data", data * BLOCK - 100)


def _fitting(made: Past, step: Commit, word: int) -> tuple[list[Change], dict[str, Any]]:
    """The step without what leaves the disks or names a block twice in one segment."""
    limit = {disk.number: disk.blocks for disk in made.disks}
    taken: set[tuple[int, int]] = set()

    def free(disk: int, block: int, count: int = 1) -> bool:
        named = {(disk, at) for at in range(block, block + count)}
        if block + count > limit[disk] or taken & named:
            return False
        taken.update(named)
        return True

    data: list[Change] = [
        (disk, {at: noise(at, 1, word=f"{word}.{disk}")[at] for at in sorted(places)})
        for disk, wanted in step.data.items()
        if (places := [at for at in wanted if free(disk, at)])
    ]
    zero = {
        disk: tuple(sorted(run for run in runs if free(disk, *run)))
        for disk, runs in step.zero.items()
    }
    # Writers never refer to what the same commit makes zero: their own record relies on it.
    zeroed = {
        (disk, at)
        for disk, runs in zero.items()
        for first, n in runs
        for at in range(first, first + n)
    }
    refs = {
        disk: tuple(
            (block, other, target)
            for block, other, target in rows
            if target < limit[other] and (other, target) not in zeroed and free(disk, block)
        )
        for disk, rows in step.refs.items()
    }
    return data, {"zero": zero, "refs": refs}


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=_steps, sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)))
async def test_any_history(
    steps: list[Commit | Resize | Checkpoint], sizes: tuple[int, int]
) -> None:
    async with past(*_disks(*sizes)) as made:
        await play(made, steps)
        if not made.tail:
            return
        group = await made.group()
        for checkpoints in (True, False):
            await check(group, made.tail, checkpoints=checkpoints)
        await check(group, (made.tail + 1) // 2, checkpoints=True)
        assert not group.log.ignored


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=_steps, sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)))
async def test_a_map_that_goes_on_is_as_one_built_there(
    steps: list[Commit | Resize | Checkpoint], sizes: tuple[int, int]
) -> None:
    async with past(*_disks(*sizes)) as made:
        await play(made, steps)
        if made.tail < 2:
            return
        group = await made.group()
        begun = (made.tail + 1) // 2
        point = await PointMap.build(group, FILES, begun)
        before = {disk.number: await _all(point, disk) for disk in point.machine.disks}
        for seq in sorted({begun + 1, made.tail}):
            written = await point.advance(seq)
            built = await PointMap.build(group, FILES, seq)
            assert point.machine == built.machine
            now = {disk.number: await _all(point, disk) for disk in point.machine.disks}
            for disk in built.machine.disks:
                assert (now[disk.number] == await _all(built, disk)).all()
                old = before[disk.number][: disk.blocks]
                changed = np.flatnonzero(
                    (old != now[disk.number][: len(old)])
                    & (now[disk.number][: len(old)] > location.ZERO)
                )
                assert set((changed // PAGE_ROWS).tolist()) <= set(written.get(disk.number, ()))
                wanted = np.unique(location.frame_of(now[disk.number]))
                wanted = wanted[wanted > 0]
                assert (await point.places(wanted) == await built.places(wanted)).all()
            built.close()
            before = now
        point.close()


async def _all(point: PointMap, disk: Disk) -> U64:
    return _content(await point.locations(disk.number, 0, disk.blocks))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("size", [3, 63, 4096])
async def test_what_is_cut_and_grown_again_is_zero(size: int, checkpoint: bool) -> None:
    async with past(*_disks(20000, 3)) as made:
        await made.write((ROOT, noise(0, 70) | noise(8190, 4)))
        if checkpoint:
            await made.author.checkpoint()
        await made.describe(*_disks(size, 3))
        await made.write((ROOT, noise(1, 1, word="small")))
        await made.describe(*_disks(20000, 3))
        await made.write((ROOT, noise(2, 1, word="large")))
        for seq in (1, 2, 3):
            await check(await made.group(), seq, checkpoints=checkpoint)


async def test_references_reach_into_the_checkpoint() -> None:
    """To what it holds, and to what was never written: that undoes what it holds."""
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
        await made.write((ROOT, noise(0, 70)), (DATA, noise(8190, 4)))
        await made.author.checkpoint()
        await made.write(
            refs={
                ROOT: ((0, ROOT, 300), (1, DATA, 8191), (9000, DATA, 8193)),
                DATA: ((8190, DATA, 1), (5, ROOT, 69)),
            }
        )
        group = await made.group()
        store.gets.clear()
        point = await PointMap.build(group, FILES, 2)
        point.close()
        assert [key for key, _, _ in store.gets if "/checkpoints/" in key]
        await check(group, 2, checkpoints=True)
        assert not group.log.ignored


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
    async with past(*_disks(20000, 20000), store=store) as made:
        await a_history(made)
        await spoil(store, part)
        group = await made.group()
        await check(group, made.tail, checkpoints=True)
        (note,) = group.log.ignored
        assert "commits are read instead" in note


async def test_readers_side_by_side_rebuild_once() -> None:
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
        # Nothing after the checkpoint names its pages: they are first looked at when read.
        await made.write((ROOT, noise(0, 70)), (DATA, noise(0, 70)))
        await made.author.checkpoint()
        await made.write((ROOT, noise(9000, 1)))
        await spoil(store, "part")
        group = await made.group()
        point = await PointMap.build(group, FILES, made.tail)
        known, _ = await naive(group, made.tail)
        store.gets.clear()

        async def read(disk: int, first: int) -> None:
            found = _content(await point.locations(disk, first, 10))
            assert found.tolist() == [known.get((disk, first + at), 0) for at in range(10)]

        async with trio.open_nursery() as nursery:
            for first in range(0, 60, 10):
                nursery.start_soon(read, ROOT, first)
                nursery.start_soon(read, DATA, first)
        commits = [key for key, _, _ in store.gets if "/log/" in key]
        assert len(commits) == made.tail
        assert len(group.log.ignored) == 1
        point.close()


async def test_damage_in_the_log_is_damage() -> None:
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
        await a_history(made)
        group = await made.group()
        await store.delete(layout.commit(group.scope.group, 3))
        with pytest.raises(MissingData) as caught:
            await PointMap.build(group, FILES, made.tail)
        assert caught.value.subject.endswith("3")
        await check(group, 2, checkpoints=True)  # what lies before it is whole


async def test_what_a_checkpoint_covers_may_be_missing() -> None:
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
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
    async with past(*_disks(3, 3)) as made:
        await made.write((ROOT, noise(0, 3)))
        point = await PointMap.build(await made.group(), FILES, 1)
        for frame in (7 << 32, 1 << 32 | 99):
            with pytest.raises(DamagedObject):
                await point.places(np.array([frame], np.uint64))
        point.close()


async def test_pages_are_kept_within_a_bound_and_read_once() -> None:
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
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
    async with past(*_disks(3, 3)) as made:
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


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_files_are_closed_whatever_happens() -> None:
    store = CountingStore()
    async with past(*_disks(20000, 20000), store=store) as made:
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
