"""The golden vaults hold the format still: read, re-encoded and rebuilt they stay what they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from stages.recover.opened import Group
from stages.recover.verify import Verify
from stages.store.memory import MemoryStore
from stages.vault.keyfile import decode_private
from tests.vault import build_golden, other_reader
from tests.vault.build_golden import NAMES, PASSPHRASE, Golden
from tests.vault.reading import MACHINE, open_group, read_point

GROUP = bytes(range(16)).hex()


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
    return await open_group(store, decode_private(objects[key], PASSPHRASE, key))


async def digests(group: Group, seq: int, *, checkpoints: bool = True) -> dict[str, str]:
    """BLAKE3 of every disk at a point, as restore would write it."""
    disks, damage = await read_point(group, seq, checkpoints=checkpoints)
    assert not damage
    return {name: blake3(content).hexdigest() for name, content in disks.items()}


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("name", NAMES)
async def test_todays_reader_reads_every_point(name: str, checkpoints: bool) -> None:
    group = await opened(name)
    for seq, expected in golden(name)[0].points.items():
        assert await digests(group, seq, checkpoints=checkpoints) == expected, seq
    assert not group.log.ignored


async def test_the_operators_key_opens_it_too() -> None:
    group = await opened("xchacha20poly1305", "keys/operator.key")
    assert await digests(group, 2) == golden("xchacha20poly1305")[0].points[2]


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
    last = max(made.points)
    assert read_by_another(made, last) == made.points[last]


def read_by_another(made: Golden, last: int) -> dict[str, str]:
    """Digests of the disks at commit ``last``, read from the nearest checkpoint."""
    _, secret = other_reader.private_key(made.objects["keys/second.key"], "")
    reader = other_reader.Reader(made.objects, GROUP, secret)
    blocks = other_reader.Map(reader)
    commits = list(reader.commits(last))
    base = commits[-1].header["checkpoint"] or last
    assert blocks.load(base) == commits[base - 1].link
    for commit in commits[base:]:
        blocks.fold(commit)
    return contents(reader, blocks, commits[-1])


def contents(
    reader: other_reader.Reader, blocks: other_reader.Map, commit: other_reader.Object
) -> dict[str, str]:
    machine = reader.machine(commit.header["machine"])
    return {
        disk["name"]: blake3(blocks.disk(disk["number"], disk["size"])).hexdigest()
        for disk in machine["disks"]
    }


def test_another_reader_opens_a_key_file_with_its_passphrase() -> None:
    objects = golden(NAMES[0])[0].objects
    private = decode_private(objects["keys/operator.key"], PASSPHRASE, "operator.key")
    secrets = other_reader.private_key(objects["keys/operator.key"], PASSPHRASE)
    assert secrets == (private.signer.seed, private.box.secret)


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_seeds_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    made, zstd = golden(name)
    built = await build_golden.build(name, str(tmp_path))
    assert built.objects.keys() == made.objects.keys()
    assert built.points == made.points
    if zstd == zstandard.ZSTD_VERSION:  # another one may compress to other bytes
        assert [key for key in built.objects if built.objects[key] != made.objects[key]] == []
    assert read_by_another(built, max(made.points)) == made.points[max(made.points)]


def test_every_kind_of_object_is_in_a_golden_vault() -> None:
    made = golden(NAMES[0])[0].objects
    for part in (
        "vault.json", "charters/", "/group", "/for/", "/machine/", "/term", "/data", "/index",
        "/digest", "/data/0", "/log/", "/rollups/", "/checkpoints/", "/manifest",
    ):  # fmt: skip
        assert any(part in key for key in made), part


def test_the_golden_files_are_small() -> None:
    assert sum(path.stat().st_size for path in build_golden.GOLDEN.iterdir()) < 300_000
