"""Commits in order: read only where they prove each other."""

from __future__ import annotations

import pytest

from stages.errors import BrokenChain, DamagedObject, NotAdmitted, UnknownVersion
from stages.vault.commits import Commit
from tests.vault.chain import (
    STRANGER,
    Chain,
    commit,
    header,
    key_of,
    log_of,
    put_term,
    seventy,
)
from tests.vault.support import START


def links(commits: list[Commit]) -> list[bytes]:
    return [each.link for each in commits]


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
