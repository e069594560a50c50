"""The cache of a scan at rest: nothing is journalled, the disk itself is still there to be read.

Batches become segments by size. No segment crosses a gap record or a change of geometry: each of
them seals it. A scan visits a block once, so the batches of a segment never overlap.
"""

from __future__ import annotations

from stages.channel import Channel
from stages.model import Batch, GapBegin, GapEnd, Geometry, Segment, StreamItem
from stages.stage import Meter, StageStatistics

REF_BYTES = 16  # what a reference counts towards the size of a segment
MAX_BATCHES = 1024


class PassThrough:
    """From a stream of batches and marks to segments."""

    name = "cache"

    def __init__(
        self,
        source: Channel[StreamItem],
        sink: Channel[Segment],
        *,
        seal_bytes: int,
        geometry: int,
    ):
        self._source = source
        self._sink = sink
        self._seal_bytes = seal_bytes
        self._geometry = geometry
        self._in_gap = False
        self._grade = "crash"
        self._batches: list[Batch] = []
        self._size = 0
        self._meter = Meter(self.name)

    async def run(self) -> None:
        """Fold until the input ends. What is left inside a gap is sealed too."""
        try:
            with self._sink:
                async for item in self._source:
                    await self._take(item)
                if self._batches:
                    await self._seal()
        finally:
            self._source.abandon()

    def statistics(self) -> StageStatistics:
        """Counters of this stage."""
        return self._meter.snapshot()

    async def _take(self, item: StreamItem) -> None:
        match item:
            case Batch():
                self._batches.append(item)
                self._size += item.payload_bytes + REF_BYTES * len(item.refs)
                self._meter.bytes_in += item.payload_bytes
                if self._size >= self._seal_bytes or len(self._batches) >= MAX_BATCHES:
                    await self._seal()
            case GapBegin():
                if self._batches:
                    await self._seal()
                self._in_gap = True
            case GapEnd(grade=grade):
                self._in_gap, self._grade = False, grade
                await self._seal()  # also when empty: the end of a scan is a recovery point
            case Geometry(number=number):
                if self._batches:
                    await self._seal()
                self._geometry = number

    async def _seal(self) -> None:
        segment = Segment(tuple(self._batches), self._in_gap, self._grade, self._geometry)
        self._batches, self._size = [], 0
        self._meter.items += 1
        self._meter.bytes_out += segment.payload_bytes
        await self._sink.send(segment, max(1, segment.payload_bytes))
