"""Commits: the clear, signed header and the sealed body of ``log/<seq>``.

The header is what fencing, retention and choosing a point need; the body says which blocks of which
disks the frames hold, and can only be read with the epoch's index key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import DamagedObject, UnknownVersion
from stages.model import BLOCK_BITS, FRAME_BLOCKS, MAX_DISKS, U32, U64, Runs
from stages.vault.codec import Fields, pack
from stages.vault.container import Container, Kind
from stages.vault.sealing import Scope
from stages.vault.terms import MAX_EPOCH, check_place

FORMAT = 1
MAX_SEGMENTS = 4096
MAX_OBJECTS = 4096
MAX_PARTS = 65536
MAX_FRAMES = 1 << 24
FRAME_NUMBERS = 1 << 32  # locations have 32 bits for a frame's number
MAX_SEGMENT_BLOCKS = 1 << 23  # content and references: bounds what a reader allocates
GRADES = ("crash", "app", "planned", "quiet", "fuzzy")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A data object named by a commit: number within the epoch, size in bytes, digest."""

    number: int
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What a commit says in clear.

    ``previous``: digest of commit ``seq - 1`` (zeros for the first). ``grade``: the point's class.
    ``stamp``: µs, strictly rising along the log; ``wall``: the clock beside it (R19).
    ``checkpoint``: newest checkpoint before this commit, or 0. ``machine``: record in force.
    """

    seq: int
    epoch: int
    previous: bytes
    objects: tuple[ObjectRef, ...]
    first_frame: int
    frames: int
    consistent: bool
    last_consistent: int
    grade: str
    stamp: int
    wall: int
    checkpoint: int
    machine: int

    def fields(self, scope: Scope) -> dict[str, Any]:
        """As msgpack fields; the container adds writer and digests."""
        return scope.fields() | {
            "format": FORMAT,
            "seq": self.seq,
            "epoch": self.epoch,
            "previous": self.previous,
            "objects": [
                {"number": ref.number, "size": ref.size, "digest": ref.digest}
                for ref in self.objects
            ],
            "first_frame": self.first_frame,
            "frames": self.frames,
            "consistent": self.consistent,
            "last_consistent": self.last_consistent,
            "grade": self.grade,
            "stamp": self.stamp,
            "wall": self.wall,
            "checkpoint": self.checkpoint,
            "machine": self.machine,
        }


def read_header(found: Container, scope: Scope, seq: int) -> Header:
    """Check and take the header of commit ``seq``. Raises ``DamagedObject``; no signature check."""
    if found.kind is not Kind.COMMIT:
        raise DamagedObject("not a commit", subject=found.key)
    check_place(found, scope)
    fields = found.header
    _check_format(fields)
    if fields.number("seq") != seq:
        raise DamagedObject("is the commit of another number", subject=found.key)
    header = _header(fields, seq)
    if header.grade not in GRADES:
        raise DamagedObject("unknown grade", subject=found.key)
    if not header.epoch or header.first_frame + header.frames > FRAME_NUMBERS:
        raise DamagedObject("its frames have no locations", subject=found.key)
    if max(header.last_consistent, header.checkpoint) >= seq:
        raise DamagedObject("points forward in the log", subject=found.key)
    return header


def _header(fields: Fields, seq: int) -> Header:
    return Header(
        seq=seq,
        epoch=fields.number("epoch", MAX_EPOCH),
        previous=fields.raw("previous", 32),
        objects=tuple(
            ObjectRef(ref.number("number"), ref.number("size"), ref.raw("digest", 32))
            for ref in fields.maps("objects", MAX_OBJECTS)
        ),
        first_frame=fields.number("first_frame", FRAME_NUMBERS),
        frames=fields.number("frames", MAX_FRAMES),
        consistent=fields.flag("consistent"),
        last_consistent=fields.number("last_consistent"),
        grade=fields.text("grade"),
        stamp=fields.number("stamp"),
        wall=fields.number("wall"),
        checkpoint=fields.number("checkpoint"),
        machine=fields.number("machine"),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One disk's share of a segment.

    ``data``: blocks whose content the segment's frames hold, in frame order. ``zero``: blocks that
    are zero. ``refs`` (n, 3) uint64: block, packed block it equals (after data and zero runs of
    the whole segment have been applied), count of consecutive pairs.
    """

    disk: int
    data: Runs
    zero: Runs
    refs: U64


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """One segment of a commit. ``source``: index into the header's objects, or -1 for the tail.

    ``spans`` (n, 3) uint32: offset, stored length and blocks of each frame.
    """

    source: int
    spans: U32
    parts: tuple[Part, ...]


def pack_refs(refs: U64) -> U64:
    """Fold pairs (n, 2) of consecutive block and target into runs (m, 3)."""
    if not len(refs):
        return np.empty((0, 3), np.uint64)
    step = np.diff(refs.astype(np.int64), axis=0)
    heads = np.flatnonzero(np.concatenate(([True], (step != 1).any(axis=1))))
    counts = np.diff(np.concatenate((heads, [len(refs)])))
    return np.column_stack((refs[heads], counts.astype(np.uint64)))


def unpack_refs(runs: U64) -> tuple[U64, U64]:
    """Expand ref runs (m, 3) to blocks (n,) and packed targets (n,)."""
    return Runs(runs[:, 0], runs[:, 2]).blocks(), Runs(runs[:, 1], runs[:, 2]).blocks()


def encode_body(segments: tuple[SegmentIndex, ...]) -> bytes:
    """The plain body: msgpack with little-endian arrays."""
    return pack(
        {
            "format": FORMAT,
            "segments": [
                {
                    "source": segment.source + 1,
                    "spans": segment.spans.astype("<u4").tobytes(),
                    "parts": [
                        {
                            "disk": part.disk,
                            "data": _runs_bytes(part.data),
                            "zero": _runs_bytes(part.zero),
                            "refs": part.refs.astype("<u8").tobytes(),
                        }
                        for part in segment.parts
                    ],
                }
                for segment in segments
            ],
        }
    )


def decode_body(plain: bytes, header: Header, key: str) -> tuple[SegmentIndex, ...]:
    """Undo ``encode_body`` and hold it against the header. Raises ``DamagedObject``."""
    fields = Fields.decode(plain, key)
    _check_format(fields)
    segments = tuple(_segment(entry, header) for entry in fields.maps("segments", MAX_SEGMENTS))
    if sum(len(segment.spans) for segment in segments) != header.frames:
        raise DamagedObject("frames of body and header differ", subject=key)
    return segments


def _segment(entry: Fields, header: Header) -> SegmentIndex:
    source = entry.number("source", len(header.objects)) - 1
    spans = entry.array("spans", "<u4", 3)
    parts = tuple(_part(part) for part in entry.maps("parts", MAX_PARTS))
    held = sum(part.data.total for part in parts)
    if held + sum(int(part.refs[:, 2].sum()) for part in parts) > MAX_SEGMENT_BLOCKS:
        raise DamagedObject("a segment names too many blocks", subject=entry.subject)
    if (spans[:, 1:] == 0).any() or (spans[:, 2] > FRAME_BLOCKS).any():
        raise DamagedObject("frame sizes out of bounds", subject=entry.subject)
    if held != int(spans[:, 2].sum(dtype=np.uint64)):
        raise DamagedObject("a segment's index does not match its frames", subject=entry.subject)
    return SegmentIndex(source, spans, parts)


def _part(entry: Fields) -> Part:
    refs = entry.array("refs", "<u8", 3)
    _check_runs(refs[:, 0], refs[:, 2], MAX_SEGMENT_BLOCKS, entry)
    return Part(
        disk=entry.number("disk", MAX_DISKS - 1),
        data=_runs(entry, "data", MAX_SEGMENT_BLOCKS),
        zero=_runs(entry, "zero", 1 << BLOCK_BITS),
        refs=refs,
    )


def _runs(entry: Fields, name: str, most: int) -> Runs:
    pairs = entry.array(name, "<u8", 2)
    runs = Runs(pairs[:, 0], pairs[:, 1])
    _check_runs(runs.start, runs.count, most, entry)
    return runs


def _check_runs(starts: U64, counts: U64, most: int, entry: Fields) -> None:
    """Each run by itself is small, so that no sum over runs can pass 64 bits unnoticed."""
    if not len(starts):
        return
    if int(starts.max()) >> BLOCK_BITS or not counts.all() or int(counts.max()) > most:
        raise DamagedObject("a run out of bounds", subject=entry.subject)


def _check_format(fields: Fields) -> None:
    found = fields.number("format")
    if found != FORMAT:
        raise UnknownVersion(
            f"commit format {found}, this program reads {FORMAT}",
            subject=fields.subject,
            hint="use the Backstay release that wrote this vault, or a newer one",
        )


def _runs_bytes(runs: Runs) -> bytes:
    return np.column_stack((runs.start, runs.count)).astype("<u8").tobytes()
