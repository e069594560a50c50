"""The block map of one point: checkpoint pages fetched when looked at, and what came after them.

``folding`` reads the map; here is which checkpoint it begins with, and that whoever looks gets the
right answer although pages turn out to be damaged, or retention moves objects meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import trio

from stages.errors import UNREADABLE, BackstayError, NotFound
from stages.model import U64, Disk
from stages.ports import Files
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.checkpoints import nearest, no_base, oldest
from stages.recover.doubt import Doubt
from stages.recover.folding import Folding
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.vault.checkpoint import Manifest
from stages.vault.commit import Header
from stages.vault.records import MachineRecord


class PointMap:
    """Locations of all blocks of all disks at commit ``seq``. Make it with ``build``.

    Calls may run side by side, but not with ``advance`` or ``close``.
    """

    def __init__(
        self,
        group: Group,
        files: Files,
        machine: MachineRecord,
        header: Header,
        *,
        checkpoints: bool = True,
        salvage: bool = False,
    ):
        self.group = group
        self.machine = machine
        self.header = header
        self.seq = header.seq
        self._files = files
        self._checkpoints = checkpoints
        self._salvage = salvage
        self._folding = Folding(group, files, machine, self._open_parent, salvage=salvage)
        self._rebuilding = trio.Lock()
        self._rebuilt = 0

    @staticmethod
    async def build(
        group: Group, files: Files, seq: int, *, checkpoints: bool = True, salvage: bool = False
    ) -> PointMap:
        """Read the nearest checkpoint's manifest and fold the commits after it.

        A damaged checkpoint costs time, not data: the commits before it are folded instead.
        ``checkpoints`` False does so from the start. Raises ``Damage`` naming the object that
        stands in the way, ``Expired``, ``NoSpace`` if there is no room for scratch files.
        ``salvage`` goes on without a commit that cannot be read: ``doubt`` then says what may be
        older.
        """
        for _ in range(TRIES):
            since = floors(group)
            try:
                point = await PointMap._build(group, files, seq, checkpoints, salvage=salvage)
            except UNREADABLE:
                if not await moved_on(group, seq, since):
                    raise
                continue
            if point.doubt is None or not await moved_on(group, seq, since):
                return point
            point.close()
        return await PointMap._build(group, files, seq, checkpoints, salvage=salvage)

    @staticmethod
    async def _build(
        group: Group, files: Files, seq: int, checkpoints: bool, *, salvage: bool
    ) -> PointMap:
        newest = await group.log.signed(seq)
        machine = await group.machine(newest.header.machine)

        async def begun(manifest: Manifest | None, *, salvage: bool = False) -> PointMap:
            point = PointMap(
                group, files, machine, newest.header, checkpoints=checkpoints, salvage=salvage
            )
            await point._read(manifest)
            return point

        base = group.log.base(seq)  # before it nothing is left to be read instead
        manifest = await nearest(group, newest) if checkpoints or base else None
        if manifest is None and base:
            raise no_base(group, base)
        if manifest is not None:
            try:
                return await begun(manifest)
            except UNREADABLE as error:
                if manifest.seq != base:
                    with suppress(*UNREADABLE):
                        point = await begun(await oldest(group, base))
                        point._pass_over(error)
                        return point
                if base and not salvage:
                    raise
            if salvage:  # with holes: from the checkpoint there are fewer
                return await begun(manifest, salvage=True)
        return await begun(None, salvage=salvage)

    async def _read(self, manifest: Manifest | None) -> None:
        """Take over a checkpoint, fold what follows; whatever fails leaves no files open."""
        try:
            await self._folding.begin(manifest)
            await self._folding.up_to(self.seq, self.machine)
        except BaseException:
            self.close()
            raise

    async def _open_parent(self) -> PointMap:
        """The map of the point that a branch begins at. Raises ``Damage``."""
        parent = await parent_of(self.group)
        assert parent is not None  # noqa: S101 - only branches ask
        opened = await self._again(parent, parent.tail)
        for what in parent.log.ignored:
            self.group.log.note(what)
        return opened

    async def _again(self, group: Group, seq: int) -> PointMap:
        """Another map, built as this one was."""
        return await PointMap.build(
            group, self._files, seq, checkpoints=self._checkpoints, salvage=self._salvage
        )

    async def advance(self, seq: int) -> dict[int, list[int]]:
        """Go on to a later point, by the commits between; only if it is read from the same
        checkpoint. Returns by disk the pages that were written to since: all others are as they
        were. Raises as ``build`` does; the map is of no use then.
        """
        newest = await self.group.log.signed(seq)
        self.machine = await self.group.machine(newest.header.machine)
        self.header, self.seq = newest.header, seq
        self._folding.take_touched()
        await self._folding.up_to(seq, self.machine)
        return self._folding.take_touched()

    @property
    def doubt(self) -> Doubt | None:
        """What may be older than the point, if ``salvage`` met holes."""
        return self._folding.changes.doubt

    def take_doubt(self) -> Doubt | None:
        """The same, for a branch that begins here: from now on it is the branch's to close."""
        changes = self._folding.changes
        taken, changes.doubt = changes.doubt, None
        return taken

    @property
    def time(self) -> datetime:
        """The point's stamp in UTC."""
        return datetime.fromtimestamp(self.header.stamp / 1e6, UTC)

    def disk(self, name: str) -> Disk:
        """A disk of the point by name. Raises ``NotFound``."""
        for disk in self.machine.disks:
            if disk.name == name:
                return disk
        raise NotFound(
            "no such disk at this point",
            subject=f"{self.machine.name}/{name}",
            hint=f"disks: {', '.join(disk.name for disk in self.machine.disks)}",
        )

    async def locations(self, disk: int, first: int, count: int) -> U64:
        """Locations (count,) of blocks; 0 and 1 are zeros. Raises ``Damage``, ``NoSpace``."""
        return await self._steady(lambda: self._folding.locations(disk, first, count))

    async def gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,), any order. Raises ``Damage``, ``NoSpace``."""
        return await self._steady(lambda: self._folding.gather(disk, blocks))

    async def places(self, frames: U64) -> U64:
        """Directory rows (n, 2) of frames given as ``location.frame_of`` numbers, ascending.

        Raises ``Damage``.
        """
        return await self._steady(lambda: self._places(frames))

    async def _places(self, frames: U64) -> U64:
        rows = await self._folding.directory.places(frames)
        packs = self.group.packs
        return rows if packs is None else await packs.move(frames, rows)

    def stored(self, disk: int, page: int) -> tuple[int, int, int] | None:
        """Where the checkpoint stores a page of locations, if nothing of it has changed since: two
        points with the same answer have the same page.
        """
        stored = self._folding.beneath.stored(disk, page)
        return None if stored and self._folding.changes.changed(disk, page) else stored

    async def _steady(self, look: Callable[[], Awaitable[U64]]) -> U64:
        """What ``look`` finds, while the map was not made anew under it. Raises ``Damage``."""
        for _ in range(TRIES):
            before = self._rebuilt
            try:
                found = await look()
            except UNREADABLE as error:
                await self._rebuild(error, before)
                continue
            except trio.ClosedResourceError:
                if self._rebuilt == before:  # its owner has closed it
                    raise
                continue
            if self._rebuilt == before:
                return found
        return await look()

    async def _rebuild(self, error: BackstayError, before: int) -> None:
        """A page is missing or damaged: make the map anew, once for all callers.

        From what a newer floor has left, if there is one; else from the log's beginning, or the
        oldest checkpoint that retention has left for the point. Raises ``error`` if it was read
        from there.
        """
        async with self._rebuilding:
            if self._rebuilt != before:
                return
            if await moved_on(self.group, self.seq, self._folding.floors):
                fresh = await self._again(self.group, self.seq)
            elif self._folding.begun == self.group.log.base(self.seq):
                raise error
            else:
                fresh = PointMap(
                    self.group,
                    self._files,
                    self.machine,
                    self.header,
                    checkpoints=self._checkpoints,
                    salvage=self._salvage,
                )
                await fresh._read(await oldest(self.group, self.group.log.base(self.seq)))
                self._pass_over(error)
            self._folding.become(fresh._folding)
            self._rebuilt += 1

    def _pass_over(self, error: BackstayError) -> None:
        self.group.log.note(f"{error}; commits are read instead")

    def close(self) -> None:
        """Release the scratch files."""
        self._folding.close()
