"""A disk of a point as a read-only block device: frames are fetched when they are read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import trio

from stages.errors import DamagedObject
from stages.model import BLOCK, U64, Disk
from stages.nbd.device import DeviceFlags, DeviceInfo, Extent, Part
from stages.nbd.wire import STATE_HOLE, STATE_ZERO
from stages.ports import Offload
from stages.recover.extract import Extractor
from stages.recover.plan import FrameNeed, Haul, hauls, needs
from stages.recover.pointmap import PointMap
from stages.recover.sweep import content_runs
from stages.stage import crew
from stages.vault.location import ZERO

_Name: TypeAlias = tuple[int, int]  # epoch and number of a frame

CACHE_BYTES = 48 << 20
TOGETHER = 64  # frames that one read holds at a time: 16 MiB
_EXTENT_BLOCKS = 1 << 18
_PARALLEL = 8  # hauls on their way or being opened, for all reads of a device together


class PointDevice:
    """Serves one disk. Calls may run concurrently; a frame that several want is fetched once.

    Memory: ``cache_bytes`` of frames, ``_PARALLEL`` hauls, ``TOGETHER`` frames for each read.
    """

    def __init__(
        self, point: PointMap, disk: Disk, offload: Offload, *, cache_bytes: int = CACHE_BYTES
    ):
        scope = point.group.scope
        self._point = point
        self._disk = disk
        self._extractor = Extractor(point.group, offload)
        self._group = scope.group
        self._cache: OrderedDict[_Name, bytes] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._hauling = trio.CapacityLimiter(_PARALLEL)
        self._under_way: dict[_Name, trio.Event] = {}
        self.info = DeviceInfo(
            name=disk.name,
            size=disk.size,
            description=f"{point.machine.name}/{disk.name} at commit {point.seq}",
            read_only=True,
            flags=DeviceFlags(multi_conn=True),
        )

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        """The content; raises ``Damage`` or store errors."""
        first = offset // BLOCK
        count = -(-(offset + length) // BLOCK) - first
        locations = await self._point.locations(self._disk.number, first, count)
        frames, wanted = needs(locations, first)
        if not wanted:
            return [bytes(length)]
        out = memoryview(bytearray(count * BLOCK))
        for at in range(0, len(wanted), TOGETHER):
            group = wanted[at : at + TOGETHER]
            contents = await self._contents(frames[at : at + TOGETHER], group)
            for need in group:
                content = memoryview(contents[need.epoch, need.number])
                for slot, block, run in content_runs(need):
                    low = (block - first) * BLOCK
                    part = content[slot * BLOCK : (slot + run) * BLOCK]
                    out[low : low + run * BLOCK] = part
        start = offset - first * BLOCK
        return [out[start : start + length]]

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """Runs of data and of zeros, of up to 1 GiB of disk a call."""
        first = offset // BLOCK
        end = min(-(-(offset + length) // BLOCK), first + _EXTENT_BLOCKS)
        locations = await self._point.locations(self._disk.number, first, end - first)
        zero = locations <= ZERO
        heads = np.flatnonzero(np.concatenate(([True], zero[1:] != zero[:-1])))
        found = []
        for head, following in zip(heads.tolist(), [*heads[1:].tolist(), len(zero)], strict=True):
            low = max(offset, (first + head) * BLOCK)
            high = min(offset + length, (first + following) * BLOCK)
            flags = STATE_HOLE | STATE_ZERO if zero[head] else 0
            found.append(Extent(high - low, flags))
        return found

    async def write(self, offset: int, data: memoryview, fua: bool) -> None:
        """Not on a read-only device."""
        raise PermissionError(1, "the recovery point is read-only")

    async def flush(self) -> None:
        """Nothing to flush."""

    async def trim(self, offset: int, length: int, fua: bool) -> None:
        """Not on a read-only device."""
        raise PermissionError(1, "the recovery point is read-only")

    async def zero(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        """Not on a read-only device."""
        raise PermissionError(1, "the recovery point is read-only")

    async def _contents(self, frames: U64, wanted: list[FrameNeed]) -> dict[_Name, bytes]:
        """The plain frames: from the cache, from a read under way, or from the store."""
        found: dict[_Name, bytes] = {}
        while True:
            waiting: trio.Event | None = None
            missing = []
            for at, need in enumerate(wanted):
                name = (need.epoch, need.number)
                if name in found:
                    continue
                content = self._cache.get(name)
                if content is not None:
                    self._cache.move_to_end(name)
                    found[name] = content
                elif name in self._under_way:
                    waiting = self._under_way[name]
                else:
                    missing.append(at)
            if missing:
                picked = [wanted[at] for at in missing]
                found |= await self._fetch(frames[missing], picked)
            elif waiting is not None:
                await waiting.wait()
            else:
                return found

    async def _fetch(self, frames: U64, wanted: list[FrameNeed]) -> dict[_Name, bytes]:
        """Read frames from the store; whoever wants one of them meanwhile waits for this."""
        arrived = trio.Event()
        names = [(need.epoch, need.number) for need in wanted]
        self._under_way.update(dict.fromkeys(names, arrived))
        found: dict[_Name, bytes] = {}

        def keep(need: FrameNeed, content: bytes) -> None:
            found[need.epoch, need.number] = content

        async def one(haul: Haul) -> None:
            async with self._hauling:
                bad = await self._extractor.run(haul, keep)
            if bad:
                raise DamagedObject(bad[0][1], operation="read", subject=haul.key)

        try:
            rows = await self._point.places(frames)
            async with crew() as nursery:
                for haul in hauls(self._group, wanted, rows):
                    nursery.start_soon(one, haul)
            for name, content in found.items():
                self._remember(name, content)
        finally:
            for name in names:
                self._under_way.pop(name, None)
            arrived.set()
        return found

    def _remember(self, name: _Name, content: bytes) -> None:
        if name not in self._cache:
            self._cache[name] = content
            self._cached += len(content)
        while self._cached > self._cache_bytes:
            self._cached -= len(self._cache.popitem(last=False)[1])
