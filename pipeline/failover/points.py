"""Choosing the point of a failover, and whether the source was drained first."""

from __future__ import annotations

from pipeline.failover.model import Chosen, PointKind, Wanted
from stages.errors import UNREADABLE, DamagedObject, IllegalOperation
from stages.recover.opened import Group
from stages.recover.points import Choice, Point, as_point, choose, lost_after, newest_graded
from stages.vault.failovers import FailoverPoint

# A source at rest is at least as good as one whose applications were asked to hold still.
APP_GRADES = frozenset({"app", "planned", "quiet"})
DRAINED_GRADES = frozenset({"planned", "quiet"})


async def pick(group: Group, machine: str, wanted: Wanted) -> Chosen:
    """The point that is wanted. Raises ``NotFound`` or ``Damage``."""
    if wanted.kind is PointKind.LATEST_APP:
        choice = await newest_graded(group, machine, APP_GRADES)
    else:
        choice = await choose(group, machine, wanted.at if wanted.kind is PointKind.AT else None)
    return await _chosen(group, choice)


async def recorded(group: Group, point: FailoverPoint) -> Chosen:
    """The point that a record names. Raises ``DamagedObject`` if the log has another there."""
    commit = await group.log.signed(point.seq)
    if commit.link != point.digest:
        raise DamagedObject(
            "is not the commit that the failover was opened on",
            operation="read failover",
            subject=commit.container.key,
            hint="this is another history of the log: was the vault restored from an older copy?",
        )
    return await _chosen(group, Choice(as_point(commit.header, commit.link), ()))


async def newest_of(group: Group) -> Point | None:
    """The newest commit as a point, consistent or not; None if it cannot be read."""
    if not group.tail:
        return None
    try:
        commit = await group.log.signed(group.tail)
    except UNREADABLE:
        return None
    return as_point(commit.header, commit.link)


def check_drained(machine: str, group: Group, chosen: Chosen) -> None:
    """A planned failover loses nothing: the newest commit was made with the source at rest.

    Raises ``IllegalOperation`` if that does not show.
    """
    point = chosen.point
    if point.seq == group.tail and point.consistent and point.grade in DRAINED_GRADES:
        return
    raise IllegalOperation(
        f"the vault does not show that the source was drained: its newest commit is "
        f"#{group.tail}, point #{point.seq} is of class '{point.grade}'",
        operation="failover planned",
        subject=machine,
        hint="'backstay failover prepare', asked of the source's daemon, does that; or stop the "
        "guest, let the daemon ship the rest and stop it, and say --drained; if the source is "
        "lost: failover unplanned",
    )


def as_recorded(point: Point) -> FailoverPoint:
    """As it stands in a record."""
    return FailoverPoint(point.seq, point.digest, point.stamp)


async def _chosen(group: Group, choice: Choice) -> Chosen:
    lost = await lost_after(group, choice.point)
    return Chosen(choice.point, lost, choice.notes)
