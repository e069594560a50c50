"""The end of a log: found without a list, and never taken from a hole or a stranger."""

from __future__ import annotations

import pytest

from stages.errors import BrokenChain, DamagedObject, MissingData, NotAdmitted, UnknownVersion
from stages.vault import layout
from stages.vault.commits import PARALLEL
from tests.vault.chain import (
    BOTH,
    OTHER,
    STRANGER,
    Chain,
    CountingStore,
    commit,
    header,
    key_of,
    log_of,
    put_term,
    seventy,
)


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
    assert store.infos <= 18 * PARALLEL


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


async def test_a_lost_term_is_noted_and_keeps_nothing_from_being_read() -> None:
    chain = Chain(seventy().objects[:3]).add(1, epoch=2)
    store = await chain.store()
    log = log_of(store)
    assert await log.tail() == 4
    assert (await log.signed(4)).header.epoch == 2
    assert len(await log.stretch(1, 4, None)) == 4
    assert [layout.term(log.scope.group, 2) in note for note in log.ignored] == [True]
