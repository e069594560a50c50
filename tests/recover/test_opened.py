"""Finding a machine in a vault that may be damaged in places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from stages.errors import BrokenChain, DamagedObject, MissingData, NotFound
from stages.model import BLOCK, Disk
from stages.recover.opened import open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.vault import layout
from stages.vault.floors import Floor
from tests.recover.past import PEOPLE, CountingStore, Past, machine, noise, open_group, past

ROOT = 1
DISK = Disk(ROOT, "root", 200 * BLOCK)


async def commits(made: Past, count: int) -> None:
    for at in range(count):
        await made.write((ROOT, noise(at, 3)))


async def test_by_name_or_by_id() -> None:
    async with past(DISK) as made:
        await commits(made, 2)
        store, gid = made.author.store, made.author.scope.group
        assert (await open_group(store)).tail == 2
        assert (await open_group(store, gid.hex())).tail == 2
        with pytest.raises(NotFound) as caught:
            await open_group(store, "web2")
        assert "machines in this vault: web1" in caught.value.hint


async def test_a_group_without_commits_is_no_machine() -> None:
    async with past(DISK) as made:
        with pytest.raises(NotFound, match="no machine"):
            await made.group()


async def test_the_name_is_known_though_the_newest_commit_is_damaged() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 3)
        await store.spoil(layout.commit(made.author.scope.group, 3), 120)
        group = await made.group()
        assert group.tail == 3
        assert (await choose(group, "web1", 2)).point.seq == 2


async def test_no_name_at_all_is_damage_not_absence() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 1)
        await store.delete(layout.machine(made.author.scope.group, 1))
        with pytest.raises(DamagedObject, match="among what can be read"):
            await made.group()
        assert (await made.group_by_id()).tail == 1


@pytest.mark.parametrize("hole", [1, 2, 5, 8])
async def test_a_hole_costs_what_needs_it(hole: int) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 9)
        await made.author.checkpoint()
        await commits(made, 1)
        await store.delete(layout.commit(made.author.scope.group, hole))
        vault = await open_vault(store, PEOPLE.operator)
        group = await vault.find("web1")
        assert group.tail == 10
        files = machine().files
        choice = await choose(group, "web1", None)
        assert choice.point.seq == 10
        (await PointMap.build(group, files, 10)).close()  # the checkpoint covers it
        for seq in range(1, 10):
            if seq < hole or seq == 9:
                (await PointMap.build(group, files, seq)).close()
            else:
                with pytest.raises(MissingData):
                    await PointMap.build(group, files, seq)


async def test_a_large_hole_is_said() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 40)
        for seq in range(4, 30):
            await store.delete(layout.commit(made.author.scope.group, seq))
        vault = await open_vault(store, PEOPLE.operator)
        group = await vault.find("web1")
        assert group.tail == 40
        (problem,) = vault.problems
        assert "commit 4 is missing" in problem


async def test_a_commit_is_fetched_once_by_all_who_ask_for_it() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 3)
        store.gets.clear()
        group = await made.group()
        await choose(group, "web1", 3)
        assert (await group.log.signed(2)).header.seq == 2
        assert (await group.log.signed(3)).header.seq == 3
        assert (await group.log.signed(2)).header.seq == 2
        for seq in (2, 3):
            key = layout.commit(made.author.scope.group, seq)
            assert [name for name, _, _ in store.gets].count(key) == 1


async def test_what_is_remembered_of_the_log_is_checked_like_what_is_read() -> None:
    """A floor that is found later may name another commit."""
    async with past(DISK) as made:
        await commits(made, 3)
        group = await made.group()
        commit = await group.log.signed(3)
        floor = Floor(1, 3, bytes(32), 0)
        group.log.floor = floor
        with pytest.raises(BrokenChain, match="not the commit that the floor names"):
            await group.log.signed(3)
        group.log.floor = replace(floor, link=commit.link)
        assert (await group.log.signed(3)) == commit


async def test_both_keys_of_an_epoch_are_fetched_side_by_side() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 1)
        group = await made.group_by_id()
        asked: list[str] = []
        both = trio.Event()

        class Meeting(CountingStore):
            async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
                asked.append(key.rpartition("/")[2])
                if len(asked) == 2:
                    both.set()
                await both.wait()
                return await store.get(key, offset, length)

        group.ring.store = Meeting()
        with trio.fail_after(10):
            keys = await group.ring.keys(1)
        assert sorted(asked) == ["data", "index"]
        assert keys.data == await group.ring.data_key(1)


@pytest.mark.parametrize("at", [None, 70])
async def test_choosing_and_opening_a_point_reads_a_commit_once(at: int | None) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, 30)
        await made.author.checkpoint()
        await commits(made, 45)
        group = await made.group()
        choice = await choose(group, "web1", at)
        (await PointMap.build(group, machine().files, choice.point.seq)).close()
        read = [key for key, _, _ in store.gets if "/log/" in key]
        wanted = {layout.commit(made.author.scope.group, seq) for seq in range(31, (at or 75) + 1)}
        assert {*read} >= wanted
        assert sorted({*read}) == sorted(read)
