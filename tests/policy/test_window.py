"""Resync windows: against a clock that is looked at every minute, through changes of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.policy.window import Window

MINUTE = 60_000_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Apia",  # skipped a day
    "Africa/Casablanca",
    "America/Santiago",  # at midnight
]


def _us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1e6)  # type: ignore[misc,arg-type]


def _shown(window: Window, at_us: int) -> int:
    local = datetime.fromtimestamp(at_us / 1e6, UTC).astimezone(window.zone)
    return local.hour * 60 + local.minute


def _oracle(window: Window, at_us: int) -> bool:
    """By walking from the start to the stop on the dial."""
    shown = _shown(window, at_us)
    return (shown - window.start) % 1440 < (window.stop - window.start) % 1440


WINDOWS = st.builds(
    Window,
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from(ZONES).map(ZoneInfo),
).filter(lambda window: window.start != window.stop)
# Around changes of clocks of several years, and anywhere.
TIMES = st.one_of(
    st.integers(_us(2020, 1, 1), _us(2030, 1, 1)),
    st.sampled_from(
        [
            _us(2026, 3, 29, 1),
            _us(2026, 10, 25, 1),
            _us(2026, 3, 8, 7),
            _us(2026, 11, 1, 6),
            _us(2026, 4, 4, 15),
            _us(2026, 10, 3, 15, 30),
            _us(2011, 12, 30, 10),
            _us(2026, 9, 6, 4),
        ]
    ).flatmap(lambda at: st.integers(at - 1500 * MINUTE, at + 300 * MINUTE)),
)


@settings(deadline=None, max_examples=150)
@given(WINDOWS, TIMES)
@example(Window(150, 300, ZoneInfo("Europe/Berlin")), _us(2026, 3, 29, 0, 10))
@example(Window(60, 150, ZoneInfo("Europe/Berlin")), _us(2026, 10, 25, 0, 45))
def test_it_opens_at_the_first_minute_at_which_it_is_open(window: Window, at: int) -> None:
    assert window.is_open(at) == _oracle(window, at)
    found = window.next_opening(at)
    assert found >= at
    if window.is_open(at):
        assert found == at
        return
    next_minute = at - at % MINUTE + MINUTE
    week = range(next_minute, next_minute + 7 * 24 * 60 * MINUTE, MINUTE)
    assert found == next(look for look in week if _oracle(window, look))
    assert window.is_open(found)


def test_across_midnight() -> None:
    window = Window(1110, 360, UTC)
    assert window.is_open(_us(2026, 1, 1, 18, 30))
    assert window.is_open(_us(2026, 1, 1, 23, 59, 59))
    assert window.is_open(_us(2026, 1, 2, 5, 59, 59))
    assert not window.is_open(_us(2026, 1, 2, 6))
    assert window.next_opening(_us(2026, 1, 2, 6)) == _us(2026, 1, 2, 18, 30)


def test_a_start_that_is_skipped() -> None:
    window = Window(150, 300, ZoneInfo("Europe/Berlin"))  # 02:30, which 2026-03-29 has not
    assert window.next_opening(_us(2026, 3, 29, 0)) == _us(2026, 3, 29, 1)


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    window = Window(60, 150, ZoneInfo("Europe/Berlin"))
    closed = _us(2026, 10, 25, 0, 30)  # 02:30 the first time
    assert not window.is_open(closed)
    assert window.next_opening(closed) == _us(2026, 10, 25, 1)  # 02:00 the second time


def test_to_the_end_of_the_day_and_always() -> None:
    late = Window(1320, 1440, UTC)
    assert late.is_open(_us(2026, 1, 1, 23, 59))
    assert not late.is_open(_us(2026, 1, 2))
    always = Window(0, 1440, UTC)
    assert always.always
    assert always.next_opening(_us(2026, 1, 2)) == _us(2026, 1, 2)


@pytest.mark.parametrize("zone", ZONES)
def test_it_is_open_some_time_of_every_three_days(zone: str) -> None:
    window = Window(150, 180, ZoneInfo(zone))
    at = _us(2026, 1, 1)
    while at < _us(2027, 1, 1):
        opens = window.next_opening(at)
        assert opens - at < timedelta(days=3) // timedelta(microseconds=1)
        at = opens + 31 * MINUTE
