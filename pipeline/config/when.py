"""Times as people write them: zones, windows of the day, a moment to come.

Validators raise ``Wrong``, like those in ``fields``.
"""

from __future__ import annotations

import os
import re
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from pipeline.config.fields import Place, text
from pipeline.config.problems import quote, suggest
from pipeline.config.units import Wrong

LOCAL = "local"
ALWAYS = "always"
NOW = "now"
MAX_AHEAD = timedelta(days=7)
DAY_MINUTES = 24 * 60

_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}")
_WINDOW_EXAMPLE = 'for example "18:30-06:00"'
_MOMENT_EXAMPLE = 'for example "2026-12-01 22:00"'
_LOCAL_TIME = "/etc/localtime"


def zone_of(name: str) -> tzinfo:
    """The time zone of a validated ``timezone``; "local" is that of this machine. Reads its rules
    (also when they change), so ask again after a reload. Raises ``Wrong``."""
    if name == LOCAL:
        return _local_zone()
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones() | {LOCAL}
        raise Wrong(f"{quote(name)} is not a time zone", suggest(name, known)) from None


def window_minutes(value: object) -> tuple[int, int]:
    """Minutes of the day at which a window opens and closes; across midnight if the second is not
    later than the first. (0, 1440) for "always". Raises ``Wrong``."""
    given = text(value)
    if given == ALWAYS:
        return 0, DAY_MINUTES
    match = _WINDOW.fullmatch(given.strip())
    if match is None:
        raise Wrong(f"{quote(given)} is not a window of the day", _WINDOW_EXAMPLE)
    hours = [int(part) for part in match.groups()]
    start, stop = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if hours[1] > 59 or hours[3] > 59 or start >= DAY_MINUTES or stop > DAY_MINUTES:
        raise Wrong(f"{quote(given)} has a time that no day has", "from 00:00 to 24:00")
    if start == stop:
        raise Wrong(f"{quote(given)} is empty", f'write "{ALWAYS}" for a window without end')
    return start, stop


def moment_us(value: str, zone: tzinfo) -> int | None:
    """Microseconds since 1970 UTC of a validated ``initial_replication``; None for "now". A time
    that a change of clocks skips is moved on by what it skips; of two, the first."""
    if value == NOW:
        return None
    moment = datetime.strptime(value, "%Y-%m-%d %H:%M").replace(tzinfo=zone)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _local_zone() -> tzinfo:
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return zoneinfo.ZoneInfo(name)
        with open(_LOCAL_TIME, "rb") as rules:  # noqa: PTH123 - zoneinfo reads it
            return zoneinfo.ZoneInfo.from_file(rules, key=LOCAL)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _zone(value: object) -> str:
    name = text(value)
    zone_of(name)
    return name


def _window(value: object) -> str:
    start, stop = window_minutes(value)
    if (start, stop) == (0, DAY_MINUTES):
        return ALWAYS
    return f"{start // 60:02}:{start % 60:02}-{stop // 60:02}:{stop % 60:02}"


def _moment(value: object, info: ValidationInfo) -> str:
    """Checked after ``timezone``. What has passed is as good as "now": the file stays as it is when
    the time has come."""
    given = text(value)
    if given == NOW:
        return given
    if _MOMENT.fullmatch(given) is None:
        raise Wrong(f'must be "{NOW}" or a time, not {quote(given)}', _MOMENT_EXAMPLE)
    try:
        at = datetime.strptime(given, "%Y-%m-%d %H:%M")
    except ValueError:
        raise Wrong(f"{quote(given)} is not a time", _MOMENT_EXAMPLE) from None
    if at.year < 1971 or at.year > 9000:
        raise Wrong(f"{quote(given)} is not a time", _MOMENT_EXAMPLE)
    place = info.context
    if isinstance(place, Place):  # read from a file, now
        zone = zone_of(info.data.get("timezone", LOCAL))
        ahead = at.replace(tzinfo=zone) - datetime.fromtimestamp(place.now, UTC)
        if ahead > MAX_AHEAD:
            raise Wrong(f"{quote(given)} is more than 7 days ahead", "choose an earlier time")
    return given


Zone = Annotated[str, PlainValidator(_zone)]
Window = Annotated[str, PlainValidator(_window)]
Moment = Annotated[str, PlainValidator(_moment)]
