"""A vault with branches, written once: today's program reads it, and would write the same."""

from __future__ import annotations

import pytest
import zstandard
from blake3 import blake3

from stages.recover.opened import open_vault
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from tests.branches.build_golden import NAME, build
from tests.recover.past import PEOPLE, machine
from tests.vault import build_golden
from tests.vault.reading import read_point


@pytest.mark.parametrize("checkpoints", [True, False])
async def test_todays_reader_reads_it(checkpoints: bool) -> None:
    golden, _ = build_golden.read(NAME)
    store = MemoryStore()
    for key, data in golden.objects.items():
        await store.put(key, [data])
    group = await (await open_vault(store, PEOPLE.operator)).find("web1")
    for seq, expected in golden.points.items():
        disks, damage = await read_point(group, seq, checkpoints=checkpoints)
        assert not damage
        assert {name: blake3(data).hexdigest() for name, data in disks.items()} == expected
    found = await Verify(group, machine(), group.tail).run()
    assert (found.whole, found.problems) == (True, ())


async def test_todays_writer_writes_the_same() -> None:
    golden, zstd = build_golden.read(NAME)
    built, _ = await build()
    assert built.objects.keys() == golden.objects.keys()
    assert built.points == golden.points
    if zstd == zstandard.ZSTD_VERSION:  # another one may compress to other bytes
        assert built.objects == golden.objects
