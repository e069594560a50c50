"""What one damaged byte costs, object by object: as FORMAT.md says, and never wrong content."""

from __future__ import annotations

import tempfile
from functools import cache

import pytest
import trio

from stages.errors import BackstayError, Damage, TrustMismatch, UnknownVersion, VaultError
from stages.model import BLOCK, FRAME_BLOCKS, Disk
from stages.recover.extract import DamagedExtent
from stages.store.memory import MemoryStore
from stages.vault import layout
from stages.vault.container import Kind, parse
from tests.vault.author import Author, batch_of
from tests.vault.build_golden import KeepingStore
from tests.vault.reading import open_group, read_point
from tests.vault.support import People, noise_block, put_charter, seeded_machine, text_block

PEOPLE = People.of("damage")
GROUP = PEOPLE.scope().group
FOLDER = layout.group(GROUP)
DISKS = (Disk(0, "root", 100 * BLOCK), Disk(1, "data", 50 * BLOCK - 7))
TAIL = 5


async def _build(folder: str) -> dict[str, bytes]:
    """Five commits in two epochs: content in an object and inline, references, a checkpoint."""
    store = KeepingStore()
    await put_charter(store, PEOPLE.charter, PEOPLE.operator.signer)
    author = Author(PEOPLE, store, folder, seeded_machine("damage"))
    await author.begin()
    await author.describe(1, *DISKS)
    words = {block: text_block(f"first {block}") for block in range(70)}
    words |= {block: noise_block(f"first {block}") for block in (80, 81, 82)}
    await author.commit((batch_of(0, words), batch_of(1, zero=((0, 50),))))
    await author.commit((batch_of(0, {90: text_block("a")}, refs=((91, 0, 0), (92, 0, 80))),))
    await author.checkpoint()
    await author.commit((batch_of(1, {3: text_block("b")}, refs=((4, 0, 90),)),))
    await author.session.open()
    author.restart_numbers()
    await author.commit((batch_of(1, {5: noise_block("c")}),))
    await author.commit((batch_of(0, {1: text_block("d")}, zero=((2, 2),)),))
    author.ledger.close()
    return dict(sorted(store.objects.items()))  # some are put side by side


@cache
def objects() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(_build, folder)


@cache
def expected() -> dict[int, dict[str, bytes]]:
    async def read() -> dict[int, dict[str, bytes]]:
        group = await open_group(await store_of({}), PEOPLE.second)
        return {seq: (await read_point(group, seq))[0] for seq in range(1, TAIL + 1)}

    return trio.run(read)


async def store_of(changed: dict[str, bytes | None]) -> MemoryStore:
    store = MemoryStore()
    for key, data in (objects() | changed).items():
        if data is not None:
            await store.put(key, [data])
    return store


def flipped(key: str, at: int) -> bytes:
    data = objects()[key]
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


EACH = pytest.mark.parametrize("key", objects(), ids=lambda key: key.removeprefix(FOLDER)[-24:])
Outcome = BackstayError | list[DamagedExtent]


async def read(changed: dict[str, bytes | None], whole: dict[str, bytes], seq: int) -> Outcome:
    """What reading a point comes to; whatever was read is checked to be right."""
    try:
        group = await open_group(await store_of(changed), PEOPLE.second)
        disks, damage = await read_point(group, seq)
    except BackstayError as error:
        return error
    for name, content in disks.items():
        right = bytearray(whole[name])
        for extent in damage:
            if extent.disk == name:
                right[extent.offset : extent.offset + extent.length] = bytes(extent.length)
        assert content == bytes(right), f"{name} is wrong"
    return damage


def reads(changed: dict[str, bytes | None], seq: int) -> Outcome:
    return trio.run(read, changed, expected()[seq], seq)


def test_the_vault_of_these_tests_is_whole() -> None:
    assert [reads({}, seq) for seq in range(1, TAIL + 1)] == [[]] * TAIL


@EACH
def test_no_flipped_byte_gives_wrong_content(key: str) -> None:
    size = len(objects()[key])
    places = {0, 4, 5, 9, 13, 17, 40, 100, size // 3, size // 2, size - 1}
    for at in sorted(at for at in places if at < size):
        reads({key: flipped(key, at)}, TAIL)


@EACH
def test_no_missing_or_shortened_object_gives_wrong_content(key: str) -> None:
    data = objects()[key]
    for cut in (None, b"", data[: len(data) // 2], data[:-1]):
        reads({key: cut}, TAIL)


def damaged(key: str, at: int = 200) -> dict[str, bytes | None]:
    assert key in objects()
    return {key: flipped(key, at)}


def test_the_charter() -> None:
    for at in (30, 200):
        found = reads(damaged(layout.VAULT, at), 1)
        assert isinstance(found, (TrustMismatch, VaultError, Damage))


def test_a_machine_record_costs_the_points_that_name_it() -> None:
    assert isinstance(reads(damaged(f"{FOLDER}machine/00000001"), 1), Damage)


@pytest.mark.parametrize("key", ["group", "epochs/00000001/term", "epochs/00000002/term"])
def test_what_only_vouches_for_others_costs_no_content(key: str) -> None:
    assert reads(damaged(FOLDER + key), TAIL) == []
    assert reads({FOLDER + key: None}, TAIL) == []


def test_a_wrapped_key_costs_one_recipient_its_epoch() -> None:
    mine = layout.wrapped_key(GROUP, 2, PEOPLE.second.box.public, "data")
    others = layout.wrapped_key(GROUP, 2, PEOPLE.operator.box.public, "data")
    assert reads(damaged(mine), TAIL) != []
    assert reads(damaged(mine), 3) == []
    assert reads(damaged(others), TAIL) == []


def test_the_digest_key_costs_no_content() -> None:
    assert reads(damaged(layout.digest_key(GROUP, PEOPLE.second.box.public)), TAIL) == []


def test_a_byte_of_a_data_object_costs_one_frame() -> None:
    key = layout.data(GROUP, 1, 0)
    found = reads(damaged(key), TAIL)
    assert isinstance(found, list)
    lost = sum(extent.length for extent in found)
    assert 0 < lost <= (FRAME_BLOCKS + 1) * BLOCK  # and the block that refers to one of it
    assert {extent.key for extent in found} == {key}


def test_a_byte_of_an_inline_frame_costs_that_frame() -> None:
    key = layout.commit(GROUP, 4)
    found = reads(damaged(key, len(objects()[key]) - 1), TAIL)
    assert isinstance(found, list)
    assert [(e.disk, e.offset, e.length) for e in found] == [("data", 5 * BLOCK, BLOCK)]


def test_a_commits_head_or_body_costs_the_points_from_it_to_the_next_checkpoint() -> None:
    key = layout.commit(GROUP, 4)
    body_at = parse(objects()[key], key, Kind.COMMIT).body_at
    for at in (0, 40, 150, body_at + 5):
        changed = damaged(key, at)
        assert reads(changed, 3) == []
        assert isinstance(reads(changed, 4), (Damage, UnknownVersion))
        assert isinstance(reads(changed, 5), (Damage, UnknownVersion))


def test_before_a_checkpoint_it_costs_its_own_content_and_earlier_points_only() -> None:
    assert isinstance(reads(damaged(layout.commit(GROUP, 1)), 1), Damage)
    assert reads(damaged(layout.commit(GROUP, 1)), TAIL) == []


@pytest.mark.parametrize("at", [4, 30, 150, 300])
def test_a_checkpoint_costs_time_only(at: int) -> None:
    """Pages and manifest alike: the commits before it are read instead."""
    parts = [key for key in objects() if "/checkpoints/" in key]
    assert len(parts) == 3  # maps and digests, places, the manifest
    for key in parts:
        assert reads(damaged(key, at % len(objects()[key])), TAIL) == []
        assert reads({key: None}, TAIL) == []
