"""Which rate holds when, by the limits of a vault. Pure but for the rules of the time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from pipeline.config.limit import UNLIMITED, Limit, days_of
from pipeline.config.when import window_minutes, zone_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
DAY_MINUTES = 24 * 60

Rate = int | None
"""Bytes a second; None: no limit."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Minutes of the day from ``start`` to before ``stop``, on ``days`` (0 is Monday), as a wall
    clock shows them. If they go across midnight, the part behind it belongs to the day before."""

    days: frozenset[int]
    start: int
    stop: int

    def hold(self, local: datetime) -> bool:
        """At this time of the zone's wall clock."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.stop:
            return day in self.days and self.start <= minute < self.stop
        if minute >= self.start:
            return day in self.days
        return minute < self.stop and (day - 1) % 7 in self.days


@dataclass(frozen=True, slots=True)
class Rates:
    """The schedule of one direction."""

    rows: tuple[tuple[Hours, Rate], ...]
    otherwise: Rate
    zone: tzinfo

    def at(self, wall_us: int) -> Rate:
        """What holds at a time in microseconds since 1970 UTC."""
        if not self.rows:
            return self.otherwise
        local = (_EPOCH + wall_us * _US).astimezone(self.zone)
        return next((rate for hours, rate in self.rows if hours.hold(local)), self.otherwise)


def rates_of(limit: Limit) -> tuple[Rates, Rates]:
    """Of uploads and of downloads. Reads the zone's rules: make them anew after a reload."""
    zone = zone_of(limit.timezone)
    up: list[tuple[Hours, Rate]] = []
    down: list[tuple[Hours, Rate]] = []
    for row in limit.schedule:
        hours = Hours(days_of(row.days), *window_minutes(row.hours))
        up.append((hours, _bytes(limit.upload if row.upload is None else row.upload)))
        down.append((hours, _bytes(limit.download if row.download is None else row.download)))
    upload, download = _bytes(limit.upload), _bytes(limit.download)
    return Rates(tuple(up), upload, zone), Rates(tuple(down), download, zone)


def _bytes(rate: int | str) -> Rate:
    return None if rate == UNLIMITED or isinstance(rate, str) else rate
