"""Which frames the offered points need, and what holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from stages.errors import UNREADABLE, DamagedObject
from stages.keeper.history import History
from stages.keeper.walk import Walk
from stages.model import U64, Bools, Disk
from stages.ports import Files
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import location
from stages.vault.checkpoint import PAGE_ROWS
from stages.vault.floors import Floor
from stages.vault.log import Log

Page: TypeAlias = tuple[int, int, int, int, int]  # disk, page, and where it is stored
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


async def live_frames(
    group: Group, files: Files, seqs: list[int], history: History | None = None
) -> Frames:
    """The frames of the group's own epochs that points ``seqs``, ascending, need.

    Raises ``Damage``.

    Points that are read from the same checkpoint are walked through: each commit is folded once,
    and of the later points only blocks are looked at that were written to between. A checkpoint's
    page that several points have in common is looked at once, too. If that does not go, each point
    is looked at by itself, as a reader would: it may know a way around what is damaged.
    """
    await parent_of(group)
    frames = Frames(group.above)
    history = history or History(group)
    seen: set[Page] = set()
    for walked in _from_one_base(group, seqs):
        try:
            await _walk(group, files, walked, history, frames, seen)
        except UNREADABLE:
            for seq in walked:
                await _alone(group, files, seq, frames, seen)
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


async def _walk(
    group: Group, files: Files, seqs: list[int], history: History, frames: Frames, seen: set[Page]
) -> None:
    point = await Walk.begin(group, files, seqs[0], history)
    try:
        known: dict[int, int] = {}  # disks of the point before, and their blocks
        for seq in seqs:
            if seq != point.seq:
                await point.advance(seq)
            for disk in point.machine.disks:
                new = point.new_locations(disk.number)
                if new is None or disk.blocks > known.get(disk.number, 0):
                    await _look(point, disk, frames, seen)
                else:
                    frames.add(new)
            known = {disk.number: disk.blocks for disk in point.machine.disks}
    finally:
        point.close()


async def _alone(group: Group, files: Files, seq: int, frames: Frames, seen: set[Page]) -> None:
    point = await PointMap.build(group, files, seq)
    try:
        for disk in point.machine.disks:
            await _look(point, disk, frames, seen)
    finally:
        point.close()


async def _look(point: PointMap, disk: Disk, frames: Frames, seen: set[Page]) -> None:
    for page in range(-(-disk.blocks // PAGE_ROWS)):
        first = page * PAGE_ROWS
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
