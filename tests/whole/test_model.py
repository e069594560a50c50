"""Random stories against the reference model: what the vault gives back is what was there."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.whole.model import (
    KINDS,
    Add,
    Event,
    Killed,
    Player,
    PowerFails,
    Protect,
    Remove,
    Resize,
    Revert,
    Story,
    Write,
)
from tests.whole.world import KIB, Tuning

EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))  # times as many examples

SIZES = st.one_of(
    st.integers(0, 48).map(lambda blocks: blocks * 4 * KIB),
    st.integers(1, 400_000),
    st.sampled_from([0, 1, 511, 4095, 4097, 65535, 65536, 65537]),
)
SEEDS = st.integers(0, 1 << 16)
DISKS = st.integers(0, 3)
WRITES = st.builds(
    Write, DISKS, st.integers(0, 100), st.integers(1, 40), st.sampled_from(KINDS), SEEDS
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    WRITES,
    WRITES,
    st.builds(Protect),
    st.builds(Killed, st.integers(0, 30), st.booleans(), st.booleans(), SEEDS),
    st.builds(
        Killed, st.integers(0, 12), st.just(value=False), st.booleans(), SEEDS, st.integers(0, 20)
    ),
    st.builds(PowerFails, st.integers(0, 200), st.booleans(), SEEDS),
    st.builds(Revert, DISKS, st.integers(0, 9)),
    st.builds(Resize, DISKS, SIZES),
    st.builds(Add, SIZES, st.booleans()),
    st.builds(Remove, DISKS),
)
TUNINGS = st.builds(
    Tuning,
    seal_bytes=st.sampled_from([4 * KIB, 64 * KIB, 1024 * KIB]),
    dedup=st.sampled_from([0, 1 << 9, 1 << 16]),
    inline=st.sampled_from([0, 8 * KIB, 256 * KIB]),
    in_flight=st.integers(1, 4),
)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    first: list[Event] = [Add(draw(SIZES), draw(st.booleans()))]
    events = first + draw(st.lists(EVENTS, min_size=4, max_size=24))
    return Story(
        tuple(events),
        seed=draw(SEEDS),
        tuning=draw(TUNINGS),
        pages=draw(st.booleans()),
        rollups=draw(st.booleans()),
        checkpoints=draw(st.booleans()),
    )


@given(stories())
@settings(
    max_examples=60 * EXPLORE,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_every_point_is_what_was_there(story: Story) -> None:
    Player(story).play()
