"""The map of one point after the other, for a keeper: many commits are folded at once.

A stretch of commits is one table of writes; of those to one block the last counts, as if each had
been folded by itself. What cannot be told so (references, long runs of zeros, anything odd) is
folded commit by commit, between two such tables. Which frames a point needs that those before it
did not is seen from the blocks written since: no page of the checkpoint is read for it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from stages.errors import DamagedObject
from stages.keeper.history import History
from stages.model import U64, Runs, empty_u64
from stages.ports import Files
from stages.recover.beneath import ParentMap
from stages.recover.checkpoints import nearest
from stages.recover.folding import Folding
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import layout
from stages.vault.commit import Header
from stages.vault.heads import Heads, Odd
from stages.vault.records import MachineRecord
from stages.vault.sealing import EpochKeys
from stages.vault.writes import Writes, read_writes

# Bounds what is held at a time: eight columns of that many rows, and their sort.
_FRAMES = 1 << 14  # of the commits that are folded at once: a million blocks at most
_WRITTEN = 1 << 20  # blocks of one disk that are remembered as written to


@dataclass
class _Written:
    """Blocks of a disk that were written to, some of them more than once. With more than
    ``_WRITTEN`` of them all of the disk is taken for written to."""

    parts: list[U64] = field(default_factory=list)
    count: int = 0
    all: bool = False

    def add(self, blocks: U64) -> None:
        if self.all:
            return
        self.parts.append(blocks)
        self.count += len(blocks)
        if self.count > 2 * _WRITTEN:
            self.parts = [self.blocks()]
            self.count = len(self.parts[0])
            self.all = self.count > _WRITTEN

    def blocks(self) -> U64:
        """Each once, ascending."""
        return np.unique(np.concatenate(self.parts)) if self.parts else np.zeros(0, np.uint64)


class Walk(PointMap):
    """A ``PointMap`` that goes on from point to point. It knows locations, not places.

    Make it with ``begin``.
    """

    def __init__(
        self, group: Group, files: Files, machine: MachineRecord, header: Header, history: History
    ):
        super().__init__(group, files, machine, header)
        self._folding = self._together = Together(
            group, files, machine, self._open_parent, history=history
        )

    @staticmethod
    async def begin(group: Group, files: Files, seq: int, history: History) -> Walk:
        """At ``seq``, from the nearest checkpoint. Raises ``Damage``."""
        await parent_of(group)
        newest = await group.log.signed(seq)
        machine = await group.machine(newest.header.machine)
        walk = Walk(group, files, machine, newest.header, history)
        base = group.log.base(seq)
        manifest = await nearest(group, newest)
        if manifest is None and base:
            raise DamagedObject("the checkpoint cannot be read", subject=str(base))
        await walk._read(manifest)
        return walk

    def new_locations(self, disk: int) -> U64 | None:
        """Locations of all blocks of a disk that were written to since this was asked last; None
        if they are too many to be remembered."""
        return self._together.new_locations(disk)


class Together(Folding):
    """Folds a stretch of commits at once, and remembers which blocks they wrote to."""

    def __init__(
        self,
        group: Group,
        files: Files,
        machine: MachineRecord,
        open_parent: Callable[[], Awaitable[ParentMap]],
        *,
        history: History,
    ):
        super().__init__(group, files, machine, open_parent, salvage=False)
        self._history = history
        self._written: dict[int, _Written] = {}

    def new_locations(self, disk: int) -> U64 | None:
        """See ``Walk``."""
        written = self._written.pop(disk, None)
        if written is None:
            return empty_u64()
        return None if written.all else self.changes.gather(disk, written.blocks())

    async def _stretch(self, last: int) -> None:
        first = self._at + 1
        heads = await self._history.stretch(first, last, self._link)
        if int(heads.epoch.min()) <= self.group.above:
            raise DamagedObject(
                "its epoch is not above that of the commit that the branch begins at",
                subject=layout.commit(self.group.scope.group, first),
            )
        keys = {
            epoch: await self.group.ring.keys(epoch) for epoch in np.unique(heads.epoch).tolist()
        }
        for part in _parts(heads):
            await self._follow(int(part.machine[0]))
            await self._fold_part(part, keys)
        self._at, self._link = last, heads.link(-1)

    async def _fold_part(self, part: Heads, keys: dict[int, EpochKeys]) -> None:
        """All at once; if there is something odd about it the same with its halves."""
        try:
            writes = read_writes(part, self.group.scope, keys)
            self._check(writes)
        except Odd:
            middle = len(part) // 2
            if middle:
                await self._fold_part(part.part(0, middle), keys)
                await self._fold_part(part.part(middle, len(part)), keys)
            else:
                await self._fold(self.group.log.parse(int(part.seq[0]), part.raw[0]))
        else:
            self._apply(writes)

    def _check(self, writes: Writes) -> None:
        """Raise ``Odd`` for blocks that lie on no disk."""
        rows = self.changes.rows()
        for disk in np.unique(writes.disk).tolist():
            blocks, _ = writes.of_disk(disk)
            if int(blocks.max()) >= rows.get(disk, 0):
                raise Odd("leaves the disks")

    def _apply(self, writes: Writes) -> None:
        for disk in np.unique(writes.disk).tolist():
            blocks, locations = writes.of_disk(disk)
            self.changes.put(disk, blocks, locations)
            self._remember(disk, blocks)

    def _touch(self, disk: int, runs: Runs) -> None:
        self._remember(disk, runs.blocks())

    def _remember(self, disk: int, blocks: U64) -> None:
        self._written.setdefault(disk, _Written()).add(blocks)


def _parts(heads: Heads) -> list[Heads]:
    """Cut where the machine record changes, and so that each part is of bounded size."""
    frames = np.cumsum(heads.frames)
    cuts = [0]
    for row in range(1, len(heads)):
        begun = int(frames[cuts[-1] - 1]) if cuts[-1] else 0
        if heads.machine[row] != heads.machine[row - 1] or int(frames[row]) - begun > _FRAMES:
            cuts.append(row)
    ends = [*cuts[1:], len(heads)]
    return [heads.part(low, high) for low, high in zip(cuts, ends, strict=True)]
