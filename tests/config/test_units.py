"""Sizes and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Wrong, format_duration, format_size, parse_duration, parse_size
from pipeline.config.units import DURATION_UNITS, SIZE_UNITS


@given(st.integers(0, 1 << 60))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert parse_size(size) == size
    assert parse_size(str(size)) == size


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)), st.sampled_from(["", " "]))
def test_sizes_are_number_times_unit(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]
    assert parse_size(format_size(number * SIZE_UNITS[unit])) == number * SIZE_UNITS[unit]


@given(st.integers(0, 1 << 40))
def test_durations_survive_a_round_trip(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**6), st.sampled_from(sorted(DURATION_UNITS)))
def test_durations_are_number_times_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * DURATION_UNITS[unit])


@given(st.integers(0, 1 << 40))
def test_milliseconds_survive_a_round_trip(number: int) -> None:
    found = parse_duration(f"{number}ms")
    assert found == number / 1000
    assert parse_duration(format_duration(found)) == found
    assert isinstance(found, int) == (number % 1000 == 0)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.just([]))
def test_anything_else_is_wrong_and_nothing_worse(value: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(value) >= 0
        except Wrong as wrong:
            assert wrong.message.isprintable()
            assert wrong.hint.isprintable()


def test_examples() -> None:
    assert parse_size("16MiB") == 16 << 20
    assert parse_size("500KB") == 500_000
    assert parse_size("4 GiB") == 4 << 30
    assert format_size(4 << 20) == "4MiB"
    assert format_size(1000) == "1000"
    assert format_size(0) == "0"
    assert [parse_duration(text) for text in ("60s", "15m", "24h", "7d")] == [
        60,
        900,
        86_400,
        604_800,
    ]
    assert [format_duration(seconds) for seconds in (0, 60, 90, 7200, 604_800)] == [
        "0s",
        "1m",
        "90s",
        "2h",
        "7d",
    ]


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "1.5MiB", "1e3", "16M", "0x10", "1_000", "٣"])
def test_texts_that_are_no_sizes(text: str) -> None:
    with pytest.raises(Wrong):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["", "60", "s", "-1s", "1.5h", "1h30m", "1w", "60S", True, 60, None]
)
def test_values_that_are_no_durations(text: object) -> None:
    with pytest.raises(Wrong):
        parse_duration(text)
