"""Fetch, open and expand the frames of a point: the engine under restore, verify and export."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zstandard

from stages.errors import Damage, DamagedObject, MissingData, ObjectMissing
from stages.model import BLOCK, Disk, Runs
from stages.ports import Offload
from stages.recover.opened import Group
from stages.recover.plan import FrameNeed, Haul
from stages.vault import frame
from stages.vault.container import HEAD_SIZE, PREFIX
from stages.vault.sealing import EpochKeys

Sink = Callable[[FrameNeed, bytes], None]


@dataclass(frozen=True, slots=True)
class DamagedExtent:
    """Bytes of a disk whose content cannot be had, and why."""

    disk: str
    offset: int
    length: int
    key: str
    reason: str


class Extractor:
    """Opens hauls. Thread-safe through Offload: each call uses a decompressor of its own."""

    def __init__(self, group: Group, offload: Offload):
        self._group = group
        self._offload = offload
        self._idle: deque[zstandard.ZstdDecompressor] = deque(maxlen=16)
        self._tails: dict[str, int] = {}

    async def run(self, haul: Haul, sink: Sink) -> list[tuple[FrameNeed, str]]:
        """Fetch a haul and hand every whole frame's content to ``sink``, in a worker thread.

        Returns the frames that cannot be had, with reasons. Store errors other than a missing
        object are raised: they say nothing about the data.
        """
        try:
            offset = haul.offset + (await self._tail_at(haul.key) if haul.tail else 0)
            data = await self._group.log.store.get(haul.key, offset, haul.length)
        except (ObjectMissing, MissingData):
            return [(need, "the object is missing") for _, _, need in haul.frames]
        except DamagedObject as error:
            return [(need, error.message) for _, _, need in haul.frames]
        keys = {}
        for epoch in {need.epoch for _, _, need in haul.frames}:
            try:
                keys[epoch] = await self._group.ring.keys(epoch)
            except Damage as error:
                return [(need, str(error)) for _, _, need in haul.frames]
        return await self._offload.run(lambda: self._open(haul, data, keys, sink))

    def _open(
        self, haul: Haul, data: bytes, keys: dict[int, EpochKeys], sink: Sink
    ) -> list[tuple[FrameNeed, str]]:
        try:
            expander = self._idle.popleft()
        except IndexError:
            expander = zstandard.ZstdDecompressor()
        bad = []
        for offset, length, need in haul.frames:
            at = offset - haul.offset
            stored = data[at : at + length]
            try:
                content = self._content(need, stored, keys[need.epoch], haul.key, expander)
            except DamagedObject as error:
                bad.append((need, error.message))
                continue
            sink(need, content)
        self._idle.append(expander)
        return bad

    def _content(
        self,
        need: FrameNeed,
        stored: bytes,
        keys: EpochKeys,
        key: str,
        expander: zstandard.ZstdDecompressor,
    ) -> bytes:
        if keys.data is None:
            raise DamagedObject("no key for frames", subject=key)
        scope = self._group.scope
        head, packed = frame.unseal(scope, keys.data, need.epoch, need.number, stored, key)
        if int(need.slots[-1]) >= head.blocks:
            raise DamagedObject("frame of fewer blocks than its index says", subject=key)
        return frame.expand(head, packed, expander, key)

    async def _tail_at(self, key: str) -> int:
        """Where a commit's inline frames begin; remembered for a bounded number of commits."""
        if key not in self._tails:
            head = await self._group.log.store.get(key, 0, HEAD_SIZE)
            if len(head) < HEAD_SIZE:
                raise DamagedObject("cut short", subject=key)
            _, _, _, _, header, body, _, _ = PREFIX.unpack_from(head)
            if len(self._tails) > 65536:
                self._tails.clear()
            self._tails[key] = HEAD_SIZE + int(header) + int(body)
        return self._tails[key]


def extents_of(disk: Disk, need: FrameNeed, key: str, reason: str) -> list[DamagedExtent]:
    """The byte ranges of ``disk`` that a lost frame leaves unknown."""
    runs = Runs.of(np.sort(need.blocks))
    found = []
    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
        offset = start * BLOCK
        length = min(count * BLOCK, disk.size - offset)
        found.append(DamagedExtent(disk.name, offset, length, key, reason))
    return found
