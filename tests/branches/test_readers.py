"""Every point of a branch restores to the model, whatever was written before and after."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import NotFound
from stages.model import BLOCK, Disk
from stages.nbd.device import FileRange
from stages.recover.device import PointDevice
from stages.recover.known import KnownDigests
from stages.recover.opened import open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import choose, newest
from stages.recover.sweep import Window
from stages.recover.verify import Verify
from stages.system import SystemFiles
from tests.branches.reading import DISK, ROOT, forged, is_right, two
from tests.branches.support import KEY, Branch, digests_of, forest
from tests.recover.past import PEOPLE, CountingStore, machine, noise
from tests.vault.support import noise_block


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
