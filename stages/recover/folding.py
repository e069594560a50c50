"""From what a map begins with to its point: the commits between, folded one after the other.

So opening a point costs reading those commits, whatever the size of the disks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from stages.errors import UNREADABLE, DamagedObject
from stages.model import U64, Runs, distinct
from stages.ports import Files
from stages.recover.again import floors
from stages.recover.beneath import Beneath, ParentMap
from stages.recover.changes import Changes, scratch_room
from stages.recover.directory import Directory, Pages
from stages.recover.doubt import Hole
from stages.recover.opened import Group
from stages.vault import layout, location
from stages.vault.checkpoint import PAGE_ROWS, Manifest
from stages.vault.commits import Commit
from stages.vault.fold import CopyRefs, SetData, SetZero, check_bounds, steps
from stages.vault.records import MachineRecord
from stages.vault.rollup import SPAN


class Folding:
    """One reading of a map, under the floors of the moment it began; call ``begin`` first.

    ``begun`` is the commit of the checkpoint that was taken over, 0 without one; ``machine`` the
    record in force at the point. With ``salvage`` a commit that cannot be read is a hole, not an
    error.
    """

    def __init__(
        self,
        group: Group,
        files: Files,
        machine: MachineRecord,
        open_parent: Callable[[], Awaitable[ParentMap]],
        *,
        salvage: bool,
    ):
        self.group = group
        self.machine = machine
        self.salvage = salvage
        self.floors = floors(group)
        self.begun = 0
        pages = Pages(group)
        self.changes = Changes(files)
        self.beneath = Beneath(pages, open_parent)
        self.directory = Directory(pages, "")
        if group.record.parent is not None:
            self.directory.begin_at(self.beneath.places)
        self._at = 0  # the commit folded last
        self._link: bytes | None = None  # its digest; None after a hole
        self._lost_records: set[int] = set()
        self._touched: dict[int, set[int]] = {}

    async def begin(self, manifest: Manifest | None) -> None:
        """Take over a checkpoint; without one a branch begins with its parent's map.

        Raises ``Damage``, ``NoSpace``.
        """
        with scratch_room():
            if manifest is not None:
                self._adopt(manifest)
            elif self.group.record.parent is not None:
                parent = await self.beneath.begin_at_parent()
                for disk in parent.machine.disks:
                    self.changes.begin(disk.number, disk.blocks)
                self.changes.doubt = parent.take_doubt()

    def _adopt(self, manifest: Manifest) -> None:
        self._at = self.begun = manifest.seq
        self._link = manifest.link
        self.beneath.adopt(manifest)
        for disk in manifest.disks:
            self.changes.begin(disk.number, disk.blocks)
        for pages in manifest.epochs:
            self.directory.adopt(pages)

    async def up_to(self, seq: int, machine: MachineRecord) -> None:
        """Fold the commits up to ``seq``, where ``machine`` is the record in force.

        Raises ``Damage`` naming the commit that stands in the way, ``NoSpace``.
        """
        self.machine = machine
        self.directory.subject = layout.commit(self.group.scope.group, seq)
        with scratch_room():
            while self._at < seq:
                until = min(seq, (self._at // SPAN + 1) * SPAN)
                try:
                    await self._stretch(until)
                except UNREADABLE:
                    if not self.salvage:
                        raise
                    await self._around_holes(until)
            self.changes.follow(machine)

    async def locations(self, disk: int, first: int, count: int) -> U64:
        """Locations (count,) of blocks; 0 and 1 are zeros. Raises ``Damage``, ``NoSpace``."""
        over = self.changes.read(disk, first, count)
        if over.all():
            return over
        return np.where(over != 0, over, await self.beneath.locations(disk, first, over))

    async def gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,), any order. Raises ``Damage``, ``NoSpace``."""
        values = self.changes.gather(disk, blocks)
        unchanged = np.flatnonzero(values == 0)
        if len(unchanged):
            values[unchanged] = await self.beneath.gather(disk, blocks[unchanged])
        return values

    def take_touched(self) -> dict[int, list[int]]:
        """By disk the pages that may have got frames since this was asked last, ascending."""
        touched, self._touched = self._touched, {}
        return {disk: sorted(pages) for disk, pages in touched.items()}

    def become(self, fresh: Folding) -> None:
        """Take over what another reading of the same point found, and close what this one had.

        Whoever looks meanwhile has to look again.
        """
        self.close()
        self.begun, self.floors = fresh.begun, fresh.floors
        self.changes, self.beneath = fresh.changes, fresh.beneath
        self.directory = fresh.directory

    def close(self) -> None:
        """Release the scratch files."""
        self.changes.close()
        self.beneath.close()

    async def _stretch(self, last: int) -> None:
        for commit in await self.group.log.stretch(self._at + 1, last, self._link):
            await self._fold(commit)
            self._at, self._link = commit.header.seq, commit.link

    async def _around_holes(self, last: int) -> None:
        """Commit by commit, each proven by its own signature; what cannot be read is a hole."""
        link: bytes | None = None
        for seq in range(self._at + 1, last + 1):
            key = layout.commit(self.group.scope.group, seq)
            try:
                commit = await self.group.log.signed(seq)
                if seq == 1:
                    link = self.group.log.genesis
                if link not in (None, commit.header.previous):
                    self._hole(Hole(key, "does not follow the commit before it"))
                link = commit.link
                await self._fold(commit)
            except UNREADABLE as error:
                reason = error.message if error.subject == key else str(error)
                self._hole(Hole(key, reason))
                link = None
            self._at = seq
        self._link = None

    def _hole(self, hole: Hole) -> None:
        self.changes.hole(hole, self.machine.disks)

    async def _fold(self, commit: Commit) -> None:
        header, key = commit.header, commit.container.key
        if header.epoch <= self.group.above:
            what = "its epoch is not above that of the commit that the branch begins at"
            raise DamagedObject(what, subject=key)
        await self._follow(header.machine)
        keys = await self.group.ring.keys(header.epoch)
        segments = commit.index(self.group.scope, keys)
        check_bounds(segments, self.changes.rows(), key)
        for step in steps(header, segments):
            match step:
                case SetData(disk=disk, runs=runs):
                    self.changes.data(step)
                    self._touch(disk, runs)
                case SetZero():
                    self.changes.zero(step)
                case CopyRefs():
                    self.changes.copy(step, await self._targets(step, key))
                    for disk in distinct(step.disk).tolist():
                        blocks = step.block[step.disk == disk]
                        self._touch(disk, Runs(blocks, np.ones_like(blocks)))
        self.directory.add(header, segments)

    def _touch(self, disk: int, runs: Runs) -> None:
        """Frames may have come to the pages of these runs; zeros bring none."""
        size = np.uint64(PAGE_ROWS)
        low, high = runs.start // size, (runs.start + runs.count - np.uint64(1)) // size
        pages = self._touched.setdefault(disk, set())
        pages.update(low.tolist(), high.tolist())
        for at in np.flatnonzero(high > low + np.uint64(1)).tolist():
            pages.update(range(int(low[at]), int(high[at])))

    async def _follow(self, number: int) -> None:
        """The machine record that a commit names; one of the past can be done without."""
        if number not in self._lost_records:
            try:
                self.changes.follow(await self.group.machine(number))
            except UNREADABLE as error:
                if number == self.machine.number:
                    raise
                self._lost_records.add(number)
                self.group.log.note(f"{error}; sizes are taken from the one in force")
        if number in self._lost_records:
            self.changes.cover(self.machine.disks)

    async def _targets(self, step: CopyRefs, key: str) -> U64:
        """What references (n,) stand for, as the map is now; unset becomes an explicit zero."""
        found = np.zeros(len(step.block), np.uint64)
        rows = self.changes.rows()
        for disk in distinct(step.target_disk).tolist():
            here = np.flatnonzero(step.target_disk == disk)
            wanted = step.target_block[here]
            if int(wanted.max()) >= rows.get(disk, 0):
                raise DamagedObject("a reference leaves the disks", subject=key)
            found[here] = await self.gather(disk, wanted)
        found[found == location.UNSET] = location.ZERO
        return found
