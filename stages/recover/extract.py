"""Fetch, open and expand the frames of a point: the engine under restore, verify and export.

Frames are expanded into a *room*, one after the other, and handed on when it is full: memory that
is there already, whole pages of it, from which content is written to disks without a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from stages.errors import UNREADABLE, DamagedObject, ObjectMissing
from stages.model import BLOCK, Disk, Runs
from stages.ports import Buffer, Offload
from stages.recover.lineage import owner
from stages.recover.opened import Group
from stages.recover.plan import FrameNeed, Haul
from stages.vault import frame
from stages.vault.container import HEAD_SIZE, PREFIX
from stages.vault.sealing import Scope

Laid = tuple[int, int, FrameNeed]  # where in a room a frame begins, its bytes, what is taken of it
Sink = Callable[[memoryview, Sequence[Laid]], None]  # a room, which is used again on return
Lost = list[tuple[FrameNeed, str]]

_TAILS = 65536  # commits whose tail is remembered
_ROOM = 2 << 20  # bytes: large enough for a disk to write at its speed
_PAGE = 4096
_DESKS = 16


@dataclass(frozen=True, slots=True)
class DamagedExtent:
    """Bytes of a disk whose content cannot be had, and why.

    ``older``: what is there instead is content of an earlier moment, else it is zeros.
    """

    disk: str
    offset: int
    length: int
    key: str
    reason: str
    older: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """The stored bytes of a haul and, by epoch, scope and key; or why there are none."""

    haul: Haul
    data: bytes
    keys: dict[int, tuple[Scope, bytes]]
    failure: str = ""


class _Desk:
    """What one thread opens frames with: nothing of it can be shared, all of it used again."""

    __slots__ = ("expander", "room")

    def __init__(self) -> None:
        self.expander = zstandard.ZstdDecompressor()
        memory = np.empty(_ROOM + _PAGE, np.uint8)
        start = -memory.ctypes.data % _PAGE
        self.room = memory[start : start + _ROOM].data


class Extractor:
    """Fetches and opens hauls, any number at a time; each call uses a room of its own."""

    def __init__(self, group: Group, offload: Offload):
        self._group = group
        self._offload = offload
        self._idle: deque[_Desk] = deque(maxlen=_DESKS)
        self._tails: dict[str, int] = {}

    async def run(self, haul: Haul, sink: Sink, *, alone: bool = False) -> Lost:
        """``fetch`` and ``open``. ``alone``: nobody waits for the event loop but who asks for this:
        a single frame is opened here, in about the time that a thread would take to begin."""
        fetched = await self.fetch(haul)
        if alone and len(haul.frames) == 1 and not fetched.failure:
            return self._open(fetched, sink)
        return await self.open(fetched, sink)

    async def fetch(self, haul: Haul) -> Fetched:
        """Get a haul's bytes and keys.

        Store errors other than a missing object are raised: they say nothing about the data.
        """
        keys: dict[int, tuple[Scope, bytes]] = {}
        try:
            for epoch in {need.epoch for _, _, need in haul.frames}:
                group = await owner(self._group, epoch)
                keys[epoch] = group.scope, await group.ring.data_key(epoch)
            offset = haul.offset + (await self._tail_at(haul.key) if haul.tail else 0)
            data = await self._group.log.store.get(haul.key, offset, haul.length)
        except ObjectMissing:
            return Fetched(haul, b"", {}, "the object is missing")
        except UNREADABLE as error:
            reason = error.message if error.subject == haul.key else str(error)
            return Fetched(haul, b"", {}, reason)
        return Fetched(haul, data, keys)

    async def open(self, fetched: Fetched, sink: Sink) -> Lost:
        """Hand the content of all whole frames to ``sink``, in a worker thread.

        Returns the frames that cannot be had, with reasons.
        """
        if fetched.failure:
            return [(need, fetched.failure) for _, _, need in fetched.haul.frames]
        return await self._offload.run(lambda: self._open(fetched, sink))

    def _open(self, fetched: Fetched, sink: Sink) -> Lost:
        try:
            desk = self._idle.pop()
        except IndexError:
            desk = _Desk()
        haul, view = fetched.haul, memoryview(fetched.data)
        lost: Lost = []
        laid: list[Laid] = []
        filled = 0
        for offset, length, need in haul.frames:
            if filled + frame.MOST > _ROOM:
                sink(desk.room, laid)
                laid, filled = [], 0
            at = offset - haul.offset
            stored = view[at : at + length]
            try:
                size = _unpack(fetched, need, stored, desk, filled)
            except DamagedObject as error:
                lost.append((need, error.message))
                continue
            laid.append((filled, size, need))
            filled += size
        if laid:
            sink(desk.room, laid)
        self._idle.append(desk)
        return lost

    async def _tail_at(self, key: str) -> int:
        """Where a commit's inline frames begin. Raises ``DamagedObject`` or ``ObjectMissing``.

        The sizes are not verified here: were they wrong, no frame would open.
        """
        if key not in self._tails:
            head = await self._group.log.store.get(key, 0, HEAD_SIZE)
            if len(head) < HEAD_SIZE:
                raise DamagedObject("cut short", subject=key)
            _, _, _, _, header, body, _, _ = PREFIX.unpack_from(head)
            if len(self._tails) >= _TAILS:
                self._tails.clear()
            self._tails[key] = HEAD_SIZE + int(header) + int(body)
        return self._tails[key]


def _unpack(fetched: Fetched, need: FrameNeed, stored: Buffer, desk: _Desk, at: int) -> int:
    """Content to byte ``at`` of the room; its size."""
    key = fetched.haul.key
    scope, data_key = fetched.keys[need.epoch]
    room = desk.room[at : at + frame.MOST]
    named = need.epoch, need.number
    size = frame.unpack_into(scope, data_key, *named, stored, key, desk.expander, room)
    need.within(size, key)
    return size


def each(take: Callable[[FrameNeed, memoryview], None]) -> Sink:
    """A sink that hands one frame on at a time; the content is to be used before the next."""

    def sink(room: memoryview, laid: Sequence[Laid]) -> None:
        for at, size, need in laid:
            take(need, room[at : at + size])

    return sink


def extents_of(disk: Disk, need: FrameNeed, key: str, reason: str) -> list[DamagedExtent]:
    """The byte ranges of ``disk`` that a lost frame leaves unknown."""
    runs = Runs.of(np.sort(need.blocks))
    found = []
    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
        offset = start * BLOCK
        length = min(count * BLOCK, disk.size - offset)
        found.append(DamagedExtent(disk.name, offset, length, key, reason))
    return found
