"""The power fails at every single operation on files: the record never promises what is not so, and
the next life comes to the same bytes."""

from __future__ import annotations

import copy
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import pytest

from stages.errors import BackstayError
from stages.model import BLOCK, Disk
from stages.replica.record import Status
from tests.branches.support import Branch, Forest, forest
from tests.ports.watched import Around, Tripwire
from tests.recover.past import noise
from tests.replica.support import FOLDER, follow, opened, point_of, promised
from tests.whole.memfiles import MemFiles

ROOT, DATA = 1, 2
DISKS = (Disk(ROOT, "root", 40 * BLOCK + 512), Disk(DATA, "data", 20 * BLOCK))
GROWN = (Disk(ROOT, "root", 44 * BLOCK), Disk(3, "more", 4 * BLOCK))
THERE = "/srv/guests"

Work: TypeAlias = Callable[[MemFiles, Around | None], Awaitable[object]]


@dataclass
class Story:
    """A history with a branch."""

    forest: Forest
    main: Branch
    branch: Branch
    resized: int


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    async with forest() as made:
        main = await made.plant(*DISKS)
        await main.write((ROOT, noise(0, 12)), (DATA, noise(3, 4)))
        await main.write((ROOT, noise(10, 9, word="b")), zero={DATA: ((3, 1),)})
        await main.write((ROOT, noise(40, 1)), refs={DATA: ((9, ROOT, 11), (10, ROOT, 30))})
        await main.write((ROOT, noise(2, 1, word="c")), zero={ROOT: ((5, 3),)})
        branch = await made.branch(main, 3)
        await branch.write((ROOT, noise(20, 3, word="d")))
        await main.describe(*GROWN)
        resized = await main.write((ROOT, noise(41, 3, word="e")), (3, noise(0, 2)))
        yield Story(made, main, branch, resized)


async def everywhere(story: Story, before: MemFiles, work: Work, *, both: bool = False) -> MemFiles:
    """Cut the power at each operation of ``work``, on what was before; what it leaves when nothing
    happens to it. ``both``: before and after each operation; else the one or the other."""
    counting, after = Tripwire(), copy.deepcopy(before)
    await work(after, counting)
    branches = (story.main, story.branch)
    assert promised(after, branches) is not None
    assert len(counting.names) > 10
    for at in [at for at, path in enumerate(counting.paths) if path.startswith("/srv")]:
        for late in (False, True) if both else (at % 2 == 0,):
            files, wire = copy.deepcopy(before), Tripwire(at, errno.EIO, late)
            with suppress(BackstayError):
                await work(files, wire)
            files.process_died()
            files.power_cut(seed=2 * at + late)
            promised(files, branches)
            await work(files, None)
            promised(files, branches)
            assert _disks(files) == _disks(after), (at, late, wire.tripped)
    return after


def _disks(files: MemFiles) -> dict[str, bytes]:
    return {name: files.read(name, 1 << 30) for name in files.names if name.endswith(".img")}


async def following(story: Story, branch: Branch, seq: int) -> Work:
    found = await point_of(story.forest, branch, seq)

    async def work(files: MemFiles, around: Around | None) -> object:
        return await follow(story.forest, branch, files, around=around, found=found)

    return work


def empty(files: MemFiles | None = None) -> MemFiles:
    files = files or MemFiles()
    for folder in ("/srv", "/tmp"):
        files.mkdir(folder)
    files.sync_dir("/")
    return files


async def test_the_first_copy_and_what_follows(story: Story) -> None:
    files = await everywhere(story, empty(), await following(story, story.main, 1))
    files = await everywhere(story, files, await following(story, story.main, 4), both=True)
    await everywhere(story, files, await following(story, story.main, story.resized))


async def test_another_branch_and_back(story: Story) -> None:
    files = empty()
    await follow(story.forest, story.main, files, seq=4)
    files = await everywhere(story, files, await following(story, story.branch, 1))
    await everywhere(story, files, await following(story, story.main, 2))


async def test_given_away(story: Story) -> None:
    files = empty()
    await follow(story.forest, story.main, files, seq=4)
    group, point = await point_of(story.forest, story.main, 4)

    async def work(files: MemFiles, around: Around | None) -> object:
        replica = await opened(files, around)
        try:
            if replica.record is not None and replica.record.status is Status.WHOLE:
                await replica.bring(group, point)  # a power cut may leave other times
            return await replica.give(THERE)
        finally:
            replica.close()

    files = await everywhere(story, files, work, both=True)
    found = promised(files, (story.main,))
    assert found is not None
    assert found.status is Status.GIVEN
    assert not [name for name in files.listdir(FOLDER) if name.endswith(".img")]
