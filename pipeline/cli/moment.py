"""``--at``: a point's number or a time, whose zone is always said."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from stages.errors import UsageError

_NUMBER = re.compile(r"#?([0-9]{1,15})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_at(text: str | None) -> tuple[int | str | None, str]:
    """Return what ``choose`` takes, and a remark on the zone that was taken (or "").

    "#12" or "12" is a point; otherwise an ISO 8601 time. A time without a zone is local.
    """
    if text is None:
        return None, ""
    number = _NUMBER.fullmatch(text.strip())
    if number:
        return int(number.group(1)), ""
    try:
        given = datetime.fromisoformat(text.strip())
        moment = given if given.tzinfo is not None else given.astimezone()
    except (ValueError, OverflowError):  # the latter: local time beyond year 1 or 9999
        raise UsageError(
            "neither a point nor a time",
            operation="--at",
            subject=text,
            hint="give '#12', or a time like 2026-03-01T12:00:00Z or '2026-03-01 12:00:00+01:00'",
        ) from None
    remark = ""
    if given.tzinfo is None:
        remark = f"--at has no zone: taken as local time, {moment.isoformat()}"
    return f"@{(moment - _EPOCH) // timedelta(microseconds=1)}", remark


def both_times(moment: datetime) -> str:
    """A time in UTC and in local time."""
    local = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC ({local:%Y-%m-%d %H:%M:%S %Z})"
