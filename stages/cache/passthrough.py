"""The cache of a scan at rest: nothing is journalled, the disk itself is still there to be read.

Batches become segments by size. No segment crosses a gap record or a change of geometry: each of
them seals it. A scan visits a block once, so the batches of a segment never overlap.
"""

from __future__ import annotations

from dataclasses import replace

import trio

from stages.channel import Channel
from stages.model import (
    BLOCK,
    FRAME_BLOCKS,
    Batch,
    GapBegin,
    GapEnd,
    Geometry,
    Runs,
    Segment,
    StreamItem,
    empty_pairs,
)
from stages.stage import Meter, StageStatistics

PIECE_BYTES = 4 << 20  # of content that travels together
REF_BYTES = 24  # what a reference counts towards the size of a segment: its bytes in the index
BATCH_BYTES = 4096  # what a batch counts at least, so that their number is bounded too


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
        self._blocks = 0  # of content in these batches
        self._size = 0  # of the whole segment so far
        self._meter = Meter(self.name)

    async def run(self) -> None:
        """Fold until the input ends. What is left inside a gap is sealed too."""
        try:
            with self._sink, self._meter.running():
                while (item := await self._next()) is not None:
                    await self._take(item)
                if self._size:
                    await self._seal()
        finally:
            self._source.abandon()

    def statistics(self) -> StageStatistics:
        """Counters of this stage."""
        return self._meter.snapshot()

    async def _next(self) -> StreamItem | None:
        """None at the end of the input."""
        with self._meter.hungry():
            try:
                return await self._source.receive()
            except trio.EndOfChannel:
                return None

    async def _take(self, item: StreamItem) -> None:
        match item:
            case Batch():
                await self._add(item)
            case GapBegin():
                if self._size:
                    await self._seal()
                self._in_gap = True
            case GapEnd(grade=grade):
                self._in_gap, self._grade = False, grade
                await self._seal()  # also when empty: the end of a scan is a recovery point
            case Geometry(number=number):
                if self._size:
                    await self._seal()
                self._geometry = number

    async def _add(self, batch: Batch) -> None:
        weight = batch.payload_bytes + REF_BYTES * len(batch.refs)
        self._batches.append(batch)
        self._blocks += len(batch.data)
        self._size += max(weight, BATCH_BYTES)
        self._meter.bytes_in += batch.payload_bytes
        if self._size >= self._seal_bytes:
            await self._seal()
        elif self._blocks * BLOCK >= PIECE_BYTES:
            await self._send_piece()

    async def _send_piece(self) -> None:
        """Send whole frames on; what is left over of the last batch begins the next piece."""
        left = self._blocks % FRAME_BLOCKS
        rest: list[Batch] = []
        if left:
            head, tail = split_batch(self._batches[-1], len(self._batches[-1].data) - left)
            self._batches[-1] = head
            rest = [tail]
        await self._emit(final=False)
        self._batches, self._blocks = rest, left

    async def _seal(self) -> None:
        await self._emit(final=True)
        self._batches, self._blocks, self._size = [], 0, 0

    async def _emit(self, *, final: bool) -> None:
        batches = tuple(self._batches)
        segment = Segment(batches, self._in_gap, self._grade, self._geometry, final)
        self._meter.items += 1
        self._meter.bytes_out += segment.payload_bytes
        with self._meter.blocked():
            await self._sink.send(segment, max(1, segment.payload_bytes))


def split_batch(batch: Batch, at: int) -> tuple[Batch, Batch]:
    """Cut a batch after ``at`` blocks of content. All else stays with the first half.

    Both halves belong to one segment, so nothing is known or referred to too early.
    """
    head = replace(
        batch, data=batch.data[:at], payload=batch.payload[:at], digests=batch.digests[:at]
    )
    tail = replace(
        batch,
        data=batch.data[at:],
        payload=batch.payload[at:],
        digests=batch.digests[at:],
        zero=Runs.none(),
        refs=empty_pairs(),
        ref_digests=empty_pairs(),
        chunk_digests=empty_pairs(),
        scanned=0,
    )
    return head, tail
