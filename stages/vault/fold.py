"""A commit as steps on a block map: the one place that says in which order they apply.

Within a segment: first the locations of data blocks and the zero runs, then all references at
once, each seeing the map as the first two left it (R17).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from stages.errors import DamagedObject
from stages.model import BLOCK_BITS, U64, Runs
from stages.vault import location
from stages.vault.commit import Header, Part, SegmentIndex, unpack_refs


@dataclass(frozen=True, slots=True)
class SetData:
    """Blocks whose content is at ``locations`` (n, 1)."""

    disk: int
    runs: Runs
    locations: U64


@dataclass(frozen=True, slots=True)
class SetZero:
    """Blocks that are zero now."""

    disk: int
    runs: Runs


@dataclass(frozen=True, slots=True)
class CopyRefs:
    """All references of a segment: blocks take the locations of targets, read before any is set.

    Four columns (n,): a block may be named twice, then the later row counts.
    """

    disk: U64
    block: U64
    target_disk: U64
    target_block: U64


Step: TypeAlias = SetData | SetZero | CopyRefs
_SHIFT = np.uint64(BLOCK_BITS)
_BLOCK_MASK = np.uint64((1 << BLOCK_BITS) - 1)


def steps(header: Header, segments: tuple[SegmentIndex, ...]) -> Iterator[Step]:
    """The steps of one commit. The references of a segment come after its other steps, as one."""
    frame = header.first_frame
    for segment in segments:
        locations = location.of_frames(header.epoch, frame, segment.spans[:, 2])
        frame += len(segment.spans)
        at = 0
        for part in segment.parts:
            count = part.data.total
            if count:
                yield SetData(part.disk, part.data, locations[at : at + count, None])
                at += count
            if len(part.zero.start):
                yield SetZero(part.disk, part.zero)
        if any(len(part.refs) for part in segment.parts):
            yield _references(segment.parts)


def _references(parts: tuple[Part, ...]) -> CopyRefs:
    blocks, targets = unpack_refs(np.concatenate([part.refs for part in parts]))
    counts = [int(part.refs[:, 2].sum()) for part in parts]
    disks = np.repeat(np.array([part.disk for part in parts], np.uint64), counts)
    return CopyRefs(disks, blocks, targets >> _SHIFT, targets & _BLOCK_MASK)


def check_bounds(segments: tuple[SegmentIndex, ...], blocks: dict[int, int], key: str) -> None:
    """Raise ``DamagedObject`` if an index leaves the disks, before anything is allocated for it.

    ``blocks``: disk number to blocks of the disk.
    """
    for segment in segments:
        for part in segment.parts:
            limit = blocks.get(part.disk)
            if limit is None:
                raise DamagedObject(f"names an unknown disk {part.disk}", subject=key)
            ref_runs = Runs(part.refs[:, 0], part.refs[:, 2])
            for runs in (part.data, part.zero, ref_runs):
                ends = runs.start + runs.count
                if len(ends) and (int(ends.max()) > limit or int(runs.count.max()) > limit):
                    raise DamagedObject("its index leaves the disk", subject=key)
