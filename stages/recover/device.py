"""A disk of a point as a read-only block device: frames are fetched when they are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import numpy as np
import trio

from stages.errors import BackstayError
from stages.model import BLOCK, FRAME_BLOCKS, U64, Disk, distinct
from stages.nbd.device import DeviceFlags, DeviceInfo, Extent, Part
from stages.nbd.wire import STATE_HOLE, STATE_ZERO
from stages.ports import Buffer, Offload
from stages.recover.frames import FrameCache, Name
from stages.recover.plan import FrameNeed, needs
from stages.recover.pointmap import PointMap
from stages.recover.regions import REGION, Located, Streams
from stages.recover.sweep import content_runs
from stages.vault import location
from stages.vault.location import ZERO

CACHE_BYTES = 48 << 20
TOGETHER = 64  # frames that one read holds at a time: 16 MiB
_EXTENT_BLOCKS = 1 << 18
_FEW = 32  # frames of a region; where more are needed, reading ahead costs too much
_AHEAD = 2  # regions of a disk on their way behind its readers' backs: 4 MiB, mostly
_MOST_PARTS = 64  # of an answer; above, one copy is cheaper


class PointDevice:
    """Serves one disk. Calls may run concurrently; memory is that of ``FrameCache`` and replies.

    ``nursery`` owns what is read ahead: a reader goes on with what it has asked for. It has to be
    cancelled before the point is closed. Without one readers wait for what they cause.
    """

    def __init__(
        self,
        point: PointMap,
        disk: Disk,
        offload: Offload,
        *,
        cache_bytes: int = CACHE_BYTES,
        nursery: trio.Nursery | None = None,
    ):
        self._point = point
        self._disk = disk
        self._frames = FrameCache(point, offload, cache_bytes)
        self._streams = Streams()
        self._located = Located(point, disk)
        self._nursery = nursery
        self._on_their_way = 0  # regions that nobody waits for
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
        locations = await self._located.get(first, count)
        for region in self._streams.ahead(first, count):
            await self._read_ahead(region, locations, later=region * REGION >= first + count)
        at = location.in_one_frame(locations) if count <= FRAME_BLOCKS else None
        if at is not None:
            return [await self._of_one_frame(at, count, offset - first * BLOCK, length)]
        frames, wanted = needs(locations, first)
        if not wanted:
            return [bytes(length)]
        if len(wanted) <= TOGETHER:
            contents = await self._frames.get(frames, wanted)
            parts = _parts(wanted, contents, first, count)
            # Slices keep whole frames alive until they are sent: not for the sake of a few bytes.
            if len(parts) <= _MOST_PARTS and sum(map(len, contents.values())) <= 2 * length:
                return _trimmed(parts, offset - first * BLOCK, length)
        out = memoryview(bytearray(count * BLOCK))
        for at in range(0, len(wanted), TOGETHER):
            group = wanted[at : at + TOGETHER]
            contents = await self._frames.get(frames[at : at + TOGETHER], group)
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

    async def _of_one_frame(self, at: int, count: int, start: int, length: int) -> Buffer:
        """``length`` bytes from byte ``start`` of ``count`` blocks that lie in a row in a frame,
        the first of them at location ``at``: what a guest reads mostly, hence without all else."""
        frame, slot = location.frame_and_slot(at)
        name = location.split(frame)
        content = self._frames.cached(name)
        if content is None or len(content) < (slot + count) * BLOCK:
            slots = np.arange(slot, slot + count, dtype=np.uint64)
            need = FrameNeed(*name, slots, slots)
            content = (await self._frames.get(np.array([frame], np.uint64), [need]))[name]
        start += slot * BLOCK
        part = memoryview(content)[start : start + length]
        # It keeps the whole frame alive until it is sent: not for the sake of a few bytes.
        return part if 2 * length >= len(content) else bytes(part)

    async def _read_ahead(self, region: int, locations: U64, *, later: bool) -> None:
        """Bring a region into the cache behind its reader's back, who fetches the frames of
        ``locations`` itself. Where too much is on its way it waits for all of its region, for each
        of many readers would fetch too little at a time, and one that comes ``later`` is left out.

        Errors are for those who want what fails.
        """
        room = self._nursery is not None and self._on_their_way < _AHEAD
        if later and not (room and region * REGION < self._disk.blocks):
            return
        with suppress(BackstayError):
            frames, wanted = needs(await self._located.region(region), region * REGION)
            if not 0 < len(wanted) <= _FEW:
                return
            if self._nursery is None or not room:
                await self._frames.get(frames, wanted)
                return
            mine = distinct(location.frame_of(locations[locations > ZERO]))
            own = {location.split(frame) for frame in mine.tolist()}
            fetch = self._frames.begin(frames, wanted, own)
            if fetch is not None:
                self._on_their_way += 1
                self._nursery.start_soon(self._behind, fetch)

    async def _behind(self, fetch: Callable[[], Awaitable[None]]) -> None:
        try:
            await fetch()
        finally:
            self._on_their_way -= 1


def _parts(
    wanted: list[FrameNeed], contents: dict[Name, bytes], first: int, count: int
) -> list[memoryview]:
    """Slices of frames and of zeros that joined are the blocks, without a copy."""
    pieces = sorted(
        (block - first, run, slot, (need.epoch, need.number))
        for need in wanted
        for slot, block, run in content_runs(need)
    )
    parts: list[memoryview] = []
    at = 0
    for block, run, slot, name in pieces:
        if block > at:
            parts.append(memoryview(bytes((block - at) * BLOCK)))
        parts.append(memoryview(contents[name])[slot * BLOCK : (slot + run) * BLOCK])
        at = block + run
    if at < count:
        parts.append(memoryview(bytes((count - at) * BLOCK)))
    return parts


def _trimmed(parts: list[memoryview], start: int, length: int) -> list[memoryview]:
    """``length`` bytes from ``start`` on."""
    found = []
    for part in parts:
        piece = part[start : start + length]
        if piece:
            found.append(piece)
        start = max(0, start - len(part))
        length -= len(piece)
    return found
