"""Which rate holds when: days, hours across midnight, changes of clocks, which row counts."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.limit import DAYS, Limit, days_of
from pipeline.policy.rates import Hours, Rates, rates_of

MB = 10**6


def _us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1e6)  # type: ignore[misc,arg-type]


def _rates(*rows: dict[str, str], upload: str = "unlimited") -> tuple[Rates, Rates]:
    found = {"timezone": "Europe/Berlin", "upload": upload, "schedule": list(rows)}
    return rates_of(Limit.model_validate(found))


def test_the_first_row_that_holds_counts() -> None:
    upload, download = _rates(
        {"days": "mon-fri", "hours": "08:00-18:00", "upload": "5MB/s"},
        {"days": "sat,sun", "upload": "unlimited", "download": "1MB/s"},
        {"hours": "12:00-13:00", "upload": "1MB/s"},
        upload="20MB/s",
    )
    assert upload.at(_us(2026, 11, 26, 6, 59, 59)) == 20 * MB  # Thursday, 07:59:59 there
    assert upload.at(_us(2026, 11, 26, 7)) == 5 * MB
    assert upload.at(_us(2026, 11, 26, 11, 30)) == 5 * MB
    assert upload.at(_us(2026, 11, 26, 16, 59, 59)) == 5 * MB
    assert upload.at(_us(2026, 11, 26, 17)) == 20 * MB
    assert upload.at(_us(2026, 11, 28, 11, 30)) is None
    assert download.at(_us(2026, 11, 28, 11, 30)) == MB
    assert download.at(_us(2026, 11, 26, 11, 30)) is None


def test_nothing_said_is_no_limit() -> None:
    for rates in rates_of(Limit()):
        assert rates.at(_us(2026, 1, 1)) is None


def test_hours_across_midnight_belong_to_the_day_on_which_they_begin() -> None:
    hours = Hours(days_of("fri"), 22 * 60, 6 * 60)
    assert not hours.hold(datetime(2026, 11, 27, 5, 59, tzinfo=UTC))  # Friday
    assert not hours.hold(datetime(2026, 11, 27, 21, 59, tzinfo=UTC))
    assert hours.hold(datetime(2026, 11, 27, 22, tzinfo=UTC))
    assert hours.hold(datetime(2026, 11, 28, 5, 59, tzinfo=UTC))
    assert not hours.hold(datetime(2026, 11, 28, 6, tzinfo=UTC))
    assert not hours.hold(datetime(2026, 11, 28, 22, tzinfo=UTC))


def test_a_change_of_clocks_is_what_the_wall_shows() -> None:
    upload, _ = _rates({"hours": "02:00-03:00", "upload": "1MB/s"})
    day = [upload.at(_us(2026, 3, 29, 0) + minute * 60_000_000) for minute in range(0, 180, 10)]
    assert day == [None] * 18  # the hour does not come
    day = [upload.at(_us(2026, 10, 25, 0) + minute * 60_000_000) for minute in range(0, 180, 10)]
    assert day == [MB] * 12 + [None] * 6  # it comes twice


@given(st.sampled_from(DAYS), st.sampled_from(DAYS))
def test_days_from_to(first: str, last: str) -> None:
    found = days_of(f"{first}-{last}")
    at = DAYS.index(first)
    for step in range(len(found)):
        assert (at + step) % 7 in found
    assert (at + len(found) - 1) % 7 == DAYS.index(last)
    assert days_of(f"{first},{last}") == {DAYS.index(first), DAYS.index(last)}
