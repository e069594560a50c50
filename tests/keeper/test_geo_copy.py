"""A copy of a vault at another place, in which random objects of the last minute are missing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

import pytest

from stages.model import BLOCK, Batch
from stages.recover.opened import Group, open_vault
from stages.recover.points import choose, newest_graded
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from stages.vault import layout
from stages.vault.rollup import SPAN
from tests.keeper.world import DISKS, World, make_world
from tests.vault.author import batch_of
from tests.vault.reading import MACHINE, read_point
from tests.vault.support import SECOND, noise_block

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
    """The newest consistent commit that is there, with the data of all up to it, all commits
    since a checkpoint or the last that is old, and what has content of it of those before."""
    gid = world.scope.group
    checkpoint = {key for key in young if f"/checkpoints/{12:015d}/" in key} <= there
    known = [layout.commit(gid, seq) in there for seq in range(10, 16)]
    for seq in (15, 13, 12, 11, 10):
        begins = 12 if checkpoint and seq >= 12 else 9
        if not all(known[begins - 9 : seq - 9]) or not known[seq - 10]:
            continue
        if begins == 12 and not tails_of[seq] <= there:
            continue
        if all(data_of[each] <= there for each in range(10, seq + 1) if known[each - 10]):
            return seq
    return 9


def random_part(young: set[str], seed: int) -> set[str]:
    """A tenth to more than a half of the keys."""
    rng = random.Random(seed)
    share = rng.choice((0.1, 0.3, 0.6))
    return {key for key in sorted(young) if rng.random() < share}


async def without(world: World, *missing: str, short: Mapping[str, int] | None = None) -> Group:
    """The group in a copy of its vault that lacks some objects; ``short``: of these the end, so
    many bytes."""
    store = MemoryStore()
    for key, each in world.store._objects.items():
        if key not in missing:
            cut = (short or {}).get(key, 0)
            await store.put(key, [each.data[: len(each.data) - cut]])
    return await (await open_vault(store, world.people.operator)).find("web1")


async def needed(world: World, seq: int) -> set[str]:
    """Of commits before a checkpoint, and their data, what a point cannot be read without, all
    else being there."""
    found = set()
    for hole in range(10, min(seq, 13)):
        for key in {layout.commit(world.scope.group, hole), *data_of[hole]}:
            if (await read_point(await without(world, key), seq))[1]:
                found.add(key)
    return found


data_of: dict[int, set[str]] = {}
tails_of: dict[int, set[str]] = {}


async def test_the_newest_complete_consistent_commit() -> None:
    with ExitStack() as stack:
        world, young = await last_minute(stack)
        group, gid = await world.open(), world.scope.group
        for seq in range(10, 16):
            header = (await group.log.signed(seq)).header
            data_of[seq] = {layout.data(gid, header.epoch, ref.number) for ref in header.objects}
        kinds = {key.split("/")[2] for key in young if key.startswith("groups/")}
        assert {"log", "data", "packs", "floors", "checkpoints"} <= kinds
        for seq in (12, 13, 15):
            tails_of[seq] = await needed(world, seq)
        assert any(tails_of.values())
        found, spared, lacking = set(), 0, 0
        late = [{layout.commit(gid, seq)} for seq in range(10, 13)]  # each alone, and random ones
        late += [{layout.commit(gid, seq)} | data_of[seq] for seq in range(10, 13)]
        for missing in [*late, *(random_part(young, seed) for seed in range(SEEDS))]:
            copy = await without(world, *missing)
            choice = await choose(copy, "web1", None)
            there = set(world.store._keys) - missing
            assert choice.point.seq == complete(world, there, young), missing
            for seq in (choice.point.seq, 5):
                disks, damage = await read_point(copy, seq)
                assert not damage, (missing, seq, damage)
                assert disks == world.points[seq], missing
            found.add(choice.point.seq)
            lost = {each for each in range(10, 13) if layout.commit(gid, each) in missing}
            spared += any(each < choice.point.seq for each in lost)
            lacking += any(
                f"#{seq} passed over: {key} " in note
                for note in choice.notes
                for seq, tails in tails_of.items()
                for key in tails & missing
                if "/log/" in key
            )
        assert len(found) > 3
        assert lacking
        assert spared


SMALL, LARGE = 1, 12  # blocks of noise: inline, an object of its own


@pytest.mark.parametrize(
    ("size", "since", "chosen"),
    [
        (LARGE, "nothing", 4),  # no frames are in the commit
        (LARGE, "data late", 1),
        (LARGE, "data late, written", 4),
        (SMALL, "nothing", 1),
        (SMALL, "written", 4),
        (SMALL, "zeroed", 4),
        (SMALL, "cut", 4),
        (SMALL, "copied", 1),  # overwritten, but what it held is at another place
        (SMALL, "checkpoint", 1),  # of the point itself: no commits to follow
    ],
)
async def test_a_missing_commit_before_a_checkpoint(size: int, since: str, chosen: int) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        author = world.author

        def put(block: int, count: int = 1) -> tuple[Batch, ...]:
            content = {block + at: noise_block(f"{block} {at} {since}") for at in range(count)}
            return (batch_of(0, content),)

        await author.commit(put(3))
        header = await author.commit(put(60, size))
        data = [
            layout.data(author.scope.group, header.epoch, each.number) for each in header.objects
        ]
        await author.commit(put(5))
        await author.checkpoint()
        match since:
            case "data late, written":
                await author.commit(put(60, LARGE))
            case "written":
                await author.commit(put(58, 5))
            case "zeroed":
                await author.commit((batch_of(0, {}, zero=((60, 1),)),))
            case "cut":
                await author.describe(2, replace(DISKS[0], size=40 * BLOCK), DISKS[1])
                await author.commit(put(7))
            case "copied":
                copied = batch_of(1, {}, refs=((8, 0, 60),))
                await author.commit((copied,), put(60))
            case _:
                await author.commit(put(7))
        if since == "checkpoint":
            await author.checkpoint()
        hole = layout.commit(world.scope.group, 2)
        copy = await without(world, hole, *(data if "data late" in since else ()))
        lacks = data[0] if "data late" in since else hole
        choice = await choose(copy, "web1", None)
        assert choice.point.seq == chosen, choice.notes
        graded = await newest_graded(copy, "web1", frozenset({"quiet"}))
        assert (graded.point, graded.notes) == (choice.point, choice.notes)
        passed = [f"point #{seq} passed over: {lacks} has not all arrived" for seq in (4, 3)]
        assert list(choice.notes) == (passed if chosen == 1 else [])
        disks, damage = await read_point(copy, chosen)
        assert not damage
        assert disks == (await read_point(await world.open(), chosen))[0]
        late = (await read_point(copy, 4))[1]
        assert {each.key for each in late} == ({lacks} if chosen == 1 else set())


@pytest.mark.parametrize(("written", "chosen"), [("all", 4), ("its first blocks", 1)])
async def test_an_object_of_a_missing_commit_has_to_be_whole(written: str, chosen: int) -> None:
    """One byte of its last frame has not arrived: whatever still has that frame is passed over."""
    with ExitStack() as stack:
        world = await make_world(stack)
        author = world.author
        noise = {60 + at: noise_block(f"{at}") for at in range(LARGE)}
        await author.commit((batch_of(0, {3: noise_block("3")}),))
        header = await author.commit((batch_of(0, noise),))
        (data,) = [
            layout.data(author.scope.group, header.epoch, each.number) for each in header.objects
        ]
        await author.commit((batch_of(0, {5: noise_block("5")}),))
        await author.checkpoint()
        count = LARGE if written == "all" else 3
        over = {60 + at: noise_block(f"{at} again") for at in range(count)}
        await author.commit((batch_of(0, over),))
        hole = layout.commit(world.scope.group, 2)
        whole = await choose(await without(world, hole), "web1", None)
        assert (whole.point.seq, whole.notes) == (4, ())
        copy = await without(world, hole, short={data: 1})
        choice = await choose(copy, "web1", None)
        assert choice.point.seq == chosen, choice.notes
        passed = [f"point #{seq} passed over: {data} has not all arrived" for seq in (4, 3)]
        assert list(choice.notes) == (passed if chosen == 1 else passed[:0])
        disks, damage = await read_point(copy, chosen)
        assert not damage
        assert disks == (await read_point(await world.open(), chosen))[0]


async def test_pages_that_spare_a_missing_commit_have_to_be_whole() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        author = world.author
        for at in range(3):
            await author.commit((batch_of(0, {at: noise_block(f"{at}")}),))
        await author.checkpoint()
        await author.commit((batch_of(0, {1: noise_block("again")}),))
        folder = f"/checkpoints/{3:015d}/"
        parts = [key for key in world.store._keys if folder in key and "manifest" not in key]
        assert parts
        hole = layout.commit(world.scope.group, 2)
        assert (await choose(await without(world, hole), "web1", None)).point.seq == 4
        for part in parts:
            choice = await choose(await without(world, hole, short={part: 1}), "web1", None)
            assert choice.point.seq == 1
            passed = [f"point #{seq} passed over: {part} has not all arrived" for seq in (4, 3)]
            assert list(choice.notes) == passed


async def test_a_rollup_does_not_stand_in_for_the_content_of_its_commits() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        for at in range(SPAN + 4):
            await world.author.commit((batch_of(0, {at % 80: noise_block(str(at))}),), grade="app")
        assert layout.rollup(world.scope.group, SPAN) in world.store._keys
        hole = layout.commit(world.scope.group, SPAN - 6)
        for copy in (await without(world, hole), await without(world, short={hole: 1})):
            for choice in (
                await choose(copy, "web1", None),
                await newest_graded(copy, "web1", frozenset({"app"})),
            ):
                assert choice.point.seq == SPAN - 7
                assert len(choice.notes) == 10
                assert all(hole in note for note in choice.notes)
            assert not (await read_point(copy, SPAN - 7))[1]


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
