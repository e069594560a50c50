"""Which way a replica goes to a point, what it writes for it, and what it refuses."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import (
    BackstayError,
    DamagedObject,
    IllegalOperation,
    NoSpace,
    StateDamaged,
    StateError,
    StateLocked,
    TargetError,
)
from stages.model import BLOCK, Disk, Runs
from stages.ports import FileStat
from stages.replica.bounds import Bounds
from stages.replica.changed import Changed
from stages.replica.record import NAME, Status, path_of
from stages.replica.replica import Replica
from tests.branches.support import Branch, forest
from tests.ports.watched import Tripwire
from tests.recover.past import PEOPLE, CountingStore, machine, noise
from tests.replica.support import FOLDER, SMALL, follow, opened, point_of, promised
from tests.replica.test_crashes import DISKS, ROOT, THERE, Story, empty, story
from tests.whole.memfiles import MemFiles

__all__ = ["story"]


async def test_only_what_changed_is_looked_at(story: Story) -> None:
    files = empty()
    first = await follow(story.forest, story.main, files, seq=1)
    assert first.compared
    assert first.looked == sum(disk.size for disk in DISKS)
    then = await follow(story.forest, story.main, files, seq=2)
    assert not then.compared
    assert then.looked == then.written == 10 * BLOCK
    assert (await follow(story.forest, story.main, files, seq=2)).looked == 0
    assert (await follow(story.forest, story.main, files, seq=4)).looked == 6 * BLOCK + 512
    found = promised(files, (story.main,))
    assert found is not None
    assert found.status is Status.WHOLE


async def test_what_else_it_is_compares_everything(story: Story) -> None:
    """Another branch, an earlier point, other disks, files that someone has touched."""
    files = empty()
    for branch, seq, written in (
        (story.main, 4, None),
        (story.branch, 1, 7),  # its own three, and what the parent wrote after it was left
        (story.main, 4, 7),
        (story.main, 2, None),
        (story.main, story.resized, None),
    ):
        found = await follow(story.forest, branch, files, seq=seq)
        assert found.compared
        if written is not None:
            assert found.written == written * BLOCK
        promised(files, (story.main, story.branch))
    assert path_of(FOLDER, 2) not in files.names  # that disk is not there any more
    file = files.open_write(path_of(FOLDER, ROOT))
    file.pwrite(5, b"x")
    file.close()
    found = await follow(story.forest, story.main, files, seq=story.resized)
    assert (found.compared, found.written) == (True, BLOCK)
    files.unlink(path_of(FOLDER, 3))
    assert (await follow(story.forest, story.main, files, seq=story.resized)).compared
    promised(files, (story.main,))


async def test_a_long_comparison_goes_on_where_it_was(story: Story) -> None:
    """Not from its beginning, and to where it was going; what came meanwhile is then applied."""
    files, wire = empty(), Tripwire()
    await follow(story.forest, story.main, files, seq=1, around=wire)
    writes = [at for at, name in enumerate(wire.names) if name == "rename"]
    files = empty()
    with pytest.raises(BackstayError):
        stop = Tripwire(writes[3], 5)
        await follow(story.forest, story.main, files, seq=1, around=stop)
    files.process_died()
    group, point = await point_of(story.forest, story.main, 4)
    replica = await opened(files)
    first = await replica.bring(group, point)
    assert (first.at.seq, first.compared) == (1, True)
    assert 0 < first.looked < sum(disk.size for disk in DISKS)
    then = await replica.bring(group, point)
    assert (then.at.seq, then.compared) == (4, False)
    replica.close()
    promised(files, (story.main,))


async def test_damage_leaves_it_on_its_way() -> None:
    store = CountingStore()
    async with forest(store) as made:
        main, files = await made.plant(*DISKS), empty()
        await main.write((ROOT, noise(0, 12)))
        await follow(made, main, files)
        await main.write((ROOT, noise(3, 20, word="x")), (2, noise(0, 20)))
        key = (await store.keys("/data/"))[-1]
        before = await store.get(key)
        await store.spoil(key, len(before) - 5)
        with pytest.raises(DamagedObject, match="/data/"):
            await follow(made, main, files, seq=2)
        found = promised(files, (main,))
        assert found is not None
        assert found.status is Status.CHANGING
        replica = await opened(files)
        with pytest.raises(IllegalOperation, match="no recovery point"):
            await replica.give(THERE)
        replica.close()
        await store.delete(key)
        await store.put(key, [before])
        await follow(made, main, files, seq=2)
        promised(files, (main,))


class Elsewhere(MemFiles):
    """Another file system is mounted there."""

    def stat(self, path: str) -> FileStat | None:
        found = super().stat(path)
        return found and replace(found, device=2 if path.startswith(THERE) else 1)


async def test_what_is_refused(story: Story) -> None:
    files = empty()
    group, point = await point_of(story.forest, story.main, 4)
    replica = await opened(files)
    with pytest.raises(StateLocked):
        await opened(files)
    with pytest.raises(IllegalOperation, match="no recovery point"):
        await replica.give(THERE)
    await replica.bring(group, point)
    files.mkdir(THERE)
    files.put(f"{THERE}/web1-data.img", b"somebody's")
    with pytest.raises(TargetError, match="exists already"):
        await replica.give(THERE)
    await replica.give(f"{THERE}/new")
    assert await replica.give(f"{THERE}/new") == [
        f"{THERE}/new/web1-root.img", f"{THERE}/new/web1-data.img",
    ]  # fmt: skip
    with pytest.raises(IllegalOperation, match="were given to"):
        await replica.give(f"{THERE}/other")
    with pytest.raises(IllegalOperation, match="were given to"):
        await replica.bring(group, point)
    with pytest.raises(StateLocked):
        await Replica.drop(machine(files), FOLDER)
    replica.close()
    await Replica.drop(machine(files), FOLDER)
    replica = await opened(files)
    await replica.bring(group, point)
    replica.close()
    assert files.read(f"{THERE}/new/web1-root.img", 1 << 30) == story.main.moments[4].image(ROOT)
    with pytest.raises(StateError, match="the replica of web1"):
        await Replica.open(machine(files), FOLDER, PEOPLE.charter.vault, "web2")
    elsewhere = empty(Elsewhere())
    await follow(story.forest, story.main, elsewhere, seq=2)
    replica = await opened(elsewhere)
    with pytest.raises(TargetError, match="another file system"):
        await replica.give(THERE)
    assert replica.record is not None
    assert replica.record.status is Status.WHOLE
    replica.close()
    with pytest.raises(NoSpace, match="more than the replica may"):
        await follow(story.forest, story.main, files, seq=2, bounds=Bounds(size=1000))
    files.put(f"{FOLDER}/{NAME}", b"{}")
    with pytest.raises(StateDamaged, match="cannot be read"):
        await opened(files)
    await Replica.drop(machine(files), FOLDER)  # as the hint says
    brought = await follow(story.forest, story.main, files, seq=2)
    assert brought.compared


@given(
    st.lists(st.tuples(st.integers(0, 199), st.integers(1, 120)), min_size=1, max_size=12),
    st.sampled_from([8, 32, 64]),
    st.sampled_from([1, 64, 1000]),
)
def test_masks_name_all_and_in_bounds_no_more(
    runs: list[tuple[int, int]], window: int, most: int
) -> None:
    disk = Disk(1, "d", 200 * BLOCK)
    found = Changed((disk,), window=window, most=most)
    wanted = set()
    for start, most_of in runs:
        count = min(most_of, 200 - start)
        wanted |= set(range(start, start + count))
        found.add(1, Runs.of(np.arange(start, start + count, dtype=np.uint64)))
    named: set[int] = set()
    for first, count, mask in found.windows(1):
        assert len(mask) == count
        named |= {first + int(at) for at in mask.nonzero()[0]}
    assert wanted <= named
    if most >= 1000:
        assert named == wanted
    assert list(found.windows(2)) == []


async def _grow(dice: random.Random, branch: Branch) -> None:
    """A commit of anything."""
    if dice.random() < 0.15:
        root = dice.randrange(20, 60) * BLOCK - dice.choice((0, 0, 512))
        more = [Disk(number, f"d{number}", 10 * BLOCK) for number in (4, 5) if dice.random() < 0.5]
        await branch.describe(Disk(ROOT, "root", root), *more)
    disks = {disk.number: disk.blocks for disk in branch.disks}
    changes, zero, refs = [], {}, {}
    for number, blocks in disks.items():
        at = dice.randrange(blocks)
        word = str(dice.random())
        changes.append((number, noise(at, dice.randrange(1, blocks - at + 1) // 3 + 1, word=word)))
        free = sorted(set(range(blocks)) - set(changes[-1][1]))
        if free and dice.random() < 0.5:
            zero[number] = ((dice.choice(free), 1),)
        if dice.random() < 0.5:
            taken = {start for start, _ in zero.get(number, ())}
            left = [each for each in free if each not in taken]
            if left:
                refs[number] = ((dice.choice(left), ROOT, dice.randrange(disks[ROOT])),)
    changes = [
        (number, {at: data for at, data in blocks.items() if at < disks[number]})
        for number, blocks in changes
    ]
    await branch.write(*changes, zero=zero, refs=refs, in_gap=dice.random() < 0.1)


@settings(max_examples=15)
@given(st.integers(0, 1 << 32))
async def test_any_history_with_the_power_failing(seed: int) -> None:
    """Commits, other disks, branches; a replica that follows, and whose machine fails now and then:
    it is at a commit byte for byte, or says that it is at none."""
    dice = random.Random(seed)
    async with forest() as made:
        branch = await made.plant(*DISKS)
        files = empty()
        for _ in range(6):
            for _ in range(dice.randrange(1, 4)):
                await _grow(dice, branch)
            if dice.random() < 0.2:
                branch = await made.branch(branch, dice.choice(sorted(branch.moments)))
                await _grow(dice, branch)
            good = [seq for seq, each in branch.moments.items() if each.header.consistent]
            if not good:
                continue
            wire = Tripwire(dice.randrange(300), 5, dice.random() < 0.5)
            try:
                await follow(made, branch, files, seq=good[-1], around=wire, bounds=SMALL)
            except BackstayError:
                files.process_died()
                files.power_cut(dice.randrange(1 << 32))
            promised(files, made.made)
        await follow(made, branch, files, seq=max(branch.moments))
        found = promised(files, made.made)
        assert found is not None
        assert found.at is not None
        assert (found.status, found.at.seq) == (Status.WHOLE, max(branch.moments))
