"""Readers and writers at work while the keeper deletes, interleaved at every store operation.

Whoever reads a point either gets its very bytes or is told that retention has let it go. A point
that is still offered is always got, also where its frames were moved while it was read, and
however long that took: the grace is over in all of these tests.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from bench.servers.cloud import Cloud
from stages.errors import BrokenChain, Expired, Fenced
from stages.model import BLOCK
from stages.recover.device import PointDevice
from stages.recover.opened import open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.recover.restore import Restore
from stages.recover.target import Target
from stages.recover.verify import Verify
from stages.store.open import open_store
from stages.store.port import ObjectStore, walk
from tests.keeper.stores import Changing, Meanwhile, Recording, in_files, in_store
from tests.keeper.world import World, make_world
from tests.vault.author import Author
from tests.vault.reading import MACHINE

STEP = 5
OPENING = 60  # operations of which a reader opens a vault, as all readers do it
Disks = dict[str, bytes]
Reader = Callable[[World, ObjectStore, int, Path], Awaitable[Disks | None]]


async def restored(world: World, store: ObjectStore, seq: int, folder: Path) -> Disks:
    """As ``restore`` does it."""
    group = await (await open_vault(store, world.people.operator)).find("web1")
    choice = await choose(group, "web1", seq)
    point = await PointMap.build(group, MACHINE.files, choice.point.seq)
    disks = point.machine.disks
    targets = [Target(disk, str(folder / disk.name), device=False) for disk in disks]
    restore = Restore(point, MACHINE, window_blocks=32)
    try:
        await restore.run(targets)
    finally:
        restore.close()
    return {each.disk.name: await trio.Path(each.path).read_bytes() for each in targets}


async def exported(world: World, store: ObjectStore, seq: int, folder: Path) -> Disks:
    """As a guest of ``export`` reads."""
    group = await (await open_vault(store, world.people.operator)).find("web1")
    point = await PointMap.build(group, MACHINE.files, seq)
    found = {}
    try:
        for disk in point.machine.disks:
            device = PointDevice(point, disk, MACHINE.offload, cache_bytes=BLOCK)
            content = b""
            while len(content) < disk.size:
                size = min(16 * BLOCK, disk.size - len(content))
                content += b"".join(cast("list[bytes]", await device.read(len(content), size)))
            found[disk.name] = content
    finally:
        point.close()
    return found


async def verified(world: World, store: ObjectStore, seq: int, folder: Path) -> None:
    """As ``verify`` does it: it finds no damage where there is none."""
    group = await (await open_vault(store, world.people.operator)).find("web1")
    found = await Verify(group, MACHINE, seq).run()
    assert (found.whole, found.problems) == (True, ()), found


@dataclass(frozen=True)
class Stage:
    """``states``: all that a keeper makes of a vault, change by change. ``left``: points that are
    offered at the end: of 3, 5 (held) and 9 (the newest) the last two."""

    world: World
    states: list[dict[str, Any]]
    left: list[int]

    async def outcome(self, read: Reader, store: ObjectStore, seq: int, folder: Path) -> str:
        """Read a point: right, or let go; anything else is an error."""
        try:
            found = await read(self.world, store, seq, folder)
        except Expired as error:
            assert seq not in self.left
            assert (error.exit_code, "points" in error.hint) == (13, True)
            return "gone"
        assert found in (None, self.world.points[seq])
        return "read"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    async def make() -> Stage:
        world = await make_world(stack, "beside")
        rng = random.Random(20)
        for at in range(9):
            await world.write(rng)
            world.wait(8)
            if at % 3 == 0:
                await world.author.checkpoint()
        await world.hold(5)
        world.author.ledger.checkpoint_state()
        recording = Recording(world.store, world.clock)
        after = replace(world, store=recording)
        before = world.clock.wall
        await all_phases(after)
        world.clock.wall = before
        floor = (await after.open()).log.floor
        assert floor is not None
        assert floor.packs
        left = await after.check(5, 9)
        assert 3 not in left
        return Stage(world, recording.states, left)

    with ExitStack() as stack:
        yield trio.run(make)


async def all_phases(world: World) -> None:
    """A floor, its grace, what it lets go; and so the next, which moves and lets go more."""
    for _ in range(4):
        world.wait(12)
        report = await world.keep()
        assert report.clean, report


READERS = [restored, exported, verified]


@pytest.mark.parametrize("read", READERS)
async def test_all_of_it_between_two_operations_of_a_reader(
    stage: Stage, read: Reader, tmp_path: Path
) -> None:
    """The grace of several floors is over between two of a reader's operations."""
    outcomes = set()
    for seq in (3, 5, 9):  # every fifth operation, others for each point
        at, done = seq // 2 + (OPENING if read is not restored else 0), False
        while not done:
            store = Changing(stage.states, lambda number, at=at: 9999 * (number == at))  # type: ignore[misc]
            folder = tmp_path / f"{seq}-{at}"
            folder.mkdir()
            outcomes.add(await stage.outcome(read, store, seq, folder))
            done = store.count <= at
            at += STEP
    assert outcomes == {"gone", "read"}


@pytest.mark.parametrize("read", READERS)
async def test_a_reader_and_a_keeper_step_by_step(
    stage: Stage, read: Reader, tmp_path: Path
) -> None:
    """Every object that goes or comes is one step, at any pace beside the reader's."""
    for seed in range(20):
        rng = random.Random(seed)
        pace = rng.choice((1, 2, 4))
        begins = rng.randrange(100)
        store = Changing(
            stage.states,
            lambda number: rng.randrange(pace + 1) * (number >= begins),  # noqa: B023
        )
        folder = tmp_path / str(seed)
        folder.mkdir()
        await stage.outcome(read, store, rng.choice((3, 5, 9)), folder)


async def test_in_real_files(stage: Stage, tmp_path: Path) -> None:
    """The same with files that are removed, and a keeper that runs."""
    before = stage.world.clock.wall
    for seq, at in ((3, 70), (5, 85), (9, 100)):
        folder = tmp_path / str(seq)
        folder.mkdir()
        world = await in_files(stage.world, str(folder / "vault"))
        store = Meanwhile(world.store, world, at, partial(all_phases, world))
        await stage.outcome(restored, store, seq, folder)
        assert store.begun > at
        stage.world.clock.wall = before


async def test_on_a_server(stage: Stage, s3: Cloud, tmp_path: Path) -> None:
    """The same with objects of SeaweedFS, which forgets them by its own rules."""
    before = stage.world.clock.wall
    outcomes = []
    for seq, at in ((3, 70), (5, 85)):
        folder = tmp_path / str(seq)
        folder.mkdir()
        far = open_store(s3.url(), MACHINE)
        world = await in_store(stage.world, far)
        store = Meanwhile(world.store, world, at, partial(all_phases, world))
        outcomes.append(await stage.outcome(restored, store, seq, folder))
        assert store.begun > at
        there = {info.key async for info in walk(far, "", most=10_000)}
        assert set(stage.world.store._keys) - there  # what was let go is gone from the server
        await far.aclose()
        stage.world.clock.wall = before
    assert outcomes == ["gone", "read"]


def forked(world: World, folder: Path) -> World:
    """A world of its own, with a copy of the writer's state; its writer has not begun."""
    shutil.copytree(world.folder, folder)
    store = Recording(world.store, world.clock)
    disks = {number: bytearray(disk) for number, disk in world.disks.items()}
    return replace(
        world,
        store=store,
        folder=str(folder),
        points=dict(world.points),
        disks=disks,
        _looked_at=frozenset(),
    )


async def begun(world: World, store: ObjectStore) -> None:
    """Its writer begins."""
    world.author = Author(world.people, store, world.folder, world.machine)
    await world.author.begin()


async def test_a_writer_and_all_of_it_between_two_operations(stage: Stage, tmp_path: Path) -> None:
    """References to blocks of any age, data that no commit has named yet, a checkpoint."""
    before = stage.world.clock.wall
    at, done = 0, False
    while not done:
        world = forked(stage.world, tmp_path / str(at))
        store = Meanwhile(world.store, world, at, partial(all_phases, world))
        await begun(world, store)
        rng = random.Random(at)
        for _ in range(3):
            await world.write(rng)
        await world.author.checkpoint()
        await world.write(rng)
        done = store.begun <= at
        world.author.ledger.close()
        assert world.author.ledger.tail.seq == 13
        for _ in range(2):
            await world.check(13)
            await world.keep()
            world.wait(1.1)
        at += STEP
        stage.world.clock.wall = before
    assert at > 30


async def test_a_writer_with_an_old_state_takes_no_place_that_retention_has_emptied(
    stage: Stage, tmp_path: Path
) -> None:
    """A copy of the state at commit 9 goes on while the log has long gone beyond, and its place,
    commit 10, may be empty again: whatever the moment, it is fenced and no point suffers."""
    before = stage.world.clock.wall
    other = forked(stage.world, tmp_path / "other")
    await begun(other, other.store)
    rng = random.Random(30)
    for at in range(9):
        await other.write(rng)
        other.wait(8)
        if at % 3 == 0:
            await other.author.checkpoint()
    await other.hold(9)  # so that what it knows as the tail is there, and nothing after it
    other.author.ledger.close()
    now = other.clock.wall
    at, done, ends = 0, False, set()
    while not done:
        vault = Recording(other.store, other.clock)
        later = replace(other, store=vault)
        late = replace(forked(stage.world, tmp_path / str(at)), store=vault)
        store = Meanwhile(vault, later, at, partial(all_phases, later))
        with pytest.raises((Fenced, BrokenChain)) as caught:
            await begun(late, store)
            await late.write(random.Random(at))
        ends.add(caught.value.message)
        done = store.begun <= at
        late.author.ledger.close()
        await later.check(5, 9, 18)
        at += 2
        stage.world.clock.wall = now
    assert at > 10
    stage.world.clock.wall = before
    assert any("the log begins at commit" in end for end in ends), ends
