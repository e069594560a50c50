"""What a map begins with, before any commit is folded: a checkpoint, or its parent's map.

Pages of a checkpoint are fetched when they are first looked at; the map of a branch's parent is
opened when it is first wanted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import numpy as np
import trio

from stages.model import U64, distinct
from stages.recover.directory import NOTHING, Pages
from stages.recover.doubt import Doubt
from stages.vault.checkpoint import MAP, PAGE_ROWS, Manifest
from stages.vault.records import MachineRecord


class ParentMap(Protocol):
    """What a branch asks of the map that it begins with; ``PointMap`` answers."""

    machine: MachineRecord

    async def locations(self, disk: int, first: int, count: int) -> U64:
        """Locations (count,) of blocks. Raises ``Damage``."""
        ...

    async def gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,). Raises ``Damage``."""
        ...

    async def places(self, frames: U64) -> U64:
        """Directory rows (n, 2) of frames. Raises ``Damage``."""
        ...

    def take_doubt(self) -> Doubt | None:
        """What may be older than the point, once: who takes it closes it."""
        ...

    def close(self) -> None:
        """Release the scratch files."""
        ...


class Beneath:
    """Locations as a checkpoint or the parent has them; all zeros without either."""

    def __init__(self, pages: Pages, open_parent: Callable[[], Awaitable[ParentMap]]):
        self._pages = pages
        self._tables: dict[int, U64] = {}
        self._rows: dict[int, int] = {}
        self._open_parent = open_parent
        self._opening = trio.Lock()
        self._parent: ParentMap | None = None
        self._inherited: dict[int, int] = {}  # blocks of disks that are the parent's until written
        self._closed = False

    def adopt(self, manifest: Manifest) -> None:
        """Begin with a checkpoint."""
        for disk in manifest.disks:
            self._tables[disk.number] = disk.map
            self._rows[disk.number] = disk.blocks

    async def begin_at_parent(self) -> ParentMap:
        """Begin with the map of the point that a branch begins at. Raises ``Damage``."""
        parent = await self.parent()
        for disk in parent.machine.disks:
            self._inherited[disk.number] = disk.blocks
        return parent

    async def parent(self) -> ParentMap:
        """The map of the point that a branch begins at, opened once. Raises ``Damage``."""
        async with self._opening:
            if self._parent is None and not self._closed:
                self._parent = await self._open_parent()
            if self._closed or self._parent is None:
                self.close()
                raise trio.ClosedResourceError("this map was released")
            return self._parent

    async def places(self, frames: U64) -> U64:
        """Directory rows (n, 2) of the parent's frames. Raises ``Damage``."""
        return await (await self.parent()).places(frames)

    async def locations(self, disk: int, first: int, over: U64) -> U64:
        """Locations (count,) of blocks; only those are right that ``over`` (count,) has 0 for.

        Raises ``Damage``.
        """
        below = np.zeros(len(over), np.uint64)
        rows = min(len(over), max(0, self._rows.get(disk, 0) - first))
        at = 0
        while at < rows:
            page, low = divmod(first + at, PAGE_ROWS)
            step = min(PAGE_ROWS - low, rows - at)
            if not over[at : at + step].all():
                found = await self._page(disk, page)
                below[at : at + step] = found[low : low + step]
            at += step
        known = min(len(over), self._inherited.get(disk, 0) - first)
        if known > 0 and not over[:known].all():
            below[:known] = await (await self.parent()).locations(disk, first, known)
        return below

    async def gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,), any order. Raises ``Damage``."""
        values = np.zeros(len(blocks), np.uint64)
        known = np.flatnonzero(blocks < np.uint64(self._inherited.get(disk, 0)))
        if len(known):
            values[known] = await (await self.parent()).gather(disk, blocks[known])
        pages = blocks // np.uint64(PAGE_ROWS)
        for page in distinct(pages).tolist():
            if page < len(self._table(disk)):
                here = pages == page
                rows = await self._page(disk, page)
                values[here] = rows[(blocks[here] % np.uint64(PAGE_ROWS)).astype(np.int64)]
        return values

    def stored(self, disk: int, page: int) -> tuple[int, int, int] | None:
        """Where the checkpoint stores a page of locations; None if it is not stored at all."""
        table = self._table(disk)
        if page >= len(table) or not int(table[page, 2]):
            return None
        seq, place, length = table[page].tolist()
        return seq, place, length

    def close(self) -> None:
        """Release the parent's scratch files."""
        self._closed = True
        if self._parent is not None:
            self._parent.close()

    def _table(self, disk: int) -> U64:
        return self._tables.get(disk, NOTHING)

    async def _page(self, disk: int, page: int) -> U64:
        """Locations (PAGE_ROWS,); of a page stored before its disk grew the rest is unset."""
        rows = (await self._pages.get(MAP, disk, page, self._table(disk)))[:, 0]
        if len(rows) == PAGE_ROWS:
            return rows
        return np.concatenate((rows, np.zeros(PAGE_ROWS - len(rows), np.uint64)))
