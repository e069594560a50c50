"""Put the pieces of a segment together again: sealed, they are small enough to wait."""

from __future__ import annotations

from dataclasses import replace

from stages.channel import Channel
from stages.model import SealedSegment


async def gather(source: Channel[SealedSegment], sink: Channel[SealedSegment]) -> None:
    """Send whole segments to ``sink``; closes it when the input ends.

    Pieces without a final one at the end of the input belong to a stream that was cut off: they
    are dropped, nothing refers to them.
    """
    pieces: list[SealedSegment] = []
    try:
        with sink:
            async for piece in source:
                pieces.append(piece)
                if piece.segment.final:
                    whole = join(pieces)
                    pieces = []
                    del piece
                    await sink.send(whole, max(1, whole.stored_bytes))
                    del whole
    finally:
        source.abandon()


def join(pieces: list[SealedSegment]) -> SealedSegment:
    """One segment out of its consecutive pieces."""
    if len(pieces) == 1:
        return pieces[0]
    last = pieces[-1]
    batches = tuple(batch for piece in pieces for batch in piece.segment.batches)
    return replace(
        last,
        segment=replace(last.segment, batches=batches),
        first_frame=pieces[0].first_frame,
        frames=tuple(frame for piece in pieces for frame in piece.frames),
        blocks=tuple(count for piece in pieces for count in piece.blocks),
    )
