"""A window of the day in a time zone: is it open, and when does it open next? Pure.

A window is what a wall clock there shows, from its start to before its stop. So where a change of
clocks skips the start it opens when the clock has jumped over it, and where an hour comes twice it
is open in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

_STEP = timedelta(minutes=30)  # two changes of clocks are further apart
_HORIZON = timedelta(days=5)  # a window opens every day that has its time; zones have skipped days
_US = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """From minute ``start`` of the day to minute ``stop``; across midnight if that is not later."""

    start: int
    stop: int
    zone: tzinfo

    @property
    def always(self) -> bool:
        """It never closes."""
        return self.start == 0 and self.stop == DAY_MINUTES

    def is_open(self, at_us: int) -> bool:
        """At a time in microseconds since 1970 UTC."""
        return self._open(_EPOCH + at_us * _US)

    def next_opening(self, at_us: int) -> int:
        """The first time from ``at_us`` on at which it is open, both in microseconds; ``at_us``
        itself if it is open then."""
        at = _EPOCH + at_us * _US
        if self._open(at):
            return at_us
        # It can only open at its start, or when clocks are changed.
        edges = [*self._starts(at), *self._changes(at)]
        opens = min((edge for edge in edges if edge > at and self._open(edge)), default=None)
        # Without one the zone has skipped days: look again later.
        return ((opens or at + _HORIZON) - _EPOCH) // _US

    def _open(self, at: datetime) -> bool:
        if self.always:
            return True
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        if self.start < self.stop:
            return self.start <= minute < self.stop
        return minute >= self.start or minute < self.stop

    def _starts(self, at: datetime) -> Iterator[datetime]:
        first = at.astimezone(self.zone).date()
        clock = time(self.start // 60, self.start % 60)
        for days in range(-1, _HORIZON.days + 1):
            day = first + timedelta(days=days)
            for fold in (0, 1):
                local = datetime.combine(day, clock.replace(fold=fold), self.zone)
                yield local.astimezone(UTC)

    def _changes(self, at: datetime) -> Iterator[datetime]:
        """When the zone's clocks are changed, to the second."""
        before, stop = at, at + _HORIZON
        while before < stop:
            after = before + _STEP
            if self._offset(before) != self._offset(after):
                yield self._change(before, after)
            before = after

    def _change(self, low: datetime, high: datetime) -> datetime:
        was = self._offset(low)
        low = low.replace(microsecond=0)
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
            low, high = (middle, high) if self._offset(middle) == was else (low, middle)
        return high.replace(microsecond=0)

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()
