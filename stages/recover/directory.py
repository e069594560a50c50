"""Where a point's frames are: pages of its checkpoint, rows of the commits after it.

And the cache through which all pages of a checkpoint are read, each when it is first looked at.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from stages.errors import DamagedObject
from stages.model import U64, Ints, empty_u64
from stages.recover.checkpoints import fetch_page
from stages.recover.opened import Group
from stages.vault import checkpoint, location
from stages.vault.checkpoint import FRAMES, EpochPages, PageName
from stages.vault.commit import Header, SegmentIndex

PAGE_CACHE = 24 << 20
NOTHING = np.zeros((0, 3), np.uint64)  # a table of no pages


class Pages:
    """Checkpoint pages, bounded in bytes. Calls may run side by side."""

    def __init__(self, group: Group):
        self._group = group
        self._pages: OrderedDict[tuple[int, int, int], U64] = OrderedDict()
        self._cached = 0

    async def get(self, what: int, owner: int, page: int, table: U64) -> U64:
        """The rows (n, columns) of a page that a manifest's ``table`` names. Raises ``Damage``."""
        name = (what, owner, page)
        cached = self._pages.get(name)
        if cached is not None:
            self._pages.move_to_end(name)
            return cached
        seq, place, length = table[page].tolist()
        if length:
            rows = await fetch_page(self._group, PageName(what, owner, page, seq), place, length)
        else:
            rows = np.full((checkpoint.PAGE_ROWS, checkpoint.COLUMNS[what]), place, np.uint64)
        if name not in self._pages:  # two may have asked for it
            self._pages[name] = rows
            self._cached += rows.nbytes
        while self._cached > PAGE_CACHE and len(self._pages) > 1:
            self._cached -= self._pages.popitem(last=False)[1].nbytes
        return rows


@dataclass
class _Frames:
    """One epoch's frames: the checkpoint's table, and rows from some frame numbers on."""

    table: U64 = field(default_factory=lambda: NOTHING)
    first: list[int] = field(default_factory=list)
    rows: list[U64] = field(default_factory=list)
    _starts: U64 = field(default_factory=empty_u64)

    def starts(self) -> U64:
        """``first`` as a column."""
        if len(self._starts) != len(self.first):
            self._starts = np.array(self.first, np.uint64)
        return self._starts


class Directory:
    """Directory rows of all frames. ``subject``: what is damaged if a frame is not known."""

    def __init__(self, pages: Pages, subject: str):
        self._pages = pages
        self.subject = subject
        self._frames: dict[int, _Frames] = {}
        self._below: Callable[[U64], Awaitable[U64]] | None = None

    def begin_at(self, places: Callable[[U64], Awaitable[U64]]) -> None:
        """Frames of epochs that are not known here are the parent's: ``places`` knows them."""
        self._below = places

    def adopt(self, pages: EpochPages) -> None:
        """Begin with what a checkpoint knows of an epoch."""
        self._frames[pages.epoch] = _Frames(pages.table)

    def add(self, header: Header, segments: tuple[SegmentIndex, ...]) -> None:
        """Take in the frames of one more commit."""
        at = header.first_frame
        frames = self._frames.setdefault(header.epoch, _Frames())
        for segment in segments:
            if len(segment.spans):
                inline = segment.source < 0
                number = header.seq if inline else header.objects[segment.source].number
                frames.first.append(at)
                frames.rows.append(location.places(number, inline, segment.spans))
                at += len(segment.spans)

    async def places(self, frames: U64) -> U64:
        """Rows (n, 2) of frames given as ``location.frame_of`` numbers, ascending."""
        found = np.zeros((len(frames), 2), np.uint64)
        epochs = frames >> np.uint64(32)
        numbers = frames & np.uint64(0xFFFFFFFF)
        for epoch, here in _groups(epochs):
            known = self._frames.get(epoch)
            if known is None and self._below is not None:
                found[here] = await self._below(frames[here])
                continue
            if known is None:
                what = f"the map names unknown epoch {epoch}"
                raise DamagedObject(what, subject=self.subject)
            found[here] = await self._of_epoch(epoch, known, numbers[here])
        return found

    async def _of_epoch(self, epoch: int, known: _Frames, numbers: U64) -> U64:
        found = np.zeros((len(numbers), 2), np.uint64)
        which = known.starts().searchsorted(numbers, side="right").astype(np.int64) - 1
        for at, here in _groups(which):
            if at >= 0:
                rows = known.rows[at]
                offset = (numbers[here] - np.uint64(known.first[at])).astype(np.int64)
                if (offset < len(rows)).all():
                    found[here] = rows[offset]
                    continue
            found[here] = await self._checkpointed(epoch, known, numbers[here])
        if not found[:, 1].all():
            what = f"the map names unknown frames of epoch {epoch}"
            raise DamagedObject(what, subject=self.subject)
        return found

    async def _checkpointed(self, epoch: int, known: _Frames, numbers: U64) -> U64:
        found = np.zeros((len(numbers), 2), np.uint64)
        size = np.uint64(checkpoint.PAGE_ROWS)
        pages = numbers // size
        for page, here in _groups(pages):
            if page >= len(known.table):
                continue
            rows = await self._pages.get(FRAMES, epoch, page, known.table)
            offset = (numbers[here] % size).astype(np.int64)
            if (offset < len(rows)).all():
                found[here] = rows[offset]
        return found


def _groups(keys: U64 | Ints) -> Iterator[tuple[int, slice]]:
    """Stretches of equal values in ascending ``keys``."""
    if not len(keys):
        return
    if keys[0] == keys[-1]:
        yield int(keys[0]), slice(0, len(keys))
        return
    bounds = [0, *(np.flatnonzero(keys[1:] != keys[:-1]) + 1).tolist(), len(keys)]
    for low, high in itertools.pairwise(bounds):
        yield int(keys[low]), slice(low, high)
