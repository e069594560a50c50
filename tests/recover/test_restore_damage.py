"""Restoring what is damaged: what is told, what salvage finishes, what is not taken for whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.errors import DamagedObject, TargetError
from stages.model import BLOCK
from tests.ports.watched import WatchedFiles
from tests.recover.past import CountingStore, Past, noise, past
from tests.recover.targets import DATA, ROOT, TWO, disk, is_restored, restore, second, targets, tree


async def lose_a_frame(made: Past, store: CountingStore) -> None:
    """A past whose second object lost a byte: three frames, of which the middle one is gone."""
    await made.write((ROOT, noise(0, 64)))
    await made.write((ROOT, noise(100, 192)))
    await made.write((DATA, noise(0, 20)))
    key = (await store.keys("/data/"))[1]
    await store.spoil(key, len(await store.get(key)) // 2)


async def test_damage_leaves_partial_files_and_salvage_finishes_them(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(*TWO, store=store) as made:
        await lose_a_frame(made, store)
        to = targets(made, tmp_path)
        with pytest.raises(DamagedObject) as caught:
            await restore(made, to, window=150)
        start, end = 164 * BLOCK, 228 * BLOCK
        assert f"bytes {start} to {end}" in str(caught.value)
        assert f"{64 * BLOCK} bytes" in str(caught.value)
        assert "--salvage" in caught.value.hint
        assert set(tree(tmp_path)) == {
            f"{name}.partial{end}" for name in ("root", "data") for end in ("", ".progress")
        }
        store.gets.clear()
        report = await restore(made, to, window=150, salvage=True)
        assert [(each.offset, each.length) for each in report.damage] == [(start, end - start)]
        # What was whole is not fetched again: the damaged object's windows only.
        assert len({key for key, _, _ in store.gets if "/data/" in key}) == 1
        image = bytearray(made.moments[made.tail].image(ROOT))
        image[start:end] = bytes(end - start)
        data = made.moments[made.tail].image(DATA)
        assert tree(tmp_path) == {"root": bytes(image), "data": data}
        assert sum(each.content for each in report.disks) == (292 - 150 - 64) * BLOCK


async def test_damage_that_was_mended_leaves_nothing_behind(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(*TWO, store=store) as made:
        await lose_a_frame(made, store)
        to = targets(made, tmp_path)
        with pytest.raises(DamagedObject):
            await restore(made, to, window=100)
        key = (await store.keys("/data/"))[1]
        await store.spoil(key, len(await store.get(key)) // 2)  # back again
        report = await restore(made, to, window=100)
        assert not report.damage
        assert is_restored(made, to)


async def test_salvage_stopped_between_two_names_is_not_taken_for_whole(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(*TWO, store=store) as made:
        await lose_a_frame(made, store)
        to = targets(made, tmp_path)
        with pytest.raises(TargetError):
            await restore(made, to, files=WatchedFiles(second("link")), salvage=True)
        with pytest.raises(TargetError, match="exists already"):
            await restore(made, to)


async def test_much_damage_is_listed_in_part_and_counted_in_full(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(disk(300 * BLOCK), store=store) as made:
        await made.write((ROOT, {at: noise(at, 1)[at] for at in range(0, 200, 2)}))
        (key,) = await store.keys("/data/")
        await store.delete(key)
        with pytest.raises(DamagedObject, match=f"{100 * BLOCK} bytes") as caught:
            await restore(made, targets(made, tmp_path))
        assert str(caught.value).count("bytes") == 51
        assert "and more" in str(caught.value)
