"""All of a machine goes: what stands in the way, what kills it, who reads or writes meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.servers.cloud import Cloud
from pipeline.deleting import QUIET, Deleting, Done, Plan
from pipeline.recovery import Access
from stages.errors import (
    DamagedObject,
    Deleted,
    Fenced,
    IllegalOperation,
    NotAdmitted,
    NotFound,
    StoreUnreachable,
)
from stages.recover.opened import open_vault
from stages.store.faults import Fault, FaultPlan, FaultStore, nth
from stages.store.open import open_store
from stages.store.port import ObjectStore, Put
from stages.vault import layout
from stages.vault.branches import fence, is_fenced
from stages.vault.deletion import Deletion, deletion_object, load_deletion, read_deletion
from stages.vault.failover_log import append_failover, load_failovers
from stages.vault.failovers import Event, FailoverPoint, FailoverRecord
from stages.vault.leases import Lease, lease_object
from stages.vault.terms import INDEX
from tests.keeper.stores import Changing, Recording, in_store
from tests.keeper.test_beside import READERS, Disks
from tests.keeper.test_keeper import month
from tests.keeper.test_leases import lease
from tests.keeper.world import World, make_world
from tests.vault.reading import MACHINE

STEP = 7


async def old_world(stack: ExitStack, seed: str = "deletion") -> World:
    """Points, a checkpoint, a floor, packs; nobody has written for an hour."""
    world = await make_world(stack, seed)
    await month(world, random.Random(40), 9, 8)
    for _ in range(3):
        await world.keep()
        world.wait(12)
    return world


async def delete(
    world: World,
    store: ObjectStore | None = None,
    *,
    confirm: Callable[[Plan], None] = lambda _: None,
    dry_run: bool = False,
    machine: str = "web1",
) -> Done:
    """As the operator does."""
    vault = await open_vault(store or world.store, world.people.operator, uses=(INDEX,))
    access = Access(world.machine, vault.store.url, world.people.operator, ())
    work = Deleting(access, vault, machine, "host", "me")
    return await work.run(confirm, dry_run=dry_run)


def left(world: World) -> set[str]:
    """The objects of the group."""
    folder = layout.group(world.scope.group)
    return {key for key in world.store._keys if key.startswith(folder)}


def is_rest(world: World, keys: set[str]) -> bool:
    """Only what stays for ever: the record, and the terms, without a hole."""
    gid = world.scope.group
    terms = sorted(key for key in keys if key.endswith("/term"))
    wanted = [layout.term(gid, epoch) for epoch in range(1, len(terms) + 1)]
    return keys == {layout.deleted(gid), *terms} and terms == wanted


def forked(world: World) -> World:
    """The same vault, to be changed."""
    store = Recording(world.store, world.clock)
    return replace(world, store=store, _looked_at=frozenset())


async def test_it_goes_and_nothing_else_does() -> None:
    with ExitStack() as stack:
        world = await old_world(stack)
        folder = layout.group(world.scope.group)
        others = {k: o.data for k, o in world.store._objects.items() if not k.startswith(folder)}
        before = left(world)
        planned = (await delete(world, dry_run=True)).plan
        assert left(world) == before
        (going,) = planned.groups
        assert (going.group, going.last, planned.obstacles) == (world.scope.group, 9, ())
        assert going.points == len(await world.offered())
        heard: list[Plan] = []
        done = await delete(world, confirm=heard.append)
        assert heard == [replace(planned)]
        assert (done.gone.objects, done.gone.bytes) == (going.size.objects, going.size.bytes)
        assert is_rest(world, left(world))
        now = {k: o.data for k, o in world.store._objects.items() if not k.startswith(folder)}
        assert now == others
        vault = await open_vault(world.store, world.people.operator)
        assert await vault.groups() == []
        assert vault.problems == []
        with pytest.raises(NotFound, match="no machine of this name") as caught:
            await vault.find("web1")
        assert "was deleted from the vault on purpose" in caught.value.hint
        assert "by me on host" in caught.value.hint
        for ask in (vault.find(world.scope.group.hex()), vault.group(world.scope.group)):
            with pytest.raises(Deleted, match="by me on host"):
                await ask
        report = await world.keep()
        assert (report.clean, report.groups) == (True, [])
        with pytest.raises(NotFound):
            await delete(world)


async def test_killed_at_every_step_and_finished_by_whoever_comes_next() -> None:
    with ExitStack() as stack:
        world = await old_world(stack)
        offered = await world.offered()
        at, killed, ends = 0, True, set()
        while killed:
            fork = forked(world)
            rule = nth(at, Fault(before=StoreUnreachable))
            killed = False
            try:
                await delete(fork, FaultStore(fork.store, FaultPlan(rule), fork.clock))
            except StoreUnreachable:
                killed = True
            ends.add(await finished(fork, offered, by_keeper=at % 2 == 0))
            at += 1
        assert at > 60
        assert ends == {"nothing had begun", "the keeper", "the same command"}


async def finished(world: World, offered: list[int], *, by_keeper: bool) -> str:
    """It is all there and reads, or it is said to have been deleted, and goes."""
    if layout.deleted(world.scope.group) not in world.store._keys:
        assert await world.check() == offered
        return "nothing had begun"
    vault = await open_vault(world.store, world.people.operator)
    assert (await vault.groups(), vault.problems) == ([], [])
    if by_keeper:
        report = await world.keep()
        fenced = await is_fenced(world.store, world.scope, world.people.charter.operator)
        assert report.clean == (fenced or is_rest(world, left(world)))
        if fenced:
            assert is_rest(world, left(world))
            return "the keeper"
        assert "give 'backstay unprotect --delete-data' again" in report.groups[0].problems[0]
    if not is_rest(world, left(world)):
        await delete(world)
    assert is_rest(world, left(world))
    return "the same command"


async def _held(world: World) -> None:
    await world.hold(5)


async def _leased(world: World) -> None:
    await lease(world, 9, 1)


async def _branched(world: World) -> None:
    await world.branch(9)


async def _failed_over(world: World) -> None:
    point = FailoverPoint(9, (await (await world.open()).log.signed(9)).link, world.clock.wall)
    await _recorded(world, Event.OPENED, point, bytes(16))


async def _tested(world: World) -> None:
    point = FailoverPoint(9, (await (await world.open()).log.signed(9)).link, world.clock.wall)
    await _recorded(world, Event.TEST_OPENED, point, None)


async def _recorded(world: World, event: Event, point: FailoverPoint, branch: bytes | None) -> None:
    log = await load_failovers(world.store, world.scope, world.people.charter)
    record = FailoverRecord(1, log.link, event, world.clock.wall, "host", "me", point, branch)
    given = (world.store, world.scope, world.people.operator.signer, log, record)
    assert await append_failover(*given) is not None


async def _written(world: World) -> None:
    await world.restart()
    await world.write(random.Random(1))
    world.wait(QUIET / 3600 - 0.01)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (_held, "point #5 is held by a test"),
        (_leased, "point #9 is being read: a test"),
        (_branched, "branches off it at #9"),
        (_written, "a daemon still replicates it"),
        (_failed_over, "commit pending: commit or cancel it first"),
        (_tested, "a failover test is open"),
    ],
)
async def test_what_stands_in_the_way(act: Any, says: str) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(40), 9, 8)
        await act(world)
        before = left(world)
        assert any(says in each for each in (await delete(world, dry_run=True)).plan.obstacles)
        with pytest.raises(IllegalOperation, match=says):
            await delete(world, confirm=lambda _: pytest.fail("nobody is to be asked"))
        assert left(world) == before


async def test_what_comes_the_moment_before_the_record() -> None:
    """Whoever holds or reads a point looks at the record after it: one sees the other."""

    class Late(FaultStore):
        async def put(self, key: str, parts: Any) -> Put:
            if key == layout.deleted(world.scope.group):
                await act(world)
            return await super().put(key, parts)

    for act in (_held, _leased, _branched):
        with ExitStack() as stack:
            world = await old_world(stack)
            offered = await world.offered()
            if act is _held and 5 not in offered:
                continue
            with pytest.raises(IllegalOperation):
                await delete(world, Late(world.store, FaultPlan(), world.clock))
            assert layout.deleted(world.scope.group) not in world.store._keys
            assert await world.check() == offered


@pytest.mark.parametrize("failed_over", [False, True])
@pytest.mark.parametrize("act", [_leased, _branched])
async def test_killed_before_it_has_looked_again(act: Any, failed_over: bool) -> None:
    """Who came the moment before the record did not see it, and nobody has looked: the next run
    does, and gives the machine back. The fence of a failover in the past is not the deletion's."""

    class Killed(FaultStore):
        async def put(self, key: str, parts: Any) -> Put:
            if key != layout.deleted(world.scope.group):
                return await super().put(key, parts)
            await act(world)
            await super().put(key, parts)
            raise StoreUnreachable("killed")

    with ExitStack() as stack:
        world = await old_world(stack)
        offered = await world.offered()
        if failed_over:
            await fence(world.store, world.scope, world.people.operator.signer, world.clock.wall)
        with pytest.raises(StoreUnreachable):
            await delete(world, Killed(world.store, FaultPlan(), world.clock))
        assert layout.deleted(world.scope.group) in world.store._keys
        (told,) = (await world.keep()).groups
        assert "give 'backstay unprotect --delete-data' again" in told.problems[0]
        with pytest.raises(IllegalOperation):
            await delete(world)
        assert layout.deleted(world.scope.group) not in world.store._keys
        assert await world.check() == offered


async def test_not_confirmed_or_another_name() -> None:
    def no(_: Plan) -> None:
        raise ValueError("no")

    with ExitStack() as stack:
        world = await old_world(stack)
        before = left(world)
        with pytest.raises(ValueError, match="no"):
            await delete(world, confirm=no)
        with pytest.raises(NotFound):
            await delete(world, machine="web2")
        key = next(key for key in before if key.endswith("/group"))
        await world.store.delete(key)
        with pytest.raises(DamagedObject, match="may depend on it"):
            await delete(world)
        assert left(world) == before - {key}


async def test_whose_record_counts() -> None:
    """Only the operator's; a damaged one is told, and keeps writers and keepers from their work."""
    with ExitStack() as stack:
        world = await old_world(stack)
        scope, charter = world.scope, world.people.charter
        made = Deletion(9, bytes(32), 1, 5, "host", "me")
        right = b"".join(deletion_object(scope, made, world.people.operator.signer))
        assert read_deletion(right, scope, charter) == made
        for at in range(0, len(right), 5):
            spoilt = bytearray(right)
            spoilt[at] ^= 4
            with pytest.raises((DamagedObject, NotAdmitted)):
                read_deletion(bytes(spoilt), scope, charter)
        with pytest.raises(ValueError, match="a name of more"):
            deletion_object(scope, replace(made, by="x" * 256), world.people.operator.signer)
        for signer in (world.keeper.signer, world.people.daemon):
            fork = forked(world)
            key = layout.deleted(scope.group)
            await fork.store.put(key, deletion_object(scope, made, signer))
            assert await load_deletion(fork.store, scope, charter) is None
            assert await fork.check()
        await world.store.put(key, [right[:-9]])
        report = await world.keep()
        assert "nothing is let go in this vault" in report.problems[0]


async def test_its_writer_is_fenced(tmp_path: Path) -> None:
    """One that runs, and one that begins again; what it put meanwhile goes with the next run."""
    with ExitStack() as stack:
        world = await old_world(stack)
        await delete(world)
        with pytest.raises(Fenced, match="deleted from the vault on purpose"):
            await world.write(random.Random(2))
        world.author.end()
        with pytest.raises(Fenced, match="by me on host") as caught:
            await world.restart()
        assert "a new history begins" in caught.value.hint
        stray = layout.data(world.scope.group, 1, 77)
        await world.store.put(stray, [b"late"])
        assert not is_rest(world, left(world))
        report = await world.keep()
        assert report.clean
        assert report.groups[0].deleted == {"deleted groups": report.groups[0].deleted_bytes}
        assert is_rest(world, left(world))


@pytest.mark.parametrize("read", READERS)
async def test_who_reads_meanwhile_is_told(read: Any, tmp_path: Path) -> None:
    """All of it between two operations of a reader: right, or deleted; never damage."""
    with ExitStack() as stack:
        world = await old_world(stack)
        fork = forked(world)
        assert isinstance(fork.store, Recording)
        await delete(fork)
        ends = set()
        at, done = 0, False
        while not done:
            steps = lambda number, at=at: 9999 * (number == at)  # noqa: E731
            store = Changing(fork.store.states, steps)
            folder = tmp_path / str(at)
            folder.mkdir()
            try:
                found: Disks | None = await read(world, store, 9, folder)
            except Deleted as error:
                assert error.exit_code == 13
                ends.add("deleted")
            except NotFound as error:
                assert "deleted" in error.hint
                ends.add("deleted")
            else:
                assert found in (None, world.points[9])
                ends.add("read")
            done = store.count <= at
            at += STEP
        assert ends == {"deleted", "read"}


async def test_on_a_server(s3: Cloud) -> None:
    with ExitStack() as stack:
        world = await old_world(stack)
        far = open_store(s3.url(), MACHINE)
        there = await in_store(world, far)
        done = await delete(there)
        assert done.gone.objects > 0
        keys = {info.key for info in await far.page(layout.group(world.scope.group))}
        assert is_rest(world, keys)
        await far.aclose()


@pytest.mark.parametrize("when", ["before its fence", "after its fence", "within"])
async def test_two_delete_at_once_and_one_of_them_sees_a_lease(when: str) -> None:
    """Whatever is erased has its record, and nobody erases on a record that was withdrawn."""
    term = "/term"

    class First(FaultStore):
        """Where the other one comes in."""

        async def put(self, key: str, parts: Any) -> Put:
            if when == "before its fence" and key.endswith(term):
                await other()
            return await super().put(key, parts)

        async def delete(self, key: str) -> bool:
            if when == "after its fence" and "/for/" in key and not others:
                await other()
            return await super().delete(key)

    class Other(FaultStore):
        async def delete(self, key: str) -> bool:
            if when == "within" and key == layout.deleted(gid):
                signer = world.people.operator.signer
                await fence(world.store, world.scope, signer, world.clock.wall)
            return await super().delete(key)

    others: list[str] = []

    async def other() -> None:
        """It has planned before there was a record, and looks again now."""
        others.append("looks")
        made = lease_object(world.scope, reader, world.people.operator.signer)
        await world.store.put(layout.lease(gid, 9, bytes(16)), made)
        second = await _deleting(world, Other(world.store, FaultPlan(), world.clock))
        with pytest.raises(IllegalOperation) as caught:
            await second._look_again([gid])
        assert "point #9 is being read: a test" in str(caught.value)
        goes_on = when != "before its fence"
        assert ("another run saw nothing" in str(caught.value)) == goes_on
        assert (layout.deleted(gid) in world.store._keys) == goes_on

    with ExitStack() as stack:
        world = await old_world(stack)
        gid, offered = world.scope.group, await world.offered()
        link = (await (await world.open()).log.signed(9)).link
        reader = Lease(9, link, world.clock.wall, 1800, "a test")
        if when == "within":
            first = await _deleting(world, world.store)
            await first._record((await first._groups())[0])
            await other()
            await delete(world)
        elif when == "after its fence":
            await delete(world, First(world.store, FaultPlan(), world.clock))
        else:
            with pytest.raises(IllegalOperation, match="withdrawn"):
                await delete(world, First(world.store, FaultPlan(), world.clock))
            assert await world.check() == offered
            return
        assert is_rest(world, left(world))


async def _deleting(world: World, store: ObjectStore) -> Deleting:
    vault = await open_vault(store, world.people.operator, uses=(INDEX,))
    access = Access(world.machine, vault.store.url, world.people.operator, ())
    return Deleting(access, vault, "web1", "another host", "another")
