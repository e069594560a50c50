"""The golden vaults hold the format still: read, re-encoded and rebuilt they stay what they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from stages.model import BLOCK
from stages.recover.opened import Group, open_vault
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.sweep import Sweep, content_runs
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from stages.vault.keyfile import decode_private
from tests.vault import build_golden, other_reader
from tests.vault.build_golden import NAMES, PASSPHRASE, Golden
from tests.vault.support import seeded_machine

GROUP = bytes(range(16)).hex()
MACHINE = seeded_machine("reading")


@cache
def golden(name: str) -> tuple[Golden, tuple[int, ...]]:
    return build_golden.read(name)


async def opened(name: str, key: str = "keys/second.key") -> Group:
    """The golden group as today's reader opens it."""
    store = MemoryStore()
    objects = golden(name)[0].objects
    for at, data in objects.items():
        if not at.startswith("keys/"):
            await store.put(at, [data])
    private = decode_private(objects[key], PASSPHRASE, key)
    return await (await open_vault(store, private)).find("web1")


async def digests(point: PointMap) -> dict[str, str]:
    """BLAKE3 of every disk at a point, as restore would write it."""
    sweep = Sweep(point, MACHINE)
    found = {}
    for disk in point.machine.disks:
        content = bytearray(disk.blocks * BLOCK)

        def take(need: FrameNeed, blocks: bytes, content: bytearray = content) -> None:
            for slot, block, count in content_runs(need):
                there = slice(block * BLOCK, (block + count) * BLOCK)
                content[there] = blocks[slot * BLOCK : (slot + count) * BLOCK]

        for first in sweep.windows(disk):
            await sweep.extract(await sweep.locate(disk, first), take)
        assert not any(content[disk.size :])
        found[disk.name] = blake3(content[: disk.size]).hexdigest()
    assert not sweep.damage
    point.close()
    return found


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("name", NAMES)
async def test_todays_reader_reads_every_point(name: str, checkpoints: bool) -> None:
    group = await opened(name)
    for seq, expected in golden(name)[0].points.items():
        point = await PointMap.build(group, MACHINE.files, seq, checkpoints=checkpoints)
        assert await digests(point) == expected, seq
    assert not group.log.ignored


async def test_the_operators_key_opens_it_too() -> None:
    group = await opened("xchacha20poly1305", "keys/operator.key")
    point = await PointMap.build(group, MACHINE.files, 2)
    assert await digests(point) == golden("xchacha20poly1305")[0].points[2]


@pytest.mark.parametrize("name", NAMES)
async def test_verify_finds_nothing(name: str) -> None:
    group = await opened(name)
    found = await Verify(group, MACHINE, group.tail).run()
    assert (found.whole, found.problems, found.seq) == (True, (), group.tail)


@pytest.mark.parametrize("name", NAMES)
def test_another_reader_reads_every_point_from_the_log(name: str) -> None:
    made = golden(name)[0]
    _, secret = other_reader.private_key(made.objects["keys/second.key"], "")
    reader = other_reader.Reader(made.objects, GROUP, secret)
    blocks = other_reader.Map(reader)
    commits = list(reader.commits(max(made.points)))
    for commit in commits:
        blocks.fold(commit)
        seq = commit.header["seq"]
        if seq in made.points:
            assert contents(reader, blocks, commit) == made.points[seq]
    if len(commits) > 256:
        assert [one.link for one in reader.rolled(256)] == [one.link for one in commits[:256]]


@pytest.mark.parametrize("name", NAMES)
def test_another_reader_reads_from_a_checkpoint(name: str) -> None:
    made = golden(name)[0]
    _, secret = other_reader.private_key(made.objects["keys/operator.key"], PASSPHRASE)
    reader = other_reader.Reader(made.objects, GROUP, secret)
    blocks = other_reader.Map(reader)
    last = max(made.points)
    commits = list(reader.commits(last))
    base = commits[-1].header["checkpoint"] or last
    assert blocks.load(base) == commits[base - 1].link
    for commit in commits[base:]:
        blocks.fold(commit)
    assert contents(reader, blocks, commits[-1]) == made.points[last]


def contents(
    reader: other_reader.Reader, blocks: other_reader.Map, commit: other_reader.Object
) -> dict[str, str]:
    machine = reader.machine(commit.header["machine"])
    return {
        disk["name"]: blake3(blocks.disk(disk["number"], disk["size"])).hexdigest()
        for disk in machine["disks"]
    }


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_seeds_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    made, zstd = golden(name)
    if zstd != zstandard.ZSTD_VERSION:
        pytest.skip(f"made with zstd {zstd}: its output may differ, what it expands to must not")
    built = await build_golden.build(name, str(tmp_path))
    assert built.objects.keys() == made.objects.keys()
    assert [key for key in built.objects if built.objects[key] != made.objects[key]] == []
    assert built.points == made.points
