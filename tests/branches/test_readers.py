"""Every point of a branch restores to the model, whatever was written before and after."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import BrokenChain, DamagedObject, MissingData, NotFound
from stages.model import BLOCK, Disk
from stages.nbd.device import FileRange
from stages.recover.device import PointDevice
from stages.recover.extract import DamagedExtent
from stages.recover.known import KnownDigests
from stages.recover.lineage import MAX_DEPTH, parent_of
from stages.recover.opened import Group, open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import choose, newest
from stages.recover.restore import Restore
from stages.recover.sweep import Window
from stages.recover.target import Target
from stages.recover.verify import Verify
from stages.system import SystemFiles
from stages.vault import layout
from stages.vault.records import GroupRecord, Parent, group_object
from tests.branches.support import KEY, Branch, Forest, digests_of, forest
from tests.recover.past import PEOPLE, CountingStore, machine, noise
from tests.vault.support import noise_block

ROOT, DATA = 1, 2
DISK = Disk(ROOT, "root", 60 * BLOCK + 512)


async def image(
    branch: Branch, seq: int, folder: Path, *, checkpoints: bool = True, salvage: bool = False
) -> tuple[dict[int, bytes], list[DamagedExtent]]:
    """All disks of a point, restored."""
    group = await branch.opened()
    point = await PointMap.build(
        group, SystemFiles(), seq, checkpoints=checkpoints, salvage=salvage
    )
    to = [Target(disk, f"{folder}/{disk.name}", device=False) for disk in point.machine.disks]
    work = Restore(point, machine(), salvage=salvage, window_blocks=37)
    try:
        report = await work.run(to)
    finally:
        work.close()
    files = SystemFiles()
    found = {target.disk.number: files.read(target.path, 1 << 30) for target in to}
    for target in to:
        files.unlink(target.path)
    return found, list(report.damage)


async def is_right(branch: Branch, folder: Path, *, checkpoints: bool = True) -> None:
    for seq, moment in branch.moments.items():
        found, _ = await image(branch, seq, folder, checkpoints=checkpoints)
        assert found == {disk.number: moment.image(disk.number) for disk in moment.disks}, seq


async def change(dice: random.Random, branch: Branch) -> None:
    """Anything that a writer may do next."""
    kind = dice.randrange(8)
    disk = dice.choice(branch.disks)
    blocks = disk.blocks
    if kind < 3:
        at = dice.randrange(blocks)
        most = min(blocks - at, dice.choice((1, 5, 40)))
        held = {at + n: noise_block(f"{dice.random()}") for n in range(most)}
        if blocks - 1 in held and disk.size % BLOCK:
            rest = disk.size % BLOCK
            held[blocks - 1] = held[blocks - 1][:rest].ljust(BLOCK, b"\0")
        await branch.write((disk.number, held), grade=dice.choice(("quiet", "quiet", "fuzzy")))
    elif kind == 3:
        at = dice.randrange(blocks)
        await branch.write(zero={disk.number: ((at, dice.randint(1, blocks - at)),)})
    elif kind == 4:
        inside = [max(1, each.size // BLOCK) for each in branch.disks]
        rows = {}
        for each in {dice.randrange(inside[0]) for _ in range(5)}:
            which = dice.randrange(len(branch.disks))
            rows[each] = (each, branch.disks[which].number, dice.randrange(inside[which]))
        await branch.write(refs={branch.disks[0].number: tuple(rows.values())})
    elif kind == 5:
        await branch.author.checkpoint() if branch.moments else None
    elif kind == 6:
        sizes = [each.blocks + dice.choice((-9, 0, 5)) for each in branch.disks]
        disks = [
            Disk(each.number, each.name, max(8, size) * BLOCK)
            for each, size in zip(branch.disks, sizes, strict=True)
        ]
        await branch.describe(*disks)
        await branch.write(in_gap=False, zero={disks[0].number: ((0, 1),)})
    else:
        numbers = [each.number for each in branch.disks]
        if len(numbers) > 1:
            await branch.describe(branch.disks[0])
        else:
            number = branch.author.ledger.next_disk
            await branch.describe(*branch.disks, Disk(number, f"d{number}", 20 * BLOCK))
        await branch.write(zero={branch.disks[0].number: ((1, 1),)})


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), generations=st.integers(1, 4))
def test_any_history(tmp_path_factory: pytest.TempPathFactory, seed: int, generations: int) -> None:
    folder = tmp_path_factory.mktemp("images")
    dice = random.Random(seed)

    async def run() -> None:
        async with forest() as woods:
            made = [await woods.plant(DISK)]
            await made[0].write((ROOT, noise(0, 30)))
            for _ in range(dice.randrange(8)):
                await change(dice, made[0])
            for _ in range(generations):
                of = dice.choice(made)
                fit = [seq for seq, moment in of.moments.items() if moment.header.consistent]
                if not fit:
                    continue
                seq = dice.choice(fit)
                branch = await woods.branch(of, seq)
                for disk in of.moments[seq].disks:
                    found = branch.author.ledger.blocks(disk.number, 0, disk.blocks)
                    want = digests_of(of.moments[seq], disk)
                    for one, other in zip(map(tuple, found.tolist()), want, strict=True):
                        assert one in {other, (1, 1)}  # the builder's digest of any reference
                made.append(branch)
                for _ in range(dice.randrange(6)):
                    await change(dice, dice.choice(made))  # the parent may go on, too
            for each in made:
                await is_right(each, folder, checkpoints=dice.random() < 0.6)
                if not each.tail:
                    continue
                verified = await Verify(await each.opened(), machine(), each.tail).run()
                assert verified.whole, verified
                assert not verified.problems, verified.problems

    trio.run(run)


async def two(woods: Forest) -> tuple[Branch, Branch]:
    """A parent that went on after its branch began, and the branch."""
    parent = await woods.plant(DISK)
    await parent.write((ROOT, noise(0, 20)))
    await parent.write((ROOT, noise(30, 10)))
    branch = await woods.branch(parent, 2)
    await parent.write((ROOT, noise(0, 60, word="later")))
    await branch.write((ROOT, noise(10, 5, word="branch")))
    await branch.write(refs={ROOT: ((50, ROOT, 0), (51, ROOT, 12))})
    return parent, branch


async def test_points_of_a_branch_are_its_own(tmp_path: Path) -> None:
    async with forest() as woods:
        parent, branch = await two(woods)
        group = await branch.opened()
        assert [point.seq for point in await newest(group, 10, all_points=True)] == [2, 1]
        assert (await choose(group, "web1", None)).point.seq == 2
        first = (await group.log.signed(1)).header
        assert first.previous == parent.links[2]
        assert first.stamp > parent.moments[2].header.stamp
        assert first.epoch > parent.moments[2].header.epoch
        await is_right(branch, tmp_path)


async def test_a_time_before_the_branch_is_its_parent_s() -> None:
    async with forest() as woods:
        parent, branch = await two(woods)
        with pytest.raises(NotFound) as told:
            await choose(await branch.opened(), "web1", f"@{parent.moments[1].header.stamp}")
        assert parent.gid.hex() in (told.value.hint or "")


async def test_digests_come_from_the_checkpoint_where_there_is_one() -> None:
    store = CountingStore()
    async with forest(store) as woods:
        parent = await woods.plant(DISK)
        await parent.write((ROOT, noise(0, 30)))
        await parent.author.checkpoint()
        await parent.write((ROOT, noise(30, 2)))
        point = await PointMap.build(await parent.opened(), SystemFiles(), 2)
        known = KnownDigests(point, machine(), KEY)
        await known.begin()
        store.gets.clear()
        window = Window(DISK, 0, await point.locations(ROOT, 0, DISK.blocks))
        digests = await known.of(window)
        assert [*map(tuple, digests.tolist())] == digests_of(parent.moments[2], DISK)
        assert known.opened == 2
        assert not [key for key, _, _ in store.gets if key.endswith("data/000000000000")]
        point.close()


async def test_the_branch_is_what_the_machine_s_name_means() -> None:
    async with forest() as woods:
        parent, branch = await two(woods)
        vault = await open_vault(woods.store, PEOPLE.operator)
        assert (await vault.find("web1")).scope.group == branch.gid
        assert any(parent.gid.hex() in problem for problem in vault.problems)
        assert (await vault.find(parent.gid.hex())).scope.group == parent.gid


async def test_a_branch_is_newer_than_its_parent_whatever_the_clocks_say() -> None:
    store = CountingStore()
    async with forest(store) as woods:
        first = await woods.plant(DISK)
        await first.write((ROOT, noise(0, 3)))
        last = first
        made = [first]
        for _ in range(3):
            last = await woods.branch(last, 1)
            await last.write((ROOT, noise(3, 1)))
            made.append(last)
        for at, each in enumerate(made):
            parent = made[at - 1].parent(1) if at else None
            await forged(store, each.gid, parent, created=1_000_000 - at)
        groups = await (await open_vault(store, PEOPLE.operator)).groups()
        assert [group.scope.group for group in groups] == [each.gid for each in made[::-1]]
        assert (
            await (await open_vault(store, PEOPLE.operator)).find("web1")
        ).scope.group == last.gid


async def test_a_branch_is_exported_like_any_other_point() -> None:
    async with forest() as woods:
        _, branch = await two(woods)
        point = await PointMap.build(await branch.opened(), SystemFiles(), 2)
        device = PointDevice(point, point.disk("root"), machine().offload)
        want = branch.moments[2].image(ROOT)
        parts = await device.read(0, len(want))
        found = b"".join(part for part in parts if not isinstance(part, FileRange))
        assert found == want
        point.close()


async def test_damage_in_the_parent_is_named(tmp_path: Path) -> None:
    store = CountingStore()
    async with forest(store) as woods:
        parent, branch = await two(woods)
        (key, *_) = [key for key in await store.keys("/data/") if parent.gid.hex() in key]
        await store.spoil(key, 300)
        found, damage = await image(branch, 2, tmp_path, salvage=True)
        assert {extent.key for extent in damage} == {key}
        want = bytearray(branch.moments[2].image(ROOT))
        for extent in damage:
            want[extent.offset : extent.offset + extent.length] = bytes(extent.length)
        assert found[ROOT] == bytes(want)
        verified = await Verify(await branch.opened(), machine(), 2).run()
        assert not verified.whole


@pytest.mark.parametrize("what", ["record", "commit", "earlier commit", "term", "key"])
async def test_what_a_branch_needs_of_its_parent(tmp_path: Path, what: str) -> None:
    store = CountingStore()
    async with forest(store) as woods:
        parent, branch = await two(woods)
        gid = parent.gid
        (data_key,) = [
            key
            for key in await store.keys(f"/{PEOPLE.operator.box.public.hex()}")
            if gid.hex() in key and key.endswith("data")
        ] or [layout.wrapped_key(gid, 1, PEOPLE.operator.box.public, "data")]
        key = {
            "record": layout.group_record(gid),
            "commit": layout.commit(gid, 2),
            "earlier commit": layout.commit(gid, 1),
            "term": layout.term(gid, 1),
            "key": data_key,
        }[what]
        await store.delete(key)
        verified = await Verify(await branch.opened(), machine(), 2).run()
        named = [problem.key for problem in verified.problems]
        named += [extent.key + extent.reason for extent in verified.damage]
        assert any(key in each for each in named), verified
        assert verified.whole == (what == "term")


async def test_a_later_commit_of_the_parent_is_not_needed(tmp_path: Path) -> None:
    store = CountingStore()
    async with forest(store) as woods:
        parent, branch = await two(woods)
        await store.spoil(layout.commit(parent.gid, 3), 200)
        store.gets.clear()
        await is_right(branch, tmp_path)
        assert not [key for key, _, _ in store.gets if key == layout.commit(parent.gid, 3)]
        assert (await Verify(await branch.opened(), machine(), 2).run()).whole


async def test_without_its_record_a_branch_is_not_taken_for_whole() -> None:
    store = CountingStore()
    async with forest(store) as woods:
        _, branch = await two(woods)
        await store.delete(layout.group_record(branch.gid))
        vault = await open_vault(store, PEOPLE.operator)
        group = await vault.group(branch.gid)
        assert any("is a branch" in problem for problem in vault.problems)
        with pytest.raises(BrokenChain):
            await PointMap.build(group, SystemFiles(), 2)
        found = await PointMap.build(group, SystemFiles(), 2, salvage=True)
        assert found.doubt is not None
        found.close()


async def forged(
    store: CountingStore, gid: bytes, parent: Parent | None, *, created: int = 1
) -> Group:
    """A group whose record says what it likes."""
    scope = PEOPLE.scope(gid)
    key = layout.group_record(gid)
    await store.delete(key)
    await store.put(key, group_object(scope, GroupRecord(created, parent), PEOPLE.daemon))
    return await (await open_vault(store, PEOPLE.operator)).group(gid)


async def test_lying_records_are_refused() -> None:
    store = CountingStore()
    async with forest(store) as woods:
        parent, branch = await two(woods)
        right = parent.parent(2)
        other = await forged(store, branch.gid, Parent(right.group, 1, right.digest))
        with pytest.raises(BrokenChain, match="is not the commit"):
            await parent_of(other)
        itself = await forged(store, branch.gid, Parent(branch.gid, 1, branch.links[1]))
        with pytest.raises(DamagedObject, match="of itself"):
            await parent_of(itself)
        nobody = await forged(store, branch.gid, Parent(bytes(16), 1, bytes(32)))
        with pytest.raises(MissingData):
            await parent_of(nobody)
        early = await forged(store, branch.gid, parent.parent(1))
        with pytest.raises(BrokenChain):
            await PointMap.build(early, SystemFiles(), 1)
        circle = await forged(store, parent.gid, Parent(branch.gid, 1, branch.links[1]))
        await forged(store, branch.gid, parent.parent(2))
        found = await parent_of(circle)
        assert found is not None
        with pytest.raises((DamagedObject, BrokenChain)):
            await parent_of(found)


async def test_a_chain_may_be_long_and_not_too_long(tmp_path: Path) -> None:
    async with forest() as woods:
        last = await woods.plant(DISK)
        await last.write((ROOT, noise(0, 20)))
        chain = [last]
        for at in range(MAX_DEPTH + 1):
            last = await woods.branch(last, 1)
            await last.write((ROOT, noise(at % 50, 1, word=f"{at}")))
            chain.append(last)
            if at in (3, MAX_DEPTH - 1):
                found, _ = await image(last, 1, tmp_path)
                assert found[ROOT] == last.moments[1].image(ROOT)
        with pytest.raises(DamagedObject, match="follow one another"):
            await image(last, 1, tmp_path)
