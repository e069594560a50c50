"""Verify says what is wrong, whether it matters, and lists all of it."""

from __future__ import annotations

import pytest

from stages.model import BLOCK, Disk
from stages.recover import verify
from stages.recover.verify import Verified, Verify
from stages.vault import layout, log
from tests.recover.past import CountingStore, Past, machine, noise, past

ROOT = 1
DISK = Disk(ROOT, "root", 20000 * BLOCK)


async def a_vault(made: Past) -> None:
    for at in range(4):
        await made.write((ROOT, noise(at * 100, 70)))
    await made.author.checkpoint()
    await made.write((ROOT, noise(50, 1)))


async def verified(made: Past, seq: int | None = None) -> Verified:
    return await Verify(await made.group_by_id(), machine(), seq or made.tail).run()


async def test_a_whole_vault() -> None:
    async with past(DISK) as made:
        await a_vault(made)
        told: list[int] = []
        group = await made.group()
        found = await Verify(group, machine(), 5).run(told.append)
        assert (found.whole, found.problems, found.damage) == (True, (), ())
        assert (found.seq, found.commits) == (5, 5)
        assert sum(told) == DISK.size


async def test_every_damaged_commit_is_named() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_vault(made)
        gid = made.author.scope.group
        await store.spoil(layout.commit(gid, 2), 300)
        await store.delete(layout.commit(gid, 3))
        found = await verified(made)
        assert found.whole  # the checkpoint stands for them
        wanted = {layout.commit(gid, 2), layout.commit(gid, 3)}
        assert {problem.key for problem in found.problems} >= wanted
        assert found.commits == 3
        found = await verified(made, 4)
        assert found.whole
        await store.delete(layout.manifest(gid, 4))
        found = await verified(made)
        assert not found.whole
        assert {problem.key for problem in found.problems} >= wanted
        assert {extent.key for extent in found.damage} == {layout.commit(gid, 3)}


async def test_a_damaged_frame_is_damage_of_the_disk() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_vault(made)
        key = (await store.keys("/data/"))[3]
        await store.delete(key)
        found = await verified(made)
        assert not found.whole
        assert not found.problems
        assert [(each.offset, each.length, each.key) for each in found.damage] == [
            (300 * BLOCK, 70 * BLOCK, key)
        ]
        assert (await verified(made, 2)).whole  # an older point does not need it


async def test_a_damaged_checkpoint_is_said_and_not_fatal() -> None:
    for part in ("manifest", "/00000001-"):
        store = CountingStore()
        async with past(DISK, store=store) as made:
            await a_vault(made)
            key, *_ = [key for key in await store.keys("checkpoints/") if part in key]
            await store.spoil(key, 200)
            found = await verified(made)
            assert found.whole
            assert any(key in f"{problem.key} {problem.reason}" for problem in found.problems)


async def test_a_missing_machine_record_is_fatal() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_vault(made)
        await store.delete(layout.machine(made.author.scope.group, 1))
        found = await verified(made)
        assert not found.whole
        assert any(problem.fatal and "machine" in problem.key for problem in found.problems)


async def test_what_strangers_put_there_is_told_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much it is; what makes the point useless is told all the same."""
    monkeypatch.setattr(verify, "MAX_DAMAGE", 3)
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await a_vault(made)
        gid = made.author.scope.group
        for number in range(10):
            await store.put(layout.commit(gid, made.tail + 100 + number), [b"x"])
        found = await verified(made)
        assert found.whole
        assert len(found.problems) == 3
        await store.spoil(layout.commit(gid, made.tail), 300)
        found = await Verify(await made.group_by_id(), machine(), made.tail).run()
        assert not found.whole
        assert len(found.problems) <= 3


async def test_notes_of_what_was_passed_over_have_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "MAX_IGNORED", 3)
    async with past(DISK) as made:
        await a_vault(made)
        kept = (await made.group()).log
        for number in range(10):
            kept.note(f"{number % 5}")
        assert kept.ignored == ["0", "1", "2"]
