"""Every intent can be read again, every index decoded, however many references there are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config.units import MIB
from stages.cache.passthrough import REF_BYTES, PassThrough
from stages.capture.slots import MAX_BATCH
from stages.channel import Channel
from stages.model import (
    BLOCK,
    Batch,
    GapBegin,
    Runs,
    SealedSegment,
    Segment,
    StreamItem,
    empty_pairs,
    empty_u64,
)
from stages.ship.compose import Stored, index_bytes
from stages.ship.gather import join
from stages.ship.stage import GROUP_INDEX, GROUP_SEGMENTS, Ship
from stages.ship.wal import MAX_RECORD
from stages.stage import crew
from stages.vault.commit import MAX_SEGMENT_BLOCKS
from tests.ship.support import Content, block

LARGEST_SEAL = 64 * MIB  # what a configuration may ask for


def references(first: int, count: int) -> Batch:
    """So many blocks that equal block 0."""
    blocks = np.arange(first, first + count, dtype=np.uint64)
    return Batch(
        disk=0,
        data=empty_u64(),
        payload=np.empty((0, BLOCK), np.uint8),
        digests=empty_pairs(),
        zero=Runs.none(),
        refs=np.column_stack((blocks, np.zeros(count, np.uint64))),
        ref_digests=np.ones((count, 2), np.uint64),
        chunk_first=0,
        chunk_digests=empty_pairs(),
        scanned=count * BLOCK,
    )


@pytest.mark.parametrize("count", [1, 1023, 1024, MAX_BATCH // BLOCK])
async def test_a_segment_of_references_is_sealed_before_its_index_is_too_large(count: int) -> None:
    seal = LARGEST_SEAL // 64
    stream: Channel[StreamItem] = Channel("stream", max_bytes=1, max_items=1)
    segments: Channel[Segment] = Channel("segments", max_bytes=1 << 40, max_items=1000)
    cache = PassThrough(stream, segments, seal_bytes=seal, geometry=1)
    async with crew() as nursery:
        nursery.start_soon(cache.run)
        with stream:
            await stream.send(GapBegin("scan"), 1)
            for turn in range(2 + 2 * seal // max(BLOCK, REF_BYTES * count)):
                await stream.send(references(1 + turn * count, count), 1)
        async for segment in segments:
            held = sum(len(batch.refs) for batch in segment.batches)
            assert held <= seal // REF_BYTES + count


def test_the_largest_segment_fits_everywhere() -> None:
    most = LARGEST_SEAL // REF_BYTES + MAX_BATCH // BLOCK
    assert most <= MAX_SEGMENT_BLOCKS
    largest = index_bytes(Segment((references(0, most),), True, "quiet", 1))
    assert GROUP_INDEX + largest < MAX_RECORD


def test_segments_are_committed_together_only_while_their_index_is_small() -> None:
    def stored(count: int) -> Stored:
        segment = Segment((references(1, count),), True, "quiet", 1)
        return Stored(segment, 1, 0, np.empty((0, 3), np.uint32), None, ())

    small = stored(10)
    large = stored(GROUP_INDEX * 10 // index_bytes(small.segment) // 2 + 1)  # just above half
    assert Ship._may_join([small] * 8)
    assert Ship._may_join([large])
    assert not Ship._may_join([large, large])
    assert not Ship._may_join([small] * GROUP_SEGMENTS)


def test_pieces_become_one_segment_again() -> None:
    content = Content()
    content.resize(0, 3)
    batches = [content.batch(0, {at: block(at)}) for at in range(3)]
    pieces = [
        Segment((batch,), True, "quiet", 1, final=at == 2) for at, batch in enumerate(batches)
    ]
    sealed = [
        SealedSegment(piece, 4, 10 + at, (bytes([at]) * 5,), (1,))
        for at, piece in enumerate(pieces)
    ]
    whole = join(sealed)
    assert whole.segment.batches == tuple(batches)
    assert whole.segment.final
    assert (whole.first_frame, whole.frames, whole.blocks) == (
        10,
        (b"\0" * 5, b"\1" * 5, b"\2" * 5),
        (1, 1, 1),
    )
    assert join(sealed[:1]) is sealed[0]
