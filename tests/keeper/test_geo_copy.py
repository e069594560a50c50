"""A copy of a vault at another place, in which random objects of the last minute are missing."""

from __future__ import annotations

import random
from contextlib import ExitStack

from stages.recover.opened import open_vault
from stages.recover.points import choose
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from stages.vault import layout
from tests.keeper.world import World, make_world
from tests.vault.reading import MACHINE, read_point
from tests.vault.support import SECOND

SEEDS = 40


async def last_minute(stack: ExitStack) -> tuple[World, set[str]]:
    """A vault, and what was stored in its last minute: commits, data, a checkpoint, a rollup's
    copy of them, the keeper's packs and floor."""
    world = await make_world(stack)
    rng = random.Random(50)
    for at in range(9):
        await world.write(rng)
        world.wait(12)
        if at % 2 == 0:
            await world.author.checkpoint()
        if at == 5:
            await world.hold(5)
            await world.keep()
    before = world.clock.wall
    await world.keep()
    for at in range(6):
        await world.write(rng, consistent=at != 4)
        if at == 2:
            await world.author.checkpoint()
    assert world.clock.wall - before < 60 * SECOND
    objects = world.store._objects
    return world, {key for key, each in objects.items() if each.modified * SECOND >= before}


def complete(world: World, there: set[str], young: set[str]) -> int:
    """The newest consistent commit that is there, with the data of all up to it, and all commits
    since a checkpoint or the last that is old."""
    gid = world.scope.group
    checkpoint = {key for key in young if f"/checkpoints/{12:015d}/" in key} <= there
    known = [layout.commit(gid, seq) in there for seq in range(10, 16)]
    for seq in (15, 13, 12, 11, 10):
        begins = 12 if checkpoint and seq >= 12 else 9
        if not all(known[begins - 9 : seq - 9]) or not known[seq - 10]:
            continue
        if all(data_of[each] <= there for each in range(10, seq + 1) if known[each - 10]):
            return seq
    return 9


data_of: dict[int, set[str]] = {}


async def test_the_newest_complete_consistent_commit() -> None:
    with ExitStack() as stack:
        world, young = await last_minute(stack)
        group = await world.open()
        for seq in range(10, 16):
            header = (await group.log.signed(seq)).header
            data_of[seq] = {
                layout.data(world.scope.group, header.epoch, ref.number) for ref in header.objects
            }
        kinds = {key.split("/")[2] for key in young if key.startswith("groups/")}
        assert {"log", "data", "packs", "floors", "checkpoints"} <= kinds
        found, whole = set(), 0
        for seed in range(SEEDS):
            rng = random.Random(seed)
            share = rng.choice((0.1, 0.3, 0.6))
            missing = {key for key in sorted(young) if rng.random() < share}
            store = MemoryStore()
            for key, each in world.store._objects.items():
                if key not in missing:
                    await store.put(key, [each.data])
            vault = await open_vault(store, world.people.operator)
            copy = await vault.find("web1")
            choice = await choose(copy, "web1", None)
            assert choice.point.seq == complete(world, set(store._keys), young), (seed, missing)
            for seq in (choice.point.seq, 5):
                disks, damage = await read_point(copy, seq)
                # A commit up to the checkpoint that is missing spares nobody its tail's frames:
                # what it costs is named, and nothing else is wrong.
                lost = {layout.commit(world.scope.group, each) for each in range(10, 13)} & missing
                assert {each.key for each in damage} <= lost, (seed, seq, damage)
                assert damage or disks == world.points[seq], seed
                whole += not damage
            found.add(choice.point.seq)
        assert len(found) > 3
        assert whole > SEEDS


async def test_verify_names_a_pack_that_has_not_arrived() -> None:
    with ExitStack() as stack:
        world, young = await last_minute(stack)
        packs = sorted(key for key in young if "/packs/" in key)
        for key in packs:
            await world.store.delete(key)
        told: dict[str, str] = {}
        for seq in await world.offered():
            found = await Verify(await world.open(), MACHINE, seq).run()
            assert found.whole
            assert not any(problem.fatal for problem in found.problems)
            told |= {problem.key: problem.reason for problem in found.problems}
        assert told.keys() == set(packs)
        assert all("where they were before" in reason for reason in told.values())
