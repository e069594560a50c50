"""From sealed segments to a commit object and its intent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.crypto.digest import digest
from stages.model import U32, U64, Runs, SealedSegment, Segment
from stages.ports import Buffer
from stages.ship.ledger import Tail
from stages.ship.place import StreamPlace
from stages.ship.wal import ChunkUpdate, Intent
from stages.stream import Position
from stages.vault.commit import (
    Header,
    ObjectRef,
    Part,
    SegmentIndex,
    pack_refs,
)
from stages.vault.container import Kind, parse


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment whose content is in the vault, or will be inside the commit.

    ``spans`` (n, 3) uint32: offset, stored length, blocks. ``frames`` only for inline content.
    """

    segment: Segment
    epoch: int
    first_frame: int
    spans: U32
    ref: ObjectRef | None
    frames: tuple[bytes, ...]

    @property
    def stored_bytes(self) -> int:
        """Bytes of frames."""
        return int(self.spans[:, 1].sum(dtype=np.uint64))

    @property
    def index_bytes(self) -> int:
        """At most as many bytes as the commit's plain body takes for this segment's blocks."""
        batches = self.segment.batches
        runs = sum(len(batch.data) + len(batch.zero.start) for batch in batches)
        return 16 * runs + 24 * sum(len(batch.refs) for batch in batches)


def spans_of(sealed: SealedSegment) -> U32:
    """Where each frame of a segment lies in its object."""
    spans = np.empty((len(sealed.frames), 3), np.uint32)
    spans[:, 1] = [len(frame) for frame in sealed.frames]
    spans[:, 0] = np.cumsum(spans[:, 1]) - spans[:, 1]
    spans[:, 2] = sealed.blocks
    return spans


def parts_of(segment: Segment) -> tuple[Part, ...]:
    """The index of a segment: neighbouring batches of one disk become one part."""
    parts: list[Part] = []
    batches = list(segment.batches)
    at = 0
    while at < len(batches):
        disk = batches[at].disk
        end = at
        while end < len(batches) and batches[end].disk == disk:
            end += 1
        here = batches[at:end]
        part = Part(
            disk=disk,
            data=Runs.join([Runs.of(batch.data) for batch in here]),
            zero=Runs.join([batch.zero for batch in here]),
            refs=pack_refs(np.concatenate([batch.refs for batch in here])),
        )
        if part.data.total or len(part.zero.start) or len(part.refs):
            parts.append(part)
        at = end
    return tuple(parts)


def header_of(tail: Tail, epoch: int, group: list[Stored], wall: int) -> Header:
    """The header of the commit after ``tail``."""
    last = group[-1].segment
    captured = last.stamp or _without_records(tail, last, wall)
    consistent = not last.in_gap and last.grade != "fuzzy"
    return Header(
        seq=tail.seq + 1,
        epoch=epoch,
        previous=tail.link,
        objects=tuple(stored.ref for stored in group if stored.ref is not None),
        first_frame=group[0].first_frame,
        frames=sum(len(stored.spans) for stored in group),
        consistent=consistent,
        last_consistent=tail.last_consistent,
        grade=last.grade,
        stamp=max(captured, tail.stamp + 1),
        wall=wall,
        checkpoint=tail.checkpoint,
        machine=last.geometry,
    )


def _without_records(tail: Tail, last: Segment, wall: int) -> int:
    """The stamp of a commit that holds no record. In a live stream it shows what the commit before
    it shows, however late it is made: records captured meanwhile may be waiting behind it."""
    live = last.position[0] > 0
    return tail.stamp if live and tail.stamp else wall


def index_of(group: list[Stored]) -> tuple[SegmentIndex, ...]:
    """The body's segments; inline content lies one after the other in the commit's tail."""
    segments = []
    objects = inline_at = 0
    for stored in group:
        spans = stored.spans
        source = -1
        if stored.ref is not None:
            source, objects = objects, objects + 1
        elif len(spans):
            spans = spans.copy()
            spans[:, 0] += inline_at
            inline_at += stored.stored_bytes
        segments.append(SegmentIndex(source, spans, parts_of(stored.segment)))
    return tuple(segments)


def index_bytes(segment: Segment) -> int:
    """What a segment adds to an intent, at most: its index, digests and locations."""
    return sum(
        32 * len(batch.data)
        + 48 * len(batch.refs)
        + 16 * len(batch.zero.start)
        + 16 * len(batch.chunk_digests)
        for batch in segment.batches
    )


def intent_of(
    header: Header, parts: list[Buffer], plain: bytes, group: list[Stored], locations: U64
) -> Intent:
    """What to write down before the put of ``parts``, the built container."""
    head = bytes(parts[0])
    found = parse(head, "commit", Kind.COMMIT)
    batches = [batch for stored in group for batch in stored.segment.batches]
    none = np.empty((0, 2), np.uint64)
    return Intent(
        seq=header.seq,
        epoch=header.epoch,
        object_digest=digest(parts),
        link=found.digest,
        head=head,
        plain=plain,
        digests=np.concatenate([none, *(batch.digests for batch in batches)]),
        ref_digests=np.concatenate([none, *(batch.ref_digests for batch in batches)]),
        ref_locations=locations,
        chunks=tuple(
            ChunkUpdate(batch.disk, batch.chunk_first, batch.chunk_digests)
            for batch in batches
            if len(batch.chunk_digests)
        ),
        stream=_place_of(group[-1].segment),
    )


def _place_of(segment: Segment) -> StreamPlace | None:
    """Where a live stream goes on behind it."""
    run, offset = segment.position
    return StreamPlace(Position(run, offset), segment.in_gap) if run else None
