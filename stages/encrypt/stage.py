"""The encrypt stage: frames numbered within the epoch and sealed."""

from __future__ import annotations

from collections.abc import Awaitable

from stages.channel import Channel
from stages.model import PackedSegment, SealedSegment
from stages.ports import Entropy, Offload
from stages.stage import Meter, StageStatistics, ordered_map
from stages.vault.frame import seal
from stages.vault.sealing import EpochKeys, Scope


class Encrypt:
    """From packed segments to sealed segments."""

    name = "encrypt"

    def __init__(
        self,
        source: Channel[PackedSegment],
        sink: Channel[SealedSegment],
        offload: Offload,
        entropy: Entropy,
        *,
        scope: Scope,
        keys: EpochKeys,
        workers: int,
    ):
        if keys.data is None:
            raise ValueError("sealing frames takes the data key")
        self._source = source
        self._sink = sink
        self._offload = offload
        self._entropy = entropy
        self._scope = scope
        self._epoch = keys.epoch
        self._key = keys.data
        self._workers = workers
        self._next_frame = 0
        self._meter = Meter(self.name, workers)

    async def run(self) -> None:
        """Seal until the input ends."""
        await ordered_map(
            self._source,
            self._begin,
            self._sink,
            workers=self._workers,
            size=lambda sealed: max(1, sealed.stored_bytes),
            meter=self._meter,
        )

    def statistics(self) -> StageStatistics:
        """Counters of this stage."""
        return self._meter.snapshot()

    def _begin(self, packed: PackedSegment) -> Awaitable[SealedSegment]:
        """Give the segment its frame numbers, in stream order."""
        first, self._next_frame = self._next_frame, self._next_frame + len(packed.frames)
        return self._seal(packed, first)

    async def _seal(self, packed: PackedSegment, first: int) -> SealedSegment:
        if packed.frames:
            frames = await self._offload.run(lambda: self._seal_frames(packed, first))
        else:
            frames = ()
        self._meter.items += 1
        self._meter.bytes_in += sum(len(frame.data) for frame in packed.frames)
        sealed = SealedSegment(
            segment=packed.segment,
            epoch=self._epoch,
            first_frame=first,
            frames=frames,
            blocks=tuple(frame.blocks for frame in packed.frames),
        )
        self._meter.bytes_out += sealed.stored_bytes
        return sealed

    def _seal_frames(self, packed: PackedSegment, first: int) -> tuple[bytes, ...]:
        return tuple(
            seal(self._scope, self._key, self._epoch, first + at, frame, self._entropy)
            for at, frame in enumerate(packed.frames)
        )
