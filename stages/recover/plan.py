"""From locations to objects and ranges: which frames, where they are, which blocks take them. Pure.

Blocks are grouped by frame, so a frame is fetched and expanded once for all blocks of a window that
need it, however writes and references have scattered them; frames are grouped into hauls, one
ranged get each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.errors import DamagedObject
from stages.model import BLOCK, U64
from stages.vault import layout, location

HAUL_BYTES = 4 << 20
GAP = 64 << 10  # bytes between two frames that are cheaper read over than asked for separately
_LONGEST = 1 << 20  # no frame is longer: what a directory says beyond it is not believed


@dataclass(frozen=True, slots=True)
class FrameNeed:
    """A frame and what is taken from it: block ``slots`` (n,) go to disk blocks ``blocks`` (n,).

    ``slots`` ascend.
    """

    epoch: int
    number: int
    slots: U64
    blocks: U64

    def within(self, size: int, subject: str) -> None:
        """``DamagedObject`` if a frame of ``size`` bytes does not hold all of it."""
        if int(self.slots[-1]) * BLOCK >= size:
            raise DamagedObject("frame of fewer blocks than its index says", subject=subject)


@dataclass(frozen=True, slots=True)
class Haul:
    """One get: bytes ``offset`` to ``offset + length`` of ``key``, at most ``HAUL_BYTES``.

    ``tail`` True: offsets count from the tail of the commit or pack of that key. ``frames``: offset
    within the object, stored length, need.
    """

    key: str
    tail: bool
    offset: int
    length: int
    frames: tuple[tuple[int, int, FrameNeed], ...]


def needs(locations: U64, first: int) -> tuple[U64, list[FrameNeed]]:
    """Group blocks from ``first`` on by frame. Returns ascending frame numbers and their needs.

    ``locations`` (n,): unset and zero are left out.
    """
    at = np.flatnonzero(locations > location.ZERO)
    if not len(at):
        return np.empty(0, np.uint64), []
    # Locations of one frame ascend with its slots, so one stable sort groups and orders them.
    order = at[np.argsort(locations[at], kind="stable")]
    sorted_locations = locations[order]
    frames = location.frame_of(sorted_locations)
    heads = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    bounds = [*heads.tolist(), len(order)]
    slots = location.slot_of(sorted_locations)
    blocks = order.astype(np.uint64) + np.uint64(first)
    found = []
    for low, high in itertools.pairwise(bounds):
        epoch, number = location.split(int(frames[low]))
        found.append(FrameNeed(epoch, number, slots[low:high], blocks[low:high]))
    return frames[heads], found


def hauls(
    group: bytes, wanted: list[FrameNeed], rows: U64, owners: Mapping[int, bytes] | None = None
) -> list[Haul]:
    """Ranged gets for ``wanted`` frames at directory ``rows`` (n, 2), neighbours together.

    ``owners``: groups by epoch, of epochs that are not those of ``group``.
    """
    owners = owners or {}
    by_object: dict[tuple[bytes, int, int], list[tuple[int, int, FrameNeed]]] = {}
    offsets = (rows[:, 1] >> np.uint64(32)).tolist()
    lengths = np.minimum(rows[:, 1] & np.uint64(0xFFFFFFFF), np.uint64(_LONGEST)).tolist()
    for need, number, offset, length in zip(
        wanted, rows[:, 0].tolist(), offsets, lengths, strict=True
    ):
        # Commits and packs hold frames of several epochs, data objects of one.
        epoch = 0 if number >= location.PACKED else need.epoch
        name = (owners.get(need.epoch, group), epoch, number)
        by_object.setdefault(name, []).append((offset, length, need))
    found = []
    for (key, tail), frames in sorted(
        ((_key(*name), frames) for name, frames in by_object.items()), key=lambda item: item[0]
    ):
        frames.sort(key=lambda frame: frame[0])
        start = 0
        for at in range(1, len(frames) + 1):
            if at == len(frames) or _apart(frames[start], frames[at - 1], frames[at]):
                found.append(_haul(key, tail, frames[start:at]))
                start = at
    return found


def _key(group: bytes, epoch: int, number: int) -> tuple[str, bool]:
    """Of the object in the first column of a directory row; and whether offsets are its tail's."""
    place = number & ~(location.INLINE | location.PACKED)
    if number & location.PACKED:
        return layout.pack(group, place), True
    if number & location.INLINE:
        return layout.commit(group, place), True
    return layout.data(group, epoch, place), False


def _apart(
    first: tuple[int, int, FrameNeed],
    last: tuple[int, int, FrameNeed],
    following: tuple[int, int, FrameNeed],
) -> bool:
    far = following[0] > last[0] + last[1] + GAP
    return far or following[0] + following[1] - first[0] > HAUL_BYTES


def _haul(key: str, tail: bool, frames: list[tuple[int, int, FrameNeed]]) -> Haul:
    offset = frames[0][0]
    end = max(at + length for at, length, _ in frames)
    return Haul(key, tail, offset, end - offset, tuple(frames))
