"""Reading a log: its end without a list, its commits only where they prove each other."""

from __future__ import annotations

import random
from functools import cache

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crypto.sign import Signer
from stages.errors import BrokenChain, DamagedObject, MissingData, NotAdmitted, UnknownVersion
from stages.vault import layout, rollup
from stages.vault.charter import Member
from stages.vault.log import Commit
from tests.vault.chain import (
    PEOPLE,
    SCOPE,
    Chain,
    CountingStore,
    commit,
    header,
    key_of,
    link_of,
    log_of,
    put_term,
    stamped,
)
from tests.vault.support import START

STRANGER = Signer(bytes(32))
OTHER = Signer(bytes(range(32)))
BOTH = PEOPLE.charter.with_writer(Member(OTHER.public, "other"))


@cache
def seventy() -> Chain:
    return Chain().add(70)


def links(commits: list[Commit]) -> list[bytes]:
    return [each.link for each in commits]


# --- the end of the log


@pytest.mark.parametrize("tail", range(71))
async def test_the_tail_is_found(tail: int) -> None:
    store = await Chain(seventy().objects[:tail]).store()
    log = log_of(store)
    assert await log.tail() == tail
    assert not log.ignored


@pytest.mark.parametrize(
    "tail", [255, 256, 257, 65_535, 65_536, 65_537, 999_999, 31_536_000, (1 << 32) + 7, 10**15 - 1]
)
async def test_long_logs_take_few_probes(tail: int) -> None:
    store = CountingStore(tail)
    await put_term(store, 1)
    await store.put(key_of(tail), [commit(header(tail, bytes(32)))])
    assert await log_of(store).tail() == tail
    assert store.infos <= 16 * 18


@pytest.mark.parametrize("missing", range(1, 40))
@pytest.mark.parametrize("length", [1, 2, 16])
async def test_a_hole_never_passes_for_the_end(missing: int, length: int) -> None:
    """Of up to 16 commits, wherever it is: the tail is the tail or an error, never the hole."""
    store = await Chain(seventy().objects[:57]).store()
    for seq in range(missing, missing + length):
        await store.delete(key_of(seq))
    log = log_of(store)
    try:
        assert await log.tail() == 57
    except BrokenChain as error:
        assert error.subject == key_of(missing)
    with pytest.raises((MissingData, BrokenChain)):
        await log.stretch(1, 57, None)


async def test_long_holes_are_seen_where_a_probe_lies_beyond() -> None:
    store = await seventy().store()
    for seq in range(4, 60):
        await store.delete(key_of(seq))
    with pytest.raises(BrokenChain):
        await log_of(store).tail()


@pytest.mark.parametrize("foreign", [1, 2, 5])
async def test_foreign_commits_at_the_tail_are_ignored_and_told(foreign: int) -> None:
    store = await Chain(seventy().objects[:9]).store()
    for seq in range(10, 10 + foreign):
        await store.put(key_of(seq), [commit(header(seq, bytes(32)), STRANGER)])
    log = log_of(store)
    assert await log.tail() == 9
    assert len(log.ignored) == foreign
    assert key_of(10) in log.ignored[-1]


async def test_a_writer_counts_in_its_own_epoch_only() -> None:
    store = await Chain(seventy().objects[:9]).store()
    await store.put(key_of(10), [commit(header(10, seventy().link), OTHER)])
    log = log_of(store, BOTH)
    assert await log.tail() == 9
    with pytest.raises(NotAdmitted, match="another writer"):
        await log.signed(10)


async def test_a_log_of_foreign_commits_only_is_empty() -> None:
    store = CountingStore()
    await store.put(key_of(1), [commit(header(1, bytes(32)), STRANGER)])
    assert await log_of(store).tail() == 0


@pytest.mark.parametrize("data", [b"", b"garbage", b"BSTY\x02" + bytes(200)])
async def test_a_damaged_newest_commit_keeps_its_place(data: bytes) -> None:
    """Whether it was one of ours cannot be known: who asks for it is told, the others stay."""
    store = await Chain(seventy().objects[:9]).store()
    await store.put(key_of(10), [data])
    log = log_of(store)
    assert await log.tail() == 10
    with pytest.raises((DamagedObject, UnknownVersion)):
        await log.signed(10)
    assert (await log.signed(9)).header.seq == 9


async def test_a_lost_term_keeps_its_epoch_from_being_read_and_no_other() -> None:
    chain = Chain(seventy().objects[:3]).add(1, epoch=2)
    store = await chain.store()
    log = log_of(store)
    assert await log.tail() == 4
    with pytest.raises(MissingData):
        await log.signed(4)
    assert len(await log.stretch(1, 3, None)) == 3


# --- commits in order


async def test_a_stretch_is_checked_from_end_to_end() -> None:
    store = await seventy().store()
    log = log_of(store)
    commits = await log.stretch(1, 70, None)
    assert [each.header.seq for each in commits] == list(range(1, 71))
    assert links(await log.stretch(31, 70, commits[29].link)) == links(commits[30:])
    assert links(await log.stretch(31, 70, None)) == links(commits[30:])
    with pytest.raises(BrokenChain):
        await log.stretch(31, 70, bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        {"previous": bytes(range(32))},
        {"stamp": START + 4},  # not above the one before
        {"stamp": START},
        {"epoch": 1},  # below the one before
    ],
)
@pytest.mark.parametrize("followers", [0, 3])
async def test_a_commit_that_does_not_follow_breaks_the_chain(
    change: dict[str, object], followers: int
) -> None:
    chain = Chain().add(4, epoch=2)
    fields: dict[str, object] = {"epoch": 2, "previous": chain.link} | change
    chain.objects.append(commit(header(5, **fields)))  # type: ignore[arg-type]
    chain.add(followers, epoch=2)
    store = await chain.store()
    await put_term(store, 2)
    with pytest.raises(BrokenChain) as caught:
        await log_of(store).stretch(1, 5 + followers, None)
    assert caught.value.subject == key_of(5)


async def test_the_first_commit_follows_nothing() -> None:
    store = await Chain([commit(header(1, bytes(range(32))))]).store()
    with pytest.raises(BrokenChain):
        await log_of(store).stretch(1, 1, None)


async def test_a_commit_in_another_ones_place_is_damage() -> None:
    store = await Chain(seventy().objects[:9]).store()
    await store.put(key_of(10), [seventy().objects[8]])
    with pytest.raises(DamagedObject):
        await log_of(store).stretch(1, 10, None)


async def test_a_stretch_is_no_better_than_its_last_signature() -> None:
    chain = Chain(seventy().objects[:4])
    chain.objects.append(commit(header(5, chain.link), STRANGER))
    with pytest.raises(NotAdmitted):
        await log_of(await chain.store()).stretch(1, 5, None)


async def test_every_changed_byte_of_a_commit_stops_the_stretch() -> None:
    """In the middle of it, where no signature is looked at: the links are enough."""
    store = await Chain(seventy().objects[:6]).store()
    data = seventy().objects[2]
    for at in range(0, len(data), 7):
        await store.replace(key_of(3), data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises((BrokenChain, DamagedObject, UnknownVersion)):
            await log_of(store).stretch(1, 6, None)


async def test_bodies_longer_than_the_first_read_are_read_on() -> None:
    found = header(1, bytes(32), objects=())
    data = commit(found, tail=bytes(100_000))
    store = await Chain([data]).store()
    read = await log_of(store).signed(1)
    assert read.container.size == len(data)
    assert store.gets.count(key_of(1)) == 1  # the frames in the tail are not needed here


# --- points in time


def naive(stamps: list[int], damaged: set[int], stamp: int) -> int:
    whole = [seq for seq in range(1, len(stamps) + 1) if seq not in damaged]
    return max((seq for seq in whole if stamps[seq - 1] <= stamp), default=0)


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.lists(st.integers(-5, 2000), min_size=4, max_size=4),
    st.sets(st.integers(1, 60), max_size=5),
)
def test_points_are_found_by_time(steps: list[int], asked: list[int], damaged: set[int]) -> None:
    stamps = [START + sum(steps[: at + 1]) for at in range(len(steps))]
    damaged = {seq for seq in damaged if seq <= len(stamps)}

    async def check() -> None:
        store = await stamped(stamps).store()
        for seq in damaged:
            await store.replace(key_of(seq), b"damaged")
        log = log_of(store)
        for stamp in [START + each for each in asked]:
            expected = naive(stamps, damaged, stamp)
            try:
                assert await log.at_or_before(stamp, len(stamps)) == expected
            except DamagedObject:  # then there is nothing else to go by
                assert damaged
                assert expected == 0

    trio.run(check)


async def test_every_stamp_of_a_longer_log_is_found() -> None:
    stamps = [START + 10 * at for at in range(1, 401)]
    log = log_of(await stamped(stamps).store())
    dice = random.Random(7)
    for _ in range(60):
        stamp = START + dice.randrange(4100)
        assert await log.at_or_before(stamp, 400) == naive(stamps, set(), stamp)
    assert not log.ignored


async def test_a_time_is_not_found_by_a_forged_stamp() -> None:
    store = await seventy().store()
    forged = commit(header(20, bytes(32), stamp=START + 10**9), STRANGER)
    await store.replace(key_of(20), forged)
    log = log_of(store)
    assert await log.at_or_before(START + 60, 70) == 60
    for seq in range(1, 71):
        if seq != 20:
            assert await log.at_or_before(START + seq, 70) == seq


async def test_a_log_of_nothing_but_damage_says_so() -> None:
    store = await seventy().store()
    for seq in range(1, 71):
        await store.replace(key_of(seq), b"damaged")
    with pytest.raises(DamagedObject):
        await log_of(store).at_or_before(START + 60, 70)
    assert await log_of(store).at_or_before(START, 0) == 0


async def test_the_consistent_commit_before_is_named_by_the_header() -> None:
    chain = Chain().add(3).add(2, consistent=False, last_consistent=3)
    log = log_of(await chain.store())
    assert [await log.consistent_before(seq) for seq in range(6)] == [0, 1, 2, 3, 3, 3]


# --- rollups


@cache
def rolled() -> Chain:
    return Chain().add(300)


async def test_a_rollup_saves_gets() -> None:
    store = await rolled().store(rolled=True)
    log = log_of(store)
    commits = await log.stretch(1, 256, None)
    assert [each.header.seq for each in commits] == list(range(1, 257))
    assert len(store.gets) == 2  # the rollup and the term
    assert not log.ignored
    assert (await log.stretch(240, 300, commits[238].link))[0].link == commits[239].link


async def test_the_log_itself_is_read_where_it_is_asked_for() -> None:
    store = await rolled().store(rolled=True)
    await log_of(store).stretch(1, 256, None, rollups=False)
    assert len(store.gets) == 257
    await store.replace(key_of(100), b"damaged")
    await log_of(store).stretch(1, 256, None)
    with pytest.raises(DamagedObject):
        await log_of(store).stretch(1, 256, None, rollups=False)


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
    commits = await log.stretch(1, 256, None)
    assert commits[-1].link == link_of(rolled().objects[255])
    assert "rollup" in log.ignored[0]


async def test_damage_of_the_log_behind_a_rollup_is_still_damage() -> None:
    store = await rolled().store(rolled=True)
    await store.replace(key_of(280), b"damaged")
    with pytest.raises(DamagedObject) as caught:
        await log_of(store).stretch(257, 300, None)
    assert caught.value.subject == key_of(280)
