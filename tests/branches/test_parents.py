"""What a branch needs of its parents, and what is said where that is damaged, missing or a lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.errors import BrokenChain, DamagedObject, MissingData
from stages.recover.lineage import MAX_DEPTH, parent_of
from stages.recover.opened import open_vault
from stages.recover.pointmap import PointMap
from stages.recover.verify import Verify
from stages.system import SystemFiles
from stages.vault import layout
from stages.vault.records import Parent
from tests.branches.reading import DISK, ROOT, forged, image, is_right, two
from tests.branches.support import forest
from tests.recover.past import PEOPLE, CountingStore, machine, noise


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
