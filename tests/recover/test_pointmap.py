"""The block map of any point against a fold that takes one block at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.model import U64, Disk
from stages.recover.pointmap import PointMap
from stages.vault import location
from stages.vault.checkpoint import PAGE_ROWS
from tests.recover.maps import DATA, FILES, PLACES, ROOT, check, content, two_disks
from tests.recover.past import Change, CountingStore, Past, noise, past

SIZES = (3, 4097, 8193, 20000)


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
                await made.describe(*two_disks(*sizes))
            case Checkpoint() if named:
                await made.author.checkpoint()
            case Commit():
                data, rest = _fitting(made, step, word)
                await made.write(*data, **rest)


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
    async with past(*two_disks(*sizes)) as made:
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
    async with past(*two_disks(*sizes)) as made:
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
    return content(await point.locations(disk.number, 0, disk.blocks))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("size", [3, 63, 4096])
async def test_what_is_cut_and_grown_again_is_zero(size: int, checkpoint: bool) -> None:
    async with past(*two_disks(20000, 3)) as made:
        await made.write((ROOT, noise(0, 70) | noise(8190, 4)))
        if checkpoint:
            await made.author.checkpoint()
        await made.describe(*two_disks(size, 3))
        await made.write((ROOT, noise(1, 1, word="small")))
        await made.describe(*two_disks(20000, 3))
        await made.write((ROOT, noise(2, 1, word="large")))
        for seq in (1, 2, 3):
            await check(await made.group(), seq, checkpoints=checkpoint)


async def test_references_reach_into_the_checkpoint() -> None:
    """To what it holds, and to what was never written: that undoes what it holds."""
    store = CountingStore()
    async with past(*two_disks(20000, 20000), store=store) as made:
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
