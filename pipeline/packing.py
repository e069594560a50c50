"""The stages that every way to a vault has: segments are compressed and sealed, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.model import Pipeline
from stages.channel import Channel
from stages.compress.stage import Compress
from stages.encrypt.stage import Encrypt
from stages.model import PackedSegment, SealedSegment, Segment
from stages.ports import Machine
from stages.ship.session import LogSession

STREAM_BYTES = 8 << 20  # of what was found and not folded or packed yet
_PACKED_BYTES = 8 << 20  # with a segment in each worker, this bounds a run's memory


@dataclass(frozen=True, slots=True)
class Packing:
    """Compressing and sealing, with the channels before, between and behind them."""

    segments: Channel[Segment]
    compress: Compress
    packed: Channel[PackedSegment]
    encrypt: Encrypt
    sealed: Channel[SealedSegment]


def build_packing(ports: Machine, tuned: Pipeline, session: LogSession) -> Packing:
    """As a machine's pipeline section says."""
    segments: Channel[Segment] = Channel("segments", max_bytes=STREAM_BYTES, max_items=64)
    packed: Channel[PackedSegment] = Channel("packed", max_bytes=_PACKED_BYTES, max_items=64)
    sealed: Channel[SealedSegment] = Channel("sealed", max_bytes=_PACKED_BYTES, max_items=64)
    offload = ports.offload
    compress = Compress(
        segments, packed, offload, level=tuned.compress.level, workers=tuned.compress.workers
    )
    encrypt = Encrypt(
        packed,
        sealed,
        offload,
        ports.entropy,
        scope=session.writer.scope,
        keys=session.keys,
        workers=tuned.encrypt.workers,
    )
    return Packing(segments, compress, packed, encrypt, sealed)
