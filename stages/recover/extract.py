"""Fetch, open and expand the frames of a point: the engine under restore, verify and export."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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

Sink = Callable[[FrameNeed, bytes], None]
Lost = list[tuple[FrameNeed, str]]

_TAILS = 65536  # commits whose tail is remembered


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


class Extractor:
    """Fetches and opens hauls, any number at a time; each call uses a decompressor of its own."""

    def __init__(self, group: Group, offload: Offload):
        self._group = group
        self._offload = offload
        self._idle: deque[zstandard.ZstdDecompressor] = deque(maxlen=16)
        self._tails: dict[str, int] = {}

    async def run(self, haul: Haul, sink: Sink) -> Lost:
        """``fetch`` and ``open``."""
        return await self.open(await self.fetch(haul), sink)

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
        """Hand every whole frame's content to ``sink``, in a worker thread.

        Returns the frames that cannot be had, with reasons.
        """
        if fetched.failure:
            return [(need, fetched.failure) for _, _, need in fetched.haul.frames]
        return await self._offload.run(lambda: self._open(fetched, sink))

    def _open(self, fetched: Fetched, sink: Sink) -> Lost:
        try:
            expander = self._idle.popleft()
        except IndexError:
            expander = zstandard.ZstdDecompressor()
        haul, view = fetched.haul, memoryview(fetched.data)
        lost = []
        for offset, length, need in haul.frames:
            at = offset - haul.offset
            stored = view[at : at + length]
            try:
                scope, data_key = fetched.keys[need.epoch]
                content = _content(scope, need, stored, data_key, haul.key, expander)
            except DamagedObject as error:
                lost.append((need, error.message))
                continue
            sink(need, content)
        self._idle.append(expander)
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


def _content(
    scope: Scope,
    need: FrameNeed,
    stored: Buffer,
    data_key: bytes,
    key: str,
    expander: zstandard.ZstdDecompressor,
) -> bytes:
    head, packed = frame.unseal(scope, data_key, need.epoch, need.number, stored, key)
    if int(need.slots[-1]) >= head.blocks:
        raise DamagedObject("frame of fewer blocks than its index says", subject=key)
    return frame.expand(head, packed, expander, key)


def extents_of(disk: Disk, need: FrameNeed, key: str, reason: str) -> list[DamagedExtent]:
    """The byte ranges of ``disk`` that a lost frame leaves unknown."""
    runs = Runs.of(np.sort(need.blocks))
    found = []
    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
        offset = start * BLOCK
        length = min(count * BLOCK, disk.size - offset)
        found.append(DamagedExtent(disk.name, offset, length, key, reason))
    return found
