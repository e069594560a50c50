"""Reading on although retention goes on: what is missing may have been moved, or let go on purpose.

Whoever reads longer than the keeper's grace meets objects that have gone. A reader remembers which
floors it has read under; where something is missing it looks at them again. If a newer floor still
offers the point, everything it needs is where that floor says, and is read from there; if not,
``Expired`` says so. Only what is missing under the newest floor is damage.
"""

from __future__ import annotations

from typing import TypeAlias

from stages.recover.opened import Group
from stages.vault.deletion import load_deletion
from stages.vault.floor_log import load_floor

TRIES = 8  # floors that one read follows: between two of them lies the grace

Floors: TypeAlias = tuple[int, ...]


def floors(group: Group) -> Floors:
    """Numbers of the floors under which a group is read, and those that it branches off."""
    found: list[int] = []
    at: Group | None = group
    while at is not None:
        found.append(at.log.floor.number if at.log.floor is not None else 0)
        at = at.parent
    return tuple(found)


async def moved_on(group: Group, seq: int | None, since: Floors) -> bool:
    """Has a floor come after ``since``? From now on the group is read under the newest.

    Raises ``Expired`` if it does not offer the point ``seq`` any more, or ``Deleted``, store
    errors.
    """
    at: Group | None = group
    while at is not None:
        await _look(at)
        if seq is not None:
            at.log.check_offered(seq)
        at = at.parent
        seq = at.tail if at is not None else None
    return floors(group)[: len(since)] != since


async def _look(group: Group) -> None:
    log = group.log
    if log.pinned:
        return
    deletion = await load_deletion(log.store, group.scope, group.ring.charter)
    if deletion is not None:
        raise deletion.error(group.scope.group, "read")
    found = (await load_floor(log.store, group.scope, group.ring.charter)).floor
    known = log.floor.number if log.floor is not None else 0
    if found is not None and found.number > known:  # one that is damaged since changes nothing
        log.floor = found
