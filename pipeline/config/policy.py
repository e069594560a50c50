"""The section ``policies``: what is promised for machines, and when work is done for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.config.fields import (
    AS_DURATION,
    PRESENT,
    FilePath,
    duration,
    whole,
)
from pipeline.config.section import Section, elsewhere
from pipeline.config.units import Wrong, format_duration
from pipeline.config.when import ALWAYS, LOCAL, NOW, Moment, Window, Zone
from stages.keeper import retain as keeper

DAY = 86400


class Rpo(Section):
    """How old what is not protected yet may be before health says so. ``critical`` after
    ``warning``, in the file and in size."""

    warning: Annotated[int | float, duration(1, 7 * DAY), AS_DURATION] = 60
    critical: Annotated[int | float, duration(1, 30 * DAY), AS_DURATION] = 15 * 60


def _in_order(rpo: Rpo) -> Rpo:
    if rpo.critical < rpo.warning:
        raise Wrong(
            f'"critical" ({format_duration(rpo.critical)}) is less than "warning" '
            f"({format_duration(rpo.warning)})",
            "a warning comes first",
        )
    return rpo


class Points(Section):
    """Recovery points that are marked every so often, beside those of every commit."""

    every: Annotated[int | float, duration(10, 7 * DAY), AS_DURATION] = Field(examples=["5m"])


class AppConsistent(Section):
    """Points at which the applications hold still: ``pre`` freezes, ``post`` thaws. ``timeout`` for
    each of them."""

    every: Annotated[int | float, duration(60, 7 * DAY), AS_DURATION] = Field(examples=["1h"])
    pre: FilePath = Field(examples=["/etc/backstay/freeze"])
    post: FilePath = Field(examples=["/etc/backstay/thaw"])
    timeout: Annotated[int | float, duration(1, 3600), AS_DURATION] = 60


class Retention(Section):
    """What the keeper leaves of a machine's points: all of them for a while, then one of each hour,
    then one of each day. Held points stay whatever their age."""

    all: Annotated[int | float, duration(3600, 3650 * DAY), AS_DURATION] = DAY
    hourly: Annotated[int | float, duration(0, 3650 * DAY), AS_DURATION] = 7 * DAY
    daily: Annotated[int | float, duration(0, 36_500 * DAY), AS_DURATION] = 30 * DAY


def as_retention(section: Retention) -> keeper.Retention:
    """As the keeper takes it."""
    return keeper.Retention(float(section.all), float(section.hourly), float(section.daily))


ScrubDays = Annotated[int | Literal["off"], whole(1, 365, "off")]


class Policy(Section):
    """What is promised for a machine. ``resync_window``: "always" or "HH:MM-HH:MM" in ``timezone``,
    for full scans. ``scrub_days``: in which everything is compared again while it is replicated.
    """

    not_here = elsewhere(
        failover_point="is chosen when one fails over: backstay failover unplanned --point"
    )

    rpo: Annotated[Rpo, AfterValidator(_in_order)] = Rpo()
    timezone: Zone = LOCAL  # before what is told in it
    resync_window: Window = ALWAYS
    points: Annotated[Points | None, PRESENT] = None
    app_consistent: Annotated[AppConsistent | None, PRESENT] = None
    initial_replication: Moment = NOW
    scrub_days: ScrubDays = 7
    retention: Retention = Retention()


__all__ = ["AppConsistent", "Points", "Policy", "Retention", "Rpo", "as_retention"]
