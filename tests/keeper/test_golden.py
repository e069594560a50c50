"""A vault that a keeper has worked on, written once: FORMAT.md suffices to read what is left."""

from __future__ import annotations

import pytest
import zstandard
from blake3 import blake3

from stages.errors import Expired
from stages.recover.opened import open_vault
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from stages.vault import layout
from tests.keeper.build_golden import HELD, NAME, SEED, build
from tests.vault import build_golden
from tests.vault.other_reader import COMMIT, Map, Reader
from tests.vault.reading import MACHINE, read_point
from tests.vault.support import People

PEOPLE = People.of(SEED)
GROUP = PEOPLE.scope().group


def test_another_reader_reads_what_is_left_and_nothing_else() -> None:
    golden, _ = build_golden.read(NAME)
    reader = Reader(golden.objects, GROUP.hex(), PEOPLE.second.box.secret)
    floor = reader.floor()
    assert floor is not None
    first = floor.header["seq"]
    newest = max(golden.points)
    assert set(reader.kept(floor)) == {seq for seq in golden.points if seq <= first}
    assert reader.moved(floor)
    assert HELD in golden.points
    assert newest > first
    for seq, expected in golden.points.items():
        blocks = Map.under_floor(reader, seq)
        commit = reader.object(f"log/{seq:015d}", COMMIT)
        disks = reader.machine(commit.header["machine"])["disks"]
        found = {each["name"]: blocks.disk(each["number"], each["size"]) for each in disks}
        assert {name: blake3(data).hexdigest() for name, data in found.items()} == expected


def test_it_needs_the_packs_and_much_has_gone() -> None:
    golden, _ = build_golden.read(NAME)
    assert layout.commit(GROUP, 1) not in golden.objects
    packs = [key for key in golden.objects if key.startswith(layout.packs_prefix(GROUP))]
    assert packs
    reader = Reader(golden.objects, GROUP.hex(), PEOPLE.second.box.secret)
    blocks = Map.under_floor(reader, HELD)
    blocks.moved = {}
    with pytest.raises((KeyError, AssertionError)):
        blocks.disk(0, 90 * 4096)


async def test_todays_reader_reads_it() -> None:
    golden, _ = build_golden.read(NAME)
    store = MemoryStore()
    for key, data in golden.objects.items():
        await store.put(key, [data])
    vault = await open_vault(store, PEOPLE.operator)
    group = await vault.find("web1")
    for seq, expected in golden.points.items():
        disks, damage = await read_point(group, seq)
        assert not damage
        assert {name: blake3(data).hexdigest() for name, data in disks.items()} == expected
        found = await Verify(group, MACHINE, seq).run()
        assert (found.whole, found.problems) == (True, ())
    with pytest.raises(Expired):
        await group.log.signed(1)


async def test_todays_writer_and_keeper_make_the_same() -> None:
    golden, zstd = build_golden.read(NAME)
    built = await build()
    assert built.objects.keys() == golden.objects.keys()
    assert built.points == golden.points
    if zstd == zstandard.ZSTD_VERSION:  # another one may compress to other bytes
        assert [key for key in built.objects if built.objects[key] != golden.objects[key]] == []
