"""The section ``limit`` of a vault: how many bytes a second may go there and come from there, and
when. It is shared by all machines of the vault, fairly."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, PlainValidator

from pipeline.config.fields import text
from pipeline.config.problems import quote
from pipeline.config.section import Section
from pipeline.config.units import Wrong, format_rate, parse_rate
from pipeline.config.when import ALWAYS, LOCAL, Window, Zone

UNLIMITED = "unlimited"
MIN_RATE = 16 << 10  # bytes a second: below it a commit takes minutes
MAX_RATE = 1 << 40
MAX_ROWS = 64

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAILY = "daily"

_DAY = "|".join(DAYS)
_PART = re.compile(rf"({_DAY})(?:-({_DAY}))?")
_EXAMPLE = 'for example "mon-fri" or "sat,sun"'


def _rate(value: object) -> int | str:
    if value == UNLIMITED:
        return UNLIMITED
    found = parse_rate(value)
    if not MIN_RATE <= found <= MAX_RATE:
        bounds = f"from {format_rate(MIN_RATE)} to {format_rate(MAX_RATE)}"
        raise Wrong(f"must be {bounds}, not {str(value).strip()}", f'or "{UNLIMITED}"')
    return found


def days_of(value: object) -> frozenset[int]:
    """Days of the week of a validated ``days``, 0 for Monday. Raises ``Wrong``."""
    given = text(value).strip()
    if given == DAILY:
        return frozenset(range(7))
    found: set[int] = set()
    for part in given.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise Wrong(f"{quote(part.strip())} is not a day of the week, or several", _EXAMPLE)
        first = DAYS.index(match[1])
        last = DAYS.index(match[2] or match[1])
        found.update((first + at) % 7 for at in range((last - first) % 7 + 1))
    return frozenset(found)


def _days(value: object) -> str:
    days_of(value)
    return text(value).strip()


def _shown(rate: int | str) -> str:
    return rate if isinstance(rate, str) else format_rate(rate)


Rate = Annotated[
    int | Literal["unlimited"], PlainValidator(_rate), PlainSerializer(_shown, return_type=str)
]
Days = Annotated[str, PlainValidator(_days)]


class LimitRow(Section):
    """What holds on some days at some hours instead; of several rows that do, the first one counts.
    Hours across midnight belong to the day on which they begin."""

    days: Days = DAILY
    hours: Window = ALWAYS
    upload: Rate | None = None
    download: Rate | None = None


class Limit(Section):
    """``upload`` and ``download`` in bytes a second. What is left out is not limited; what a row of
    the schedule leaves out is what is said here."""

    timezone: Zone = LOCAL
    upload: Rate = "unlimited"
    download: Rate = "unlimited"
    schedule: Annotated[tuple[LimitRow, ...], Field(max_length=MAX_ROWS)] = ()


__all__ = ["DAILY", "UNLIMITED", "Limit", "LimitRow", "days_of"]
