"""Writing rollups that are missing: a writer that died before it could makes only its newest.

A rollup is a copy that needs no key and no signature: each commit in it proves itself. So a keeper
may make it. (A checkpoint it may not: readers believe those of admitted writers only.) It is
create-only and always the same bytes: a crash, or two who make it, do no harm. Where it stands in
for commits before the floor those go with the next run, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stages.errors import UNREADABLE
from stages.recover.opened import Group
from stages.store.port import Put
from stages.vault import layout, rollup


@dataclass
class Rolled:
    """How many were made, and what could not be."""

    count: int = 0
    notes: list[str] = field(default_factory=list)


async def make_rollups(group: Group, ends: Sequence[int]) -> Rolled:
    """Write the rollups of these ends from the commits themselves, proven to be a chain that an
    admitted writer has signed. One that cannot be read is passed over and noted."""
    found = Rolled()
    log = group.log
    for end in ends:
        key = layout.rollup(group.scope.group, end)
        try:
            commits = await log.stretch(end - rollup.SPAN + 1, end, None, rollups=False)
        except UNREADABLE as error:
            found.notes.append(f"{key} cannot be made: {error}")
            continue
        parts = rollup.encode([commit.head for commit in commits])
        size = sum(len(part) for part in parts)
        if size <= rollup.MAX_SIZE and await log.store.put(key, parts) is Put.CREATED:
            found.count += 1
    return found
