"""A replica beside a keeper: points go, frames move, and it is where it says all the same."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from stages.recover.opened import open_vault
from stages.recover.points import choose
from stages.replica import record
from stages.replica.bounds import Brought
from stages.replica.record import Status, path_of
from stages.replica.replica import Replica
from tests.keeper.world import GRACE, World, make_world
from tests.recover.past import machine
from tests.replica.support import FOLDER, SMALL
from tests.replica.test_crashes import empty
from tests.whole.memfiles import MemFiles


async def follows(world: World, files: MemFiles) -> Brought:
    """One round with the second recipient's key, compared byte for byte."""
    vault = await open_vault(world.store, world.people.second)
    group = await vault.find("web1")
    point = (await choose(group, "web1", None)).point
    replica = await Replica.open(machine(files), FOLDER, vault.charter.vault, "web1", SMALL)
    try:
        found = await replica.bring(group, point)
    finally:
        replica.close()
    kept = record.read(files, FOLDER)
    assert kept is not None
    assert kept.status is Status.WHOLE
    for disk in kept.disks:
        held = files.read(path_of(FOLDER, disk.number), 1 << 30)
        assert held == world.points[point.seq][disk.name]
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_points_go_and_frames_move(seed: int) -> None:
    rng, files = random.Random(seed), empty()
    with ExitStack() as stack:
        world = await make_world(stack, f"replica {seed}")
        await world.write(rng)
        assert (await follows(world, files)).compared
        ways = []
        for _ in range(6):
            for _ in range(rng.choice((1, 5, 12))):
                await world.write(rng)
                world.wait(rng.choice((0.2, 9)))
            await world.author.checkpoint()
            if rng.random() < 0.6:
                await world.keep()
                world.wait(GRACE / 3600 + 1)
                await world.write(rng)
                await world.keep()
            ways.append((await follows(world, files)).compared)
        assert False in ways  # as long as the log leads on, only what changed is written
        for _ in range(20):
            await world.write(rng)
            world.wait(20)
        await world.author.checkpoint()
        await world.keep()
        world.wait(GRACE / 3600 + 1)
        await world.write(rng)
        await world.keep()
        assert (await follows(world, files)).compared  # the log before it is gone
