"""Block maps held against a fold that takes one block at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.model import BLOCK, U64, Disk
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import location
from stages.vault.commit import unpack_refs
from tests.recover.past import machine

FILES = machine().files
ROOT, DATA = 1, 2
# Around the borders of pages: 4,096 rows in scratch files, 8,192 in checkpoints.
PLACES = (0, 2, 64, 4095, 4096, 8191, 8192, 19999)
Known = dict[tuple[int, int], int]
Rows = dict[tuple[int, int], tuple[int, int]]


async def naive(group: Group, seq: int) -> tuple[Known, Rows]:
    """Locations of blocks, places of frames: all commits, block by block."""
    known: Known = {}
    rows: Rows = {}
    for at in range(1, seq + 1):
        commit = await group.log.signed(at)
        for disk in (await group.machine(commit.header.machine)).disks:
            for gone in [key for key in known if key[0] == disk.number and key[1] >= disk.blocks]:
                del known[gone]
        index = commit.index(group.scope, await group.ring.keys(commit.header.epoch))
        frame = commit.header.first_frame
        for segment in index:
            places = []
            for offset, length, blocks in segment.spans.tolist():
                inline = segment.source < 0
                owner = at | location.INLINE if inline else commit.header.objects[segment.source]
                number = owner if isinstance(owner, int) else owner.number
                rows[commit.header.epoch, frame] = (number, offset << 32 | length)
                places += [commit.header.epoch << 40 | frame << 8 | slot for slot in range(blocks)]
                frame += 1
            for part in segment.parts:
                for block in part.data.blocks().tolist():
                    known[part.disk, block] = places.pop(0)
                for block in part.zero.blocks().tolist():
                    known.pop((part.disk, block), None)
            copied = []
            for part in segment.parts:
                found = zip(*(each.tolist() for each in unpack_refs(part.refs)), strict=True)
                for block, target in found:
                    other = (target >> 48, target & (1 << 48) - 1)
                    copied.append(((part.disk, block), known.get(other)))
            for place, value in copied:
                known.pop(place, None)
                if value is not None:
                    known[place] = value
    return known, rows


async def check(group: Group, seq: int, *, checkpoints: bool) -> None:
    """Hold a map against the naive one: all blocks, and the places of all frames they need."""
    known, rows = await naive(group, seq)
    point = await PointMap.build(group, FILES, seq, checkpoints=checkpoints)
    for disk in point.machine.disks:
        expected = np.zeros(disk.blocks, np.uint64)
        for (number, block), value in known.items():
            if number == disk.number:
                expected[block] = value
        found = await point.locations(disk.number, 0, disk.blocks)
        assert (content(found) == expected).all()
        for first in [place for place in PLACES if place < disk.blocks]:
            count = min(disk.blocks - first, 70)
            piece = await point.locations(disk.number, first, count)
            assert (content(piece) == expected[first : first + count]).all()
        frames = np.unique(location.frame_of(expected[expected > 0]))
        places = await point.places(frames)
        wanted = [rows[location.split(int(frame))] for frame in frames]
        assert [tuple(row) for row in places.tolist()] == wanted
    point.close()


def content(locations: U64) -> U64:
    """Locations, 0 for all kinds of zeros."""
    return np.where(locations > location.ZERO, locations, np.uint64(0))


def two_disks(root: int, data: int) -> tuple[Disk, Disk]:
    return Disk(ROOT, "root", root * BLOCK), Disk(DATA, "data", data * BLOCK - 100)


def open_files() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
