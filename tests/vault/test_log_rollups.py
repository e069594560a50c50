"""Rollups save gets; what is wrong with them costs only time."""

from __future__ import annotations

from functools import cache

import pytest

from stages.crypto.sign import Signer
from stages.errors import Damage, DamagedObject, MissingData
from stages.vault import commits, layout, rollup
from stages.vault.charter import Member
from stages.vault.commits import Commit
from tests.vault.chain import (
    PEOPLE,
    SCOPE,
    Chain,
    commit,
    header,
    key_of,
    link_of,
    log_of,
)
from tests.vault.support import START

STRANGER = Signer(bytes(32))
OTHER = Signer(bytes(range(32)))
BOTH = PEOPLE.charter.with_writer(Member(OTHER.public, "other"))


def links(found: list[Commit]) -> list[bytes]:
    return [each.link for each in found]


@cache
def rolled() -> Chain:
    return Chain().add(300)


async def test_a_rollup_saves_gets() -> None:
    store = await rolled().store(rolled=True)
    log = log_of(store)
    found = await log.stretch(1, 256, None)
    assert [each.header.seq for each in found] == list(range(1, 257))
    assert len(store.gets) == 2  # the rollup and the term
    assert not log.ignored
    assert (await log.stretch(240, 300, found[238].link))[0].link == found[239].link


async def test_the_log_itself_is_read_where_it_is_asked_for() -> None:
    store = await rolled().store(rolled=True)
    await log_of(store).stretch(1, 256, None, rollups=False)
    assert len(store.gets) == 257
    await store.replace(key_of(100), b"damaged")
    await log_of(store).stretch(1, 256, None)
    with pytest.raises(DamagedObject):
        await log_of(store).stretch(1, 256, None, rollups=False)


@pytest.mark.parametrize("limit", ["number", "bytes"])
async def test_the_newest_commits_are_read_once_within_a_bound(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await rolled().store(rolled=False)
    log = log_of(store)
    (first,) = await log.stretch(300, 300, None)
    most = 8 * first.container.tail_at  # all are as long
    monkeypatch.setattr(commits, *(("KEPT", 8) if limit == "number" else ("KEPT_BYTES", most)))
    before = links(await log.stretch(270, 300, None))
    store.gets.clear()
    assert links(await log.stretch(293, 300, None)) == before[-8:]
    assert [(await log.signed(seq)).header.seq for seq in (300, 293)] == [300, 293]
    assert not store.gets
    await log.stretch(285, 300, None)
    assert len(store.gets) == 8
    await log.stretch(100, 110, None)  # older ones do not drive newer ones out
    store.gets.clear()
    await log.stretch(293, 300, None)
    assert not store.gets


async def test_what_a_rollup_tells_stands_in_for_no_commit_that_is_asked_for_itself() -> None:
    store = await rolled().store(rolled=True)
    log = log_of(store)
    before = links(await log.stretch(150, 256, None))
    await store.delete(key_of(200))
    assert links(await log.stretch(150, 256, None)) == before
    with pytest.raises(MissingData):
        await log.signed(200)
    with pytest.raises(MissingData):
        await log.stretch(150, 256, None, rollups=False)


async def test_only_what_was_proven_is_remembered() -> None:
    """A commit that can be read and is not the one that was signed does not stand in the way."""
    store = await rolled().store(rolled=True)
    before = links(await log_of(store).stretch(150, 256, None))
    data = bytearray(rolled().objects[255])
    data[16] ^= 1  # length of its tail
    await store.replace(key_of(256), bytes(data))
    log = log_of(store)
    with pytest.raises(Damage):
        await log.stretch(150, 256, None, rollups=False)
    assert links(await log.stretch(150, 256, None)) == before
    assert not log.ignored


async def test_every_damage_of_a_rollup_is_got_round() -> None:
    store = await rolled().store(rolled=True)
    key = layout.rollup(SCOPE.group, 256)
    whole = await store.get(key)
    expected = links(await log_of(store).stretch(1, 256, None))
    entry = 12 + 4 * 256 + sum(len(data) for data in rolled().objects[:10])
    places = [0, 4, 9, 20, *(entry + at for at in (0, 4, 5, 10, 40, 90, 97, 130, 300, 400, 480))]
    for at in places:
        await store.replace(key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        log = log_of(store)
        assert links(await log.stretch(1, 256, None)) == expected, at
        assert log.ignored, at
    for damaged in (b"", whole[:-1], whole + b"x", whole[:1000]):
        await store.replace(key, damaged)
        assert links(await log_of(store).stretch(1, 256, None)) == expected
    await store.delete(key)
    log = log_of(store)
    assert links(await log.stretch(1, 256, None)) == expected
    assert not log.ignored  # a missing rollup is no damage


async def test_a_forged_rollup_is_got_round() -> None:
    """Its entries are whole and follow each other, but nobody admitted signed the last."""
    forged = Chain()
    for seq in range(1, 257):
        forged.objects.append(commit(header(seq, forged.link, wall=START + 1), STRANGER))
    store = await rolled().store()
    await store.put(layout.rollup(SCOPE.group, 256), rollup.encode(forged.objects))
    log = log_of(store)
    found = await log.stretch(1, 256, None)
    assert found[-1].link == link_of(rolled().objects[255])
    assert "rollup" in log.ignored[0]


async def test_damage_of_the_log_behind_a_rollup_is_still_damage() -> None:
    store = await rolled().store(rolled=True)
    await store.replace(key_of(280), b"damaged")
    with pytest.raises(DamagedObject) as caught:
        await log_of(store).stretch(257, 300, None)
    assert caught.value.subject == key_of(280)
