"""Removing all of a group whose deletion is on record, but the record and the terms.

The wrapped keys go first: from then on nobody can read what is still there. There is nothing to be
taken up again after a crash: what is left to delete is found by listing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stages.stage import together
from stages.store.port import ObjectInfo, ObjectStore, walk
from stages.vault import layout

MOST_OBJECTS = 50_000_000
AT_ONCE = 16
_BATCH = 4096  # objects that are remembered at a time
_TERM = re.compile(r"epochs/[0-9]+/term")


@dataclass(frozen=True, slots=True)
class Size:
    """Objects and their bytes."""

    objects: int = 0
    bytes: int = 0

    def plus(self, infos: Sequence[ObjectInfo]) -> Size:
        """And these."""
        return Size(self.objects + len(infos), self.bytes + sum(each.size for each in infos))


def stays(group: bytes, key: str) -> bool:
    """What is left of a deleted group: the record, and the terms, which fence its writers."""
    rest = key.removeprefix(layout.group(group))
    return key == layout.deleted(group) or _TERM.fullmatch(rest) is not None


async def size_of(store: ObjectStore, group: bytes) -> Size:
    """What deleting would remove."""
    found = Size()
    async for info in walk(store, layout.group(group), most=MOST_OBJECTS):
        if not stays(group, info.key):
            found = found.plus([info])
    return found


async def erase(store: ObjectStore, group: bytes) -> Size:
    """Remove it all; what went. The deletion's record must be there. Raises ``StoreDenied``, store
    errors: then what is left goes with the next call."""
    folder = layout.group(group)
    gone = Size()
    for prefix in (f"{folder}epochs/", f"{folder}for/", folder):
        batch: list[ObjectInfo] = []
        async for info in walk(store, prefix, most=MOST_OBJECTS):
            if not stays(group, info.key):
                batch.append(info)
            if len(batch) == _BATCH:
                await _remove(store, batch)
                gone, batch = gone.plus(batch), []
        await _remove(store, batch)
        gone = gone.plus(batch)
    return gone


async def _remove(store: ObjectStore, batch: Sequence[ObjectInfo]) -> None:
    await together(batch, lambda each: store.delete(each.key), at_once=AT_ONCE)
