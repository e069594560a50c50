"""Which frames the offered points need, and what holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from stages.errors import DamagedObject
from stages.model import U64, Bools, Disk
from stages.ports import Files
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import location
from stages.vault.checkpoint import PAGE_ROWS
from stages.vault.floors import Floor
from stages.vault.log import Log

_CHUNK = 1 << 16  # frames whose places are looked up together


class Frames:
    """A set of frames; those of epochs up to ``above`` are another group's and left out."""

    def __init__(self, above: int = 0):
        self._above = above
        self._epochs: dict[int, Bools] = {}

    def add(self, locations: U64) -> None:
        """Take in the frames of locations (n,)."""
        frames = location.frame_of(locations[locations > location.ZERO])
        epochs = frames >> np.uint64(32)
        for epoch in np.unique(epochs).tolist():
            if epoch > self._above:
                numbers = (frames[epochs == epoch] & np.uint64(0xFFFFFFFF)).astype(np.int64)
                self._flags(epoch, int(numbers.max()))[numbers] = True

    def __len__(self) -> int:
        return sum(int(flags.sum()) for flags in self._epochs.values())

    def numbers(self) -> U64:
        """All of them as ``location.frame_of`` numbers, ascending."""
        found = [
            np.flatnonzero(flags).astype(np.uint64) | np.uint64(epoch << 32)
            for epoch, flags in sorted(self._epochs.items())
        ]
        return np.concatenate(found) if found else np.zeros(0, np.uint64)

    def _flags(self, epoch: int, most: int) -> Bools:
        flags = self._epochs.get(epoch)
        if flags is None or len(flags) <= most:
            grown = np.zeros(max(4096, 2 * most), np.bool_)
            if flags is not None:
                grown[: len(flags)] = flags
            flags = self._epochs[epoch] = grown
        return flags


def view(group: Group, floor: Floor) -> Group:
    """The group as a reader opens it who finds ``floor`` in force."""
    log = Log(group.log.store, group.scope, group.ring)
    log.begin_at(group.record.parent)
    log.floor, log.pinned = floor, True
    return replace(group, log=log, parent=None)


async def live_frames(group: Group, files: Files, seqs: list[int]) -> Frames:
    """The frames of the group's own epochs that points ``seqs``, ascending, need.

    Raises ``Damage``.

    Points that are read from the same checkpoint are walked through: each commit is folded once,
    and of the later points only pages are looked at that were written to between. A checkpoint's
    page that several points have in common is looked at once, too.
    """
    await parent_of(group)
    frames = Frames(group.above)
    seen: set[tuple[int, int, int, int, int]] = set()
    for walked in _from_one_base(group, seqs):
        point = await PointMap.build(group, files, walked[0])
        try:
            written: dict[int, list[int]] = {}
            known: dict[int, int] = {}  # disks of the point before, and their blocks
            for seq in walked:
                if seq != point.seq:
                    written = await point.advance(seq)
                for disk in point.machine.disks:
                    pages: Iterable[int] = written.get(disk.number, ())
                    if disk.blocks > known.get(disk.number, 0):
                        pages = range(-(-disk.blocks // PAGE_ROWS))
                    await _look(point, disk, pages, frames, seen)
                known = {disk.number: disk.blocks for disk in point.machine.disks}
        finally:
            point.close()
    return frames


def _from_one_base(group: Group, seqs: list[int]) -> list[list[int]]:
    """Points that follow each other and are read from the same checkpoint."""
    found: list[list[int]] = []
    for seq in sorted(set(seqs)):
        base = group.log.base(seq)
        if found and base == group.log.base(found[-1][0]):
            found[-1].append(seq)
        else:
            found.append([seq])
    return found


async def _look(
    point: PointMap,
    disk: Disk,
    pages: Iterable[int],
    frames: Frames,
    seen: set[tuple[int, int, int, int, int]],
) -> None:
    for page in pages:
        first = page * PAGE_ROWS
        if first >= disk.blocks:
            continue
        stored = point.stored(disk.number, page)
        name = stored and (disk.number, page, *stored)
        if name in seen:
            continue
        frames.add(await point.locations(disk.number, first, min(PAGE_ROWS, disk.blocks - first)))
        if name:
            seen.add(name)


@dataclass
class Holders:
    """Bytes of needed frames by what holds them."""

    data: dict[tuple[int, int], int] = field(default_factory=dict)
    tails: dict[int, int] = field(default_factory=dict)
    packs: dict[int, int] = field(default_factory=dict)

    def add(self, frames: U64, rows: U64) -> None:
        """Take in frames (n,) at places (n, 2)."""
        epochs = frames >> np.uint64(32)
        lengths = (rows[:, 1] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        keys = np.column_stack((epochs, rows[:, 0]))
        keys[(rows[:, 0] >> np.uint64(62)) != 0, 0] = 0  # commits and packs go by their number
        distinct, which = np.unique(keys, axis=0, return_inverse=True)
        totals = np.bincount(which.reshape(-1), weights=lengths.astype(np.float64))
        for (epoch, number), total in zip(distinct.tolist(), totals.tolist(), strict=True):
            self._count(epoch, number, int(total))

    def _count(self, epoch: int, number: int, total: int) -> None:
        if number & location.INLINE:
            seq = number & ~location.INLINE
            self.tails[seq] = self.tails.get(seq, 0) + total
        elif number & location.PACKED:
            pack = number & ~location.PACKED
            self.packs[pack] = self.packs.get(pack, 0) + total
        else:
            self.data[epoch, number] = self.data.get((epoch, number), 0) + total


Visit = Callable[[U64, U64], None]


async def places_of(point: PointMap, frames: U64, visit: Visit) -> None:
    """Call ``visit`` with stretches of frames (n,) and where they are (n, 2). Raises ``Damage``."""
    for at in range(0, len(frames), _CHUNK):
        some = frames[at : at + _CHUNK]
        rows = await point.places(some)
        if not rows[:, 1].all():
            raise DamagedObject("the map names unknown frames", subject=str(point.seq))
        visit(some, rows)
