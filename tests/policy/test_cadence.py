"""Marks are due: whatever the clocks do, no storm, and no silence beyond the interval."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.policy.cadence import RETRY_SECONDS, Cadence

EVERY = st.floats(10, 7 * 86400)


@given(
    EVERY,
    st.integers(0, 2**60),
    st.none() | st.integers(0, 2**60),
    st.lists(st.tuples(st.floats(0.1, 200_000), st.sampled_from(["made", "failed"])), max_size=60),
)
def test_never_a_storm_and_never_silence(
    every: float, wall_us: int, last_us: int | None, steps: list[tuple[float, str]]
) -> None:
    """Each step: that long passes, by the monotonic clock, and what is due is tried."""
    now = 1000.0
    cadence = Cadence.begin(every, now, wall_us, last_us)
    assert 0 <= cadence.wait(now) <= every
    tries: list[float] = []
    for seconds, outcome in steps:
        now += seconds
        if cadence.wait(now):
            continue
        tries.append(now)
        cadence = cadence.made(now) if outcome == "made" else cadence.failed(now)
        assert 0 < cadence.wait(now) <= every + 1e-6
        if outcome == "failed":
            assert cadence.wait(now) <= RETRY_SECONDS + 1e-6


@given(EVERY, st.integers(1, 200))
def test_with_small_steps_the_rhythm_is_kept(every: float, rounds: int) -> None:
    cadence = Cadence.begin(every, 0.0, 0, None)
    made = 0
    for number in range(rounds * 4):
        now = number * every / 4
        if not cadence.wait(now):
            made += 1
            cadence = cadence.made(now)
    assert rounds - 1 <= made <= rounds + 1


def test_what_was_before_a_start_counts() -> None:
    minute = 60_000_000
    assert Cadence.begin(300, 50, 10 * minute, 8 * minute).wait(50) == 180
    assert Cadence.begin(300, 50, 10 * minute, 2 * minute).wait(50) == 0
    # The clock was set back meanwhile: an interval from now, not an age.
    assert Cadence.begin(300, 50, 10 * minute, 9000 * minute).wait(50) == 300


def test_an_interval_that_changes() -> None:
    cadence = Cadence(3600, 4000)
    assert cadence.changed(300, 1000).wait(1000) == 300
    assert cadence.changed(7200, 1000).wait(1000) == 3000
    assert cadence.changed(3600, 1000) is cadence
