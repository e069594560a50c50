"""Where a branch comes from: the groups before it, each opened at the point that it was left at.

A branch begins with what its parent held at one commit. The parent's later commits are not part of
it. Epochs tell whose a frame is: those of a branch begin above the epoch of its parent's commit, so
every location names its group, however many branches follow one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from stages.errors import UNREADABLE, BrokenChain, DamagedObject
from stages.recover.listing import read_record
from stages.recover.opened import Group
from stages.vault import layout
from stages.vault.log import Log
from stages.vault.terms import KeyRing

MAX_DEPTH = 64  # branches of branches


async def parent_of(group: Group) -> Group | None:
    """The group that a branch begins in, its ``tail`` the point it begins at; opened once.

    Raises ``Damage`` naming the parent's object, or ``BrokenChain`` if that is another history.
    """
    parent = group.record.parent
    if parent is None:
        return None
    if group.parent is None:
        below = (*group.below, group.scope.group)
        if parent.group in below:
            raise _impossible(group, "it is a branch of itself")
        if len(below) > MAX_DEPTH:
            raise _impossible(group, f"more than {MAX_DEPTH} branches follow one another")
        store, ring = group.log.store, group.ring
        scope = replace(group.scope, group=parent.group)
        log = Log(store, scope, KeyRing(store, scope, ring.charter, ring.box, ring.uses))
        record = await read_record(store, scope, ring.charter)
        log.begin_at(record.parent)
        found = Group(scope, record, log.ring, log, parent.seq, below=below)
        await found.look_at_floor()
        commit = await log.signed(parent.seq)
        if commit.link != parent.digest:
            raise BrokenChain(
                f"is not the commit that branch {group.scope.group.hex()} begins at",
                operation="read branch",
                subject=commit.container.key,
            )
        group.above = commit.header.epoch
        group.parent = found
    return group.parent


async def owner(group: Group, epoch: int) -> Group:
    """The group whose frames an epoch has, as a map of ``group`` names it. Raises ``Damage``."""
    while True:
        try:
            parent = await parent_of(group)
        except UNREADABLE:
            # What a branch has written itself needs nothing of its parent.
            if epoch >= await _first_epoch(group):
                return group
            raise
        if parent is None or epoch > group.above:
            return group
        group = parent


async def others_epochs(group: Group, epochs: Iterable[int]) -> dict[int, bytes]:
    """By epoch the groups of those epochs that are not ``group``'s own.

    One whose owner cannot be told is left out: whoever opens its frames asks ``owner``, and learns
    why.
    """
    found = {}
    if group.record.parent is not None:
        for epoch in epochs:
            with suppress(*UNREADABLE):
                found[epoch] = (await owner(group, epoch)).scope.group
    return found


async def _first_epoch(group: Group) -> int:
    return (await group.log.signed(1)).header.epoch


def _impossible(group: Group, what: str) -> DamagedObject:
    return DamagedObject(
        what,
        operation="read branch",
        subject=layout.group_record(group.scope.group),
        hint="its record was written by something other than this program",
    )
