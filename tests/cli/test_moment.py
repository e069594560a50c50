"""``--at``: numbers, times with zones to the microsecond, local times with a remark."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.moment import both_times, parse_at
from stages.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati")
_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@contextmanager
def local_zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@settings(deadline=None)
@given(moment=st.datetimes(timezones=_offsets | st.just(UTC)), style=st.sampled_from("T ZS"))
def test_a_time_with_a_zone_is_that_microsecond(moment: datetime, style: str) -> None:
    text = moment.isoformat(" " if style == " " else "T")
    if style == "Z" and moment.tzinfo is UTC:
        text = text.replace("+00:00", "Z")
    if style == "S":
        text = f"  {text} "
    assert parse_at(text) == (f"@{microseconds(moment)}", "")


@settings(deadline=None)
@given(
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)),
    zone=st.sampled_from(ZONES),
)
def test_a_time_without_one_is_local_and_says_so(moment: datetime, zone: str) -> None:
    with local_zone(zone):
        at, remark = parse_at(moment.isoformat())
        found = EPOCH + timedelta(microseconds=int(str(at)[1:]))
        local = found.astimezone()
    # In the hour that a change of clocks skips, local times are those of the time before it.
    assert abs(local.replace(tzinfo=None) - moment) <= timedelta(hours=1)
    assert "taken as local time" in remark
    assert remark.endswith(moment.astimezone(local.tzinfo).isoformat()[-6:])


@given(st.integers(0, 10**15 - 1), st.booleans())
def test_a_number_is_a_point(number: int, marked: bool) -> None:
    assert parse_at(f"{'#' if marked else ''}{number}") == (number, "")


@settings(deadline=None)
@given(st.text(max_size=30))
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    try:
        at, _ = parse_at(text)
    except UsageError as error:
        assert "2026-03-01" in error.hint
        assert error.subject == text
    else:
        assert isinstance(at, int) or str(at).startswith("@")


@pytest.mark.parametrize(
    "text",
    ["", "#", "noon", "#-1", "-5", "12.5", "#12a", "9" * 16, "0001-01-01", "9999-12-31T23:59:59"],
)
def test_what_is_no_time(text: str) -> None:
    zone = "Pacific/Kiritimati" if text.startswith("0") else "America/St_Johns"
    with local_zone(zone), pytest.raises(UsageError):
        parse_at(text)


def test_no_time_at_all_is_the_newest() -> None:
    assert parse_at(None) == (None, "")


def test_both_times() -> None:
    with local_zone("Europe/Berlin"):
        text = both_times(datetime(2026, 7, 1, 12, 30, 1, 5, tzinfo=UTC))
    assert text == "2026-07-01 12:30:01.000005 UTC (2026-07-01 14:30:01 CEST)"
