"""Where a block's content is: 64 bits, and what they resolve to.

``epoch`` (24 bits) | frame within the epoch (32) | block within the frame (8). 0 is *unset* (never
sent: reads as zeros), 1 is *zero*. The numbers are virtual: a frame moved by repacking keeps them.

A frame's place is two columns: object number, with bit 63 set for frames inside the commit of that
number, bit 62 for frames that were moved to the pack of that number; and offset (32 bits) | length
(32 bits). Offsets into a commit or a pack count from its tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.model import U32, U64

UNSET, ZERO = 0, 1
_FRAME_SHIFT, _EPOCH_SHIFT = 8, 40
INLINE = 1 << 63
PACKED = 1 << 62


@dataclass(frozen=True, slots=True)
class Place:
    """One frame's place: object (data object, commit or pack), offset and length in bytes."""

    inline: bool
    number: int
    offset: int
    length: int
    packed: bool = False


def of_frames(epoch: int, first_frame: int, blocks: U32) -> U64:
    """Locations of all blocks of consecutive frames that hold ``blocks`` (n,) blocks each."""
    total = int(blocks.sum())
    starts = np.cumsum(blocks, dtype=np.uint64) - blocks
    frame = np.repeat(np.arange(first_frame, first_frame + len(blocks), dtype=np.uint64), blocks)
    slot = np.arange(total, dtype=np.uint64) - np.repeat(starts, blocks)
    base = np.uint64(epoch << _EPOCH_SHIFT)
    located: U64 = base | (frame << np.uint64(_FRAME_SHIFT)) | slot
    return located


def frame_of(locations: U64) -> U64:
    """Epoch and frame as one number, the slot dropped."""
    return locations >> np.uint64(_FRAME_SHIFT)


def slot_of(locations: U64) -> U64:
    """Block within the frame."""
    return locations & np.uint64((1 << _FRAME_SHIFT) - 1)


def frame_and_slot(located: int) -> tuple[int, int]:
    """Of one location: its frame as in ``frame_of``, and the block within it."""
    return located >> _FRAME_SHIFT, located & ((1 << _FRAME_SHIFT) - 1)


def in_one_frame(locations: U64) -> int | None:
    """The first of locations (n,) if they are consecutive blocks of one frame, else None."""
    first, count = int(locations[0]), len(locations)
    last = first + count - 1
    if first <= ZERO or first >> _FRAME_SHIFT != last >> _FRAME_SHIFT:
        return None
    if count > 1 and not (locations[1:] - locations[:-1] == np.uint64(1)).all():
        return None
    return first


def split(frame: int) -> tuple[int, int]:
    """Epoch and frame within it, from one number of ``frame_of``."""
    return frame >> (_EPOCH_SHIFT - _FRAME_SHIFT), frame & ((1 << 32) - 1)


def places(number: int, inline: bool, spans: U32) -> U64:
    """Directory rows (n, 2) of frames with ``spans`` (n, 3): offset, length, blocks."""
    rows = np.empty((len(spans), 2), np.uint64)
    rows[:, 0] = number | (INLINE if inline else 0)
    rows[:, 1] = spans[:, 0].astype(np.uint64) << np.uint64(32) | spans[:, 1]
    return rows


def place(row: U64) -> Place:
    """Decode one directory row (2,)."""
    number, span = int(row[0]), int(row[1])
    where = number & ~(INLINE | PACKED)
    inline, packed = bool(number & INLINE), bool(number & PACKED)
    return Place(inline, where, span >> 32, span & 0xFFFFFFFF, packed)
