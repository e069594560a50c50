"""Digests of a point's blocks: from its checkpoint where that still holds, else from the content.

A writer that goes on from a point, a branch's, needs them to tell what a disk holds that the vault
has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from stages.digests import DigestKeys, block_digests
from stages.errors import UNREADABLE
from stages.model import BLOCK, U64, UNKNOWN
from stages.model import ZERO as ZERO_DIGEST
from stages.ports import Machine
from stages.recover.checkpoints import nearest
from stages.recover.directory import Pages
from stages.recover.extract import Laid
from stages.recover.onto import differing
from stages.recover.pointmap import PointMap
from stages.recover.sweep import Sweep, Window, stretches
from stages.vault.checkpoint import DIGESTS, MAP, PAGE_ROWS, DiskPages
from stages.vault.location import ZERO


class KnownDigests:
    """Digests of the blocks of one point. ``opened`` counts blocks whose content was read."""

    def __init__(self, point: PointMap, machine: Machine, key: bytes, *, workers: int = 2):
        self.opened = 0
        self._point = point
        self._keys = DigestKeys.derive(key)
        self._pages = Pages(point.group)
        self._disks: dict[int, DiskPages] = {}
        self._sweep = Sweep(point, machine, workers=workers)

    async def begin(self) -> None:
        """Look for the checkpoint to go by; without one everything is read."""
        group = self._point.group
        manifest = await nearest(group, await group.log.signed(self._point.seq))
        if manifest is not None:
            self._disks = {disk.number: disk for disk in manifest.disks}

    async def of(self, window: Window) -> U64:
        """Digests (n, 2) of a window's blocks; unknown where content is damaged."""
        found = np.zeros((len(window.locations), 2), np.uint64)
        found[:] = UNKNOWN
        found[window.locations <= ZERO] = ZERO_DIGEST
        pages = self._disks.get(window.disk.number)
        if pages is not None:
            with suppress(*UNREADABLE):  # then the content tells
                await self._from_pages(window, pages, found)
        await self._from_content(window, found)
        return found

    async def _from_pages(self, window: Window, pages: DiskPages, found: U64) -> None:
        """A digest holds where the block is still where the checkpoint has it."""
        at, end = 0, min(len(found), pages.blocks - window.first)
        while at < end:
            page, low = divmod(window.first + at, PAGE_ROWS)
            step = min(PAGE_ROWS - low, end - at)
            here = window.locations[at : at + step]
            there = await self._rows(MAP, window.disk.number, page, pages.map)
            digests = await self._rows(DIGESTS, window.disk.number, page, pages.digests)
            same = np.flatnonzero((here > ZERO) & (here == there[low : low + step, 0]))
            found[at + same] = digests[low + same]
            at += step

    async def _rows(self, what: int, disk: int, page: int, table: U64) -> U64:
        rows = await self._pages.get(what, disk, page, table)
        if what == DIGESTS and not int(table[page, 2]):
            rows = np.column_stack((np.zeros(len(rows), np.uint64), rows[:, 1]))
        missing = PAGE_ROWS - len(rows)
        if missing:
            rows = np.concatenate((rows, np.zeros((missing, rows.shape[1]), np.uint64)))
        return rows

    async def _from_content(self, window: Window, found: U64) -> None:
        wanted = np.where((found == UNKNOWN).all(axis=1), window.locations, np.uint64(0))
        self.opened += int(np.count_nonzero(wanted))
        if not wanted.any():
            return

        def digest(room: memoryview, laid: Sequence[Laid]) -> None:
            for slot, block, count in stretches(laid):
                part = room[slot * BLOCK : (slot + count) * BLOCK]
                at = block - window.first
                full = differing(part, None)  # zeros have a digest of their own
                found[at : at + count] = ZERO_DIGEST
                found[at + full] = block_digests(part, full.tolist(), self._keys)

        await self._sweep.extract(Window(window.disk, window.first, wanted), digest)
