"""The keeper on real vaults: what stays reads byte for byte, what went is said to have gone."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
import trio

from stages.errors import Expired, IllegalOperation, KeyFailure, StoreDenied, WrongKey
from stages.keeper import assess, reach, survey
from stages.recover.opened import open_vault
from stages.recover.points import choose
from stages.recover.verify import Verify
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.vault import layout
from stages.vault.terms import INDEX
from tests.keeper.stores import HoldingStore
from tests.keeper.world import HOUR, World, make_world
from tests.vault.author import batch_of
from tests.vault.reading import MACHINE
from tests.vault.support import START, SetClock
from tests.whole.small import SPAN, changed, small_rollups


async def month(world: World, rng: random.Random, commits: int, hours: float) -> None:
    for at in range(commits):
        await world.write(rng)
        world.wait(hours)
        if at % 3 == 0:
            await world.author.checkpoint()


async def test_two_runs_let_old_points_go_and_keep_the_rest() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        rng = random.Random(1)
        await month(world, rng, 60, 1)
        before = world.store._held_bytes
        first = await world.keep()
        assert first.clean, first
        report = first.groups[0]
        assert (report.objects, report.written) == (0, 1)
        assert report.gone > 0
        offered = await world.check()
        assert len(offered) < 60
        assert (await world.keep()).groups[0].deleted_bytes == 0  # in its grace
        world.wait(2)
        second = (await world.keep()).groups[0]
        assert second.deleted_bytes > 0, second
        assert second.deleted == report.to_go
        assert world.store._held_bytes < before
        await world.check()
        gone = next(seq for seq in range(1, 60) if seq not in offered)
        with pytest.raises(Expired, match="let go by retention"):
            await choose(await world.open(), "web1", gone)


async def test_what_it_does_again_changes_nothing() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(2), 30, 2)
        await world.keep()
        world.wait(24 * 40)
        for _ in range(4):
            await world.keep()
            world.wait(1.01)
        keys = list(world.store._keys)
        report = (await world.keep()).groups[0]
        assert (report.objects, report.written) == (0, 0), report
        assert list(world.store._keys) == keys
        await world.check()


async def test_a_run_killed_at_every_operation_loses_nothing_and_the_next_finishes() -> None:
    """Of both phases: the floor's, and that which deletes."""
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(3), 8, 8)
        await world.hold(5)
        at = 0
        while await world.keep_killed(at):
            await world.check(5)
            at += 1
        world.wait(2)
        offered = await world.offered()
        at = 0
        while await world.keep_killed(at):
            assert await world.check(5) == offered
            at += 1
        assert at > 100
        await world.check(5)
        await world.restart()
        await world.write(random.Random(4))
        await world.check(5)


async def test_nobody_but_a_keeper() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(5))
        with pytest.raises(KeyFailure, match="neither the operator's nor a keeper's"):
            await world.keep(signer=world.people.second)
        assert (await world.keep(signer=world.people.operator)).clean


async def test_a_keeper_cannot_open_content() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(5))
        pins = (world.people.charter.pin(),)
        vault = await open_vault(world.store, world.keeper, pins, uses=(INDEX,))
        group = await vault.group(world.scope.group)
        assert (await group.ring.keys(1)).data is None
        with pytest.raises(WrongKey):
            await group.ring.data_key(1)


async def test_clocks_that_disagree() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(6), 12, 6)
        wrong = SetClock(world.clock.wall + 400 * 24 * HOUR)
        world.store._clock = wrong
        with pytest.raises(IllegalOperation, match="apart"):
            await world.keep()
        wrong.wall = START - 400 * 24 * HOUR
        with pytest.raises(IllegalOperation, match="apart"):
            await world.keep()
        assert len(await world.check()) == 12


async def test_a_store_that_denies_deletes_says_so_before_anything() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(7), 12, 6)

        def rule(operation: Operation) -> Fault | None:
            return Fault(before=StoreDenied) if operation.name == "delete" else None

        store = FaultStore(world.store, FaultPlan(rule), world.clock)
        with pytest.raises(StoreDenied):
            await world.keep(store)
        assert not await world.store.page(layout.floor(world.scope.group, 1))
        assert len(await world.check()) == 12


async def test_two_keepers_at_once() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(8), 30, 3)
        await world.hold(4)
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.keep)
                nursery.start_soon(world.keep)
            await world.check(4)
            world.wait(1.1)
        assert len(await world.offered()) < 30


async def test_a_hold_and_a_branch_keep_their_points_until_they_are_released() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        rng = random.Random(9)
        await month(world, rng, 10, 1)
        await world.hold(2)
        await world.branch(3)
        world.wait(24 * 30)
        await month(world, rng, 3, 1)
        for _ in range(3):
            report = await world.keep()
            assert report.clean, report
            world.wait(2)
        assert list(report.groups[0].wanted) == [2, 3]
        offered = await world.check(2, 3)
        assert offered[:2] == [2, 3]
        await world.release(2)
        for _ in range(2):
            await world.keep()
            world.wait(2)
        assert 2 not in await world.check(3)


async def test_a_hold_that_came_while_the_floor_was_made_counts() -> None:
    """It was told that it holds: nothing has been deleted yet."""
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(10), 12, 12)
        held = HoldingStore(world.store, world, 2)
        await world.keep(held)
        assert held.done
        assert 2 in await world.check()
        world.wait(2)
        await world.keep()
        assert 2 in await world.check(2)


async def test_a_hold_that_does_not_verify_stops_everything_in_its_group() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(11), 12, 12)
        await world.hold(2)
        name = layout.hold(world.scope.group, 2)
        data = bytearray(await world.store.get(name))
        data[40] ^= 1
        await world.store.delete(name)
        await world.store.put(name, [data])
        report = await world.keep()
        assert "nothing is let go here" in report.groups[0].problems[0]
        assert len(await world.check()) == 12


async def test_damage_keeps_the_group_as_it_is() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(12), 30, 6)
        await world.keep()
        world.wait(2)
        name = (await world.store.page(layout.data_prefix(world.scope.group)))[-1].key
        count = len(world.store._keys)
        await world.store.delete(name)
        report = await world.keep()
        assert "is missing" in report.groups[0].problems[0]
        assert len(world.store._keys) == count - 1


async def test_a_machine_without_retention_is_left_alone() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(13), 12, 12)
        count = len(world.store._keys)
        report = (await world.keep(retention=None)).groups[0]
        assert "left alone" in report.notes[0]
        assert len(world.store._keys) == count


async def test_a_dry_run_writes_nothing() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(14), 30, 6)
        before = dict(world.store._objects)
        planned = (await world.keep(dry_run=True)).groups[0]
        assert world.store._objects == before
        assert planned.to_go_objects > 0
        done = (await world.keep()).groups[0]
        assert (planned.next_floor, planned.gone) == (done.next_floor, done.gone)
        assert planned.to_go == done.to_go


async def test_verify_and_rollups_know_what_went() -> None:
    """Many rollups' spans: of commits whose frames have gone the rollup is left."""
    spans = [(module, "SPAN", SPAN) for module in (assess, reach, survey)]
    with ExitStack() as stack, small_rollups(), changed(*spans):
        world = await make_world(stack)
        rng = random.Random(15)
        for at in range(36):
            if at % 5 == 0:
                await world.write(rng)
            else:
                await world.author.commit((batch_of(0, {}),), grade="crash")
                world.points[at + 1] = world.points[at]
            if at in (1, 18, 33):
                await world.author.checkpoint()
            world.wait(4)
        for _ in range(3):
            report = await world.keep()
            assert report.clean, report
            world.wait(2)
        group = await world.open()
        offered = await world.check()
        first = group.log.first
        assert min(offered) < first - 4 * SPAN
        names = [info.key for info in await world.store.page(layout.log_prefix(world.scope.group))]
        ends = [seq for seq in range(SPAN, first, SPAN) if seq >= min(offered)]
        left = [name for name in names if name < layout.commit(world.scope.group, ends[-1])]
        assert len(left) < len([seq for seq in offered if seq < ends[-1]])
        for seq in (offered[0], offered[1], offered[-1]):
            found = await Verify(await world.open(), MACHINE, seq).run()
            assert (found.whole, found.problems) == (True, ()), found
        await world.restart()
        await world.write(rng)
        await world.check()


async def test_rollups_that_are_missing_are_made_whatever_kills_it() -> None:
    """The same bytes as the writer's; of what has gone, and of the last hour, there are none."""
    spans = [(module, "SPAN", SPAN) for module in (assess, reach, survey)]
    with ExitStack() as stack, small_rollups(), changed(*spans):
        world = await make_world(stack)
        rng = random.Random(16)
        for at in range(24):
            await world.write(rng)
            if at in (5, 17):
                await world.author.checkpoint()
            world.wait(1)
        await world.keep()
        world.wait(2)
        await world.keep()
        world.wait(2)
        gid = world.scope.group
        prefix = layout.rollups_prefix(gid)
        copied = set()
        for end in range(SPAN, 25, SPAN):
            commits = [layout.commit(gid, seq) for seq in range(end - SPAN + 1, end + 1)]
            if {layout.rollup(gid, end), *commits} <= set(world.store._keys):
                copied.add(layout.rollup(gid, end))
        lost = {key: await world.store.get(key) for key in copied}
        left = [info.key for info in await world.store.page(prefix) if info.key not in lost]
        assert lost
        assert left, "of some only the rollup is left"
        for key in lost:
            await world.store.delete(key)
        for _ in range(SPAN - 24 % SPAN + 3):
            await world.write(rng)
        fresh = layout.rollup(gid, 24 // SPAN * SPAN + SPAN)
        await world.store.delete(fresh)  # its writer may be at it
        planned = (await world.keep(dry_run=True)).groups[0]
        assert planned.rolled == len(lost)
        assert [info.key for info in await world.store.page(prefix)] == left
        at = 0
        while await world.keep_killed(at, name="put"):
            await world.check()
            at += 1
        made = {key: await world.store.get(key) for key in lost}
        assert made == lost
        assert await world.store.info(fresh) is None
        assert (await world.keep()).groups[0].rolled == 0
        world.wait(2)
        assert (await world.keep()).groups[0].rolled == 1
        assert await world.store.info(fresh) is not None
        await world.check()
