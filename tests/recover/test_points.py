"""Which point is chosen, what is said about it, what is said instead."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.errors import Damage, NotFound
from stages.model import BLOCK, Disk
from stages.recover.points import COMPLETE_WINDOW, choose, newest
from stages.vault import layout
from tests.recover.past import CountingStore, Past, noise, past
from tests.vault.support import SECOND

ROOT = 1
DISK = Disk(ROOT, "root", 200 * BLOCK)


async def commits(made: Past, kinds: str) -> None:
    """One commit for each letter: consistent, gap, fuzzy; each with an object of its own."""
    for at, kind in enumerate(kinds):
        await made.write(
            (ROOT, noise(at, 3)), in_gap=kind == "g", grade="fuzzy" if kind == "f" else "quiet"
        )


def stamp(made: Past, seq: int) -> int:
    return made.moments[seq].header.stamp


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(kinds=st.text("cgf", min_size=1, max_size=12), off=st.sampled_from([-1, 0, 1, SECOND // 2]))
async def test_at_a_time_the_last_consistent_point_at_or_before(kinds: str, off: int) -> None:
    async with past(DISK) as made:
        await commits(made, kinds)
        group = await made.group()
        for seq in range(1, len(kinds) + 1):
            wanted = stamp(made, seq) + off
            good = [
                at
                for at in range(1, len(kinds) + 1)
                if kinds[at - 1] == "c" and stamp(made, at) <= wanted
            ]
            if good:
                choice = await choose(group, "web1", f"@{wanted}")
                assert choice.point.seq == good[-1]
                later = kinds.find("c", good[-1]) + 1
                (note,) = choice.notes
                assert f"#{good[-1]} of" in note
                assert (f"next consistent point is #{later} of" in note) == (later > 0)
                assert ("it is the last" in note) == (later == 0)
            else:
                with pytest.raises(NotFound) as caught:
                    await choose(group, "web1", f"@{wanted}")
                first = kinds.find("c") + 1
                assert (f"#{first} of" in caught.value.hint) == (first > 0)


async def test_long_before_and_long_after() -> None:
    async with past(DISK) as made:
        await commits(made, "cc")
        group = await made.group()
        assert (await choose(group, "web1", f"@{stamp(made, 2) * 2}")).point.seq == 2
        with pytest.raises(NotFound, match="at or before that time"):
            await choose(group, "web1", "@-5000000")


async def test_the_newest_is_the_newest_consistent_one() -> None:
    async with past(DISK) as made:
        await commits(made, "ccgfg")
        choice = await choose(await made.group(), "web1", None)
        assert (choice.point.seq, choice.notes) == (2, ())
        assert choice.point.digest == (await (await made.group()).log.signed(2)).link


@pytest.mark.parametrize(("seq", "note"), [(1, ""), (2, "inside a scan"), (3, "changed while")])
async def test_by_number_any_point_is_given(seq: int, note: str) -> None:
    async with past(DISK) as made:
        await commits(made, "cgf")
        choice = await choose(await made.group(), "web1", seq)
        assert choice.point.seq == seq
        assert note in "".join(choice.notes)
        assert bool(choice.notes) == bool(note)


@pytest.mark.parametrize("seq", [0, 4, 10**14])
async def test_a_number_that_is_none(seq: int) -> None:
    async with past(DISK) as made:
        await commits(made, "ccc")
        with pytest.raises(NotFound, match=f"no point #{seq}") as caught:
            await choose(await made.group(), "web1", seq)
        assert "#1 to #3" in caught.value.hint


async def test_nothing_consistent_yet() -> None:
    async with past(DISK) as made:
        await commits(made, "gg")
        with pytest.raises(NotFound, match="no consistent point") as caught:
            await choose(await made.group(), "web1", None)
        assert "--all" in caught.value.hint


async def data_of(store: CountingStore, made: Past, seq: int) -> str:
    (ref,) = made.moments[seq].header.objects
    return layout.data(made.author.scope.group, made.moments[seq].header.epoch, ref.number)


@pytest.mark.parametrize("how", ["missing", "short"])
async def test_points_whose_data_has_not_arrived_are_passed_over(how: str) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, "cccgc")
        late = await data_of(store, made, 4)
        if how == "missing":
            await store.delete(late)
        else:
            await store.spoil(late, 1000, cut=True)
        choice = await choose(await made.group(), "web1", None)
        assert choice.point.seq == 3
        (note,) = choice.notes
        assert "#5 passed over" in note
        assert (await choose(await made.group(), "web1", 5)).point.seq == 5  # by its number
        at = f"@{stamp(made, 5)}"
        assert (await choose(await made.group(), "web1", at)).point.seq == 3


async def test_a_hole_in_every_point_is_damage_not_delay() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, "ccc")
        await store.delete(await data_of(store, made, 1))
        choice = await choose(await made.group(), "web1", None)
        assert (choice.point.seq, choice.notes) == (3, ())


async def test_old_points_are_not_asked_for_their_data() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, "c" * (COMPLETE_WINDOW + 5))
        group = await made.group()
        await store.delete(await data_of(store, made, 2))
        assert (await choose(group, "web1", f"@{stamp(made, 4)}")).point.seq == 4
        assert (await choose(group, "web1", None)).point.seq == made.tail


async def test_a_damaged_commit_beside_the_point_does_not_matter() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, "ccc")
        await made.author.checkpoint()
        await commits(made, "cc")
        await store.spoil(layout.commit(made.author.scope.group, 2), 300)
        group = await made.group()
        assert (await choose(group, "web1", None)).point.seq == 5
        assert any("000000000000002" in note for note in group.log.ignored)


async def test_the_newest_commit_damaged_says_what_to_try() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await commits(made, "ccc")
        await store.spoil(layout.commit(made.author.scope.group, 3), 120)
        group = await made.group()
        with pytest.raises(Damage) as caught:
            await choose(group, "web1", None)
        assert re.search(r"points --all.*--at", caught.value.hint)
        assert [point.seq for point in await newest(group, 10)] == [2, 1]
        assert (await choose(group, "web1", 2)).point.seq == 2


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.text("cgf", min_size=1, max_size=10),
    count=st.integers(1, 12),
    all_points=st.booleans(),
)
async def test_the_listing(kinds: str, count: int, all_points: bool) -> None:
    async with past(DISK) as made:
        await commits(made, kinds)
        found = await newest(await made.group(), count, all_points=all_points)
        fit = [at for at in range(len(kinds), 0, -1) if all_points or kinds[at - 1] == "c"]
        assert [point.seq for point in found] == fit[:count]
        assert [point.consistent for point in found] == [
            kinds[point.seq - 1] == "c" for point in found
        ]


async def test_a_listing_across_rollups() -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        for at in range(530):
            await made.write((ROOT, noise(at % 200, 1)), in_gap=at % 3 == 0)
        group = await made.group()
        store.gets.clear()
        found = await newest(group, 300)
        assert [point.seq for point in found] == [at for at in range(530, 0, -1) if (at - 1) % 3][
            :300
        ]
        assert len(store.gets) < 60  # rollups, not commits
        await store.spoil(layout.rollup(group.scope.group, 512), 5000)
        await store.spoil(layout.commit(group.scope.group, 400), 120)
        left = [point.seq for point in await newest(group, 300)]
        assert left == [at for at in range(530, 0, -1) if (at - 1) % 3 and at != 400][:300]
