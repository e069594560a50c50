"""What is known of stretches of a disk that are read: where their blocks are, and who goes on."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from stages.model import U64, Disk
from stages.recover.pointmap import PointMap

REGION = 512  # blocks (2 MiB) that are fetched together once someone reads them in a row
_REGIONS = 64  # whose readers are remembered
_LOCATED = 2048  # whose map is: 4 GiB of disk in 8 MiB of memory


class Located:
    """Locations of the blocks of one disk, by regions, the least recently used first to go.

    A point's locations never change; where their frames are does, and is not kept here.
    """

    def __init__(self, point: PointMap, disk: Disk):
        self._point = point
        self._disk = disk
        self._regions: OrderedDict[int, U64] = OrderedDict()

    async def get(self, first: int, count: int) -> U64:
        """Locations (count,) from block ``first`` on, not to be changed. Raises ``Damage``."""
        region, low = divmod(first, REGION)
        if low + count > REGION:
            return await self._point.locations(self._disk.number, first, count)
        return (await self.region(region))[low : low + count]

    async def region(self, region: int) -> U64:
        """Locations of a region; the last one of a disk may be shorter. Raises ``Damage``."""
        found = self._regions.get(region)
        if found is not None:
            self._regions.move_to_end(region)
            return found
        first = region * REGION
        count = min(REGION, self._disk.blocks - first)
        found = np.array(await self._point.locations(self._disk.number, first, count))
        self._regions[region] = found
        while len(self._regions) > _LOCATED:
            self._regions.popitem(last=False)
        return found


class Streams:
    """Notices regions that are read in a row."""

    def __init__(self) -> None:
        self._read: OrderedDict[int, int] = OrderedDict()  # region: blocks read of it

    def ahead(self, first: int, count: int) -> list[int]:
        """Regions to be fetched as a whole now that these blocks are read: usually none; one that
        they are in, and the next one if whoever reads them came from the one before.

        A region is, once a quarter of it was asked for, or when its predecessor was.
        """
        found, in_a_row = [], False
        for region in range(first // REGION, (first + count - 1) // REGION + 1):
            low, high = max(first, region * REGION), min(first + count, (region + 1) * REGION)
            before = self._read.get(region, 0)
            now = before + high - low
            if self._read.get(region - 1, 0) >= REGION // 4:
                now = max(now, REGION // 4)
                in_a_row = True
            if before < REGION // 4 <= now:
                found.append(region)
            self._read[region] = now
            self._read.move_to_end(region)
        while len(self._read) > _REGIONS:
            self._read.popitem(last=False)
        if len(found) != 1:  # a long read fetches much together anyway
            return []
        return [found[0], found[0] + 1] if in_a_row else found
