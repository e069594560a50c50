"""Points by time: stamps rise, so they are bisected, damaged and forged commits passed over."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import DamagedObject
from tests.vault.chain import (
    STRANGER,
    Chain,
    commit,
    header,
    key_of,
    log_of,
    seventy,
    stamped,
)
from tests.vault.support import START


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
