"""The block map of one point: checkpoint pages fetched when looked at, and what came after them.

The commits since the checkpoint are folded into a sparse scratch file; 0 there means "as in the
checkpoint". So opening a point costs reading those commits, whatever the size of the disks, and
memory stays bounded by caches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import trio

from stages.errors import UNREADABLE, BackstayError, DamagedObject, NoSpace, NotFound
from stages.model import U64, Disk, Runs, distinct
from stages.ports import Files
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.checkpoints import nearest, read
from stages.recover.delta import Delta
from stages.recover.directory import NOTHING, Directory, Pages
from stages.recover.doubt import Doubt, Hole
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.vault import layout, location
from stages.vault.checkpoint import MAP, PAGE_ROWS, Manifest
from stages.vault.commit import Header
from stages.vault.fold import CopyRefs, SetData, SetZero, check_bounds, steps
from stages.vault.log import Commit
from stages.vault.records import MachineRecord
from stages.vault.rollup import SPAN

_SCRATCH_CACHE = 16 << 20
_GATHERED = 24 << 20  # of changes before they go to the scratch files, all disks together


class PointMap:
    """Locations of all blocks of all disks at commit ``seq``. Make it with ``build``."""

    def __init__(
        self,
        group: Group,
        files: Files,
        machine: MachineRecord,
        header: Header,
        *,
        salvage: bool = False,
    ):
        self.group = group
        self.doubt: Doubt | None = None
        self._salvage = salvage
        self._folded = 0
        self._link: bytes | None = None  # of the commit folded last
        self._lost_records: set[int] = set()
        self.machine = machine
        self.header = header
        self.seq = header.seq
        self._files = files
        self._scratch: dict[int, Delta] = {}
        self._tables: dict[int, U64] = {}
        self._rows: dict[int, int] = {}
        self._sizes: dict[int, int] = {}  # blocks of the disks as of the commit folded last
        self._touched: dict[int, set[int]] = {}  # pages that were written to since the last look
        self._pages = Pages(group)
        self._directory = Directory(self._pages, layout.commit(group.scope.group, header.seq))
        self._floors = floors(group)
        self._begun = 0  # the commit of the checkpoint that was taken over
        self._rebuilding = trio.Lock()
        self._rebuilt = 0
        self._checkpoints = True
        self._base: PointMap | None = None  # what a branch begins with; opened when wanted
        self._base_blocks: dict[int, int] = {}  # of its disks, if no checkpoint says what they hold
        self._opening_base = trio.Lock()
        if group.record.parent is not None:
            self._directory.begin_at(self._places_below)

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

        def begin(*, salvage: bool) -> PointMap:
            point = PointMap(group, files, machine, newest.header, salvage=salvage)
            point._checkpoints = checkpoints
            return point

        base = group.log.base(seq)  # before it nothing is left to be read instead
        manifest = await nearest(group, newest) if checkpoints or base else None
        if manifest is None and base:
            raise _no_base(group, base)
        if manifest is not None:
            try:
                return await begin(salvage=False)._read(manifest)
            except UNREADABLE as error:
                if manifest.seq != base:
                    with suppress(*UNREADABLE):
                        oldest = await _oldest(group, base)
                        self = await begin(salvage=False)._read(oldest)
                        self._pass_over(error)
                        return self
                if base and not salvage:
                    raise
            if salvage:  # with holes: from the checkpoint there are fewer
                return await begin(salvage=True)._read(manifest)
        return await begin(salvage=salvage)._read(None)

    async def advance(self, seq: int) -> dict[int, list[int]]:
        """Go on to a later point, by the commits between; only if it is read from the same
        checkpoint. Returns by disk the pages that were written to since: all others are as they
        were. Raises as ``build`` does; the map is of no use then.
        """
        newest = await self.group.log.signed(seq)
        self.machine = await self.group.machine(newest.header.machine)
        at, link = self.seq, self._link
        self.header, self.seq = newest.header, seq
        self._directory.subject = newest.container.key
        self._touched = {}
        try:
            await self._fold_up_to(at, link)
        except OSError as error:
            raise _no_scratch(error) from None
        return {disk: sorted(pages) for disk, pages in self._touched.items()}

    async def _read(self, manifest: Manifest | None) -> PointMap:
        """Take over a checkpoint, fold what follows; whatever fails leaves no files open."""
        try:
            at, link = 0, None
            if manifest is not None:
                self._adopt(manifest)
                at = self._begun = manifest.seq
                link = manifest.link
            else:
                await self._begin_at_parent()
            await self._fold_up_to(at, link)
        except OSError as error:
            self.close()
            raise _no_scratch(error) from None
        except BaseException:
            self.close()
            raise
        return self

    async def _fold_up_to(self, at: int, link: bytes | None) -> None:
        """Fold the commits after ``at``, whose digest is ``link``, up to the point."""
        while at < self.seq:
            until = min(self.seq, (at // SPAN + 1) * SPAN)
            try:
                link = await self._stretch(at + 1, until, link)
            except UNREADABLE:
                if not self._salvage:
                    raise
                await self._around_holes(max(at, self._folded) + 1, until)
                link = None
            at = until
        self._link = link
        self._know(self.machine)

    async def _begin_at_parent(self) -> None:
        """Without a checkpoint a branch begins with the map of its parent's point."""
        if self.group.record.parent is None:
            return
        base = await self._parent()
        for disk in base.machine.disks:
            self._base_blocks[disk.number] = self._sizes[disk.number] = disk.blocks
            self._room(disk.number, disk.blocks)
        if base.doubt is not None:
            self.doubt, base.doubt = base.doubt, None

    async def _parent(self) -> PointMap:
        """The map of the point that a branch begins at. Raises ``Damage``."""
        async with self._opening_base:
            if self._base is None:
                parent = await parent_of(self.group)
                assert parent is not None  # noqa: S101 - only branches ask
                self._base = await PointMap.build(
                    parent,
                    self._files,
                    parent.tail,
                    checkpoints=self._checkpoints,
                    salvage=self._salvage,
                )
                ignored = self.group.log.ignored
                ignored.extend(note for note in parent.log.ignored if note not in ignored)
            return self._base

    async def _places_below(self, frames: U64) -> U64:
        return await (await self._parent()).places(frames)

    async def _stretch(self, first: int, last: int, link: bytes | None) -> bytes:
        commits = await self.group.log.stretch(first, last, link)
        for commit in commits:
            await self._fold(commit)
            self._folded = commit.header.seq
        return commits[-1].link

    async def _around_holes(self, first: int, last: int) -> None:
        """Commit by commit, each proven by its own signature; what cannot be read is a hole."""
        link: bytes | None = None
        for seq in range(first, last + 1):
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
            self._folded = seq

    def _hole(self, hole: Hole) -> None:
        if self.doubt is None:
            self.doubt = Doubt(self._files)
        for disk in self.machine.disks:
            self._room(disk.number, disk.blocks)
        self.doubt.hole(hole, {disk: array.rows for disk, array in self._scratch.items()})

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
        """Locations (count,) of blocks; 0 and 1 are zeros. Raises ``Damage``."""
        return await self._steady(lambda: self._locations(disk, first, count))

    async def places(self, frames: U64) -> U64:
        """Directory rows (n, 2) of frames given as ``location.frame_of`` numbers, ascending."""
        return await self._steady(lambda: self._places(frames))

    async def _steady(self, look: Callable[[], Awaitable[U64]]) -> U64:
        """What ``look`` finds, while the map was not made anew under it. Raises ``Damage``."""
        for _ in range(TRIES):
            before = self._rebuilt
            try:
                found = await look()
            except UNREADABLE as error:
                await self._rebuild(error, before)
                continue
            if self._rebuilt == before:
                return found
        return await look()

    async def _places(self, frames: U64) -> U64:
        rows = await self._directory.places(frames)
        packs = self.group.packs
        return rows if packs is None else await packs.move(frames, rows)

    def stored(self, disk: int, page: int) -> tuple[int, int, int] | None:
        """Where the checkpoint stores a page of locations, if nothing of it has changed since: two
        points with the same answer have the same page.
        """
        table = self._tables.get(disk, NOTHING)
        if page >= len(table) or not int(table[page, 2]):
            return None
        first = page * PAGE_ROWS
        count = min(PAGE_ROWS, self._scratch[disk].rows - first)
        try:
            changed = self._scratch[disk].read(first, count).any()
        except OSError as error:
            raise _no_scratch(error) from None
        seq, place, length = table[page].tolist()
        return None if changed else (seq, place, length)

    async def _rebuild(self, error: BackstayError, before: int) -> None:
        """A page is missing or damaged: make the map anew, once for all callers.

        From what a newer floor has left, if there is one; else from the log's beginning, or the
        oldest checkpoint that retention has left for the point. Raises ``error`` if it was read
        from there.
        """
        async with self._rebuilding:
            if self._rebuilt != before:
                return
            if await moved_on(self.group, self.seq, self._floors):
                fresh = await PointMap.build(
                    self.group,
                    self._files,
                    self.seq,
                    checkpoints=self._checkpoints,
                    salvage=self._salvage,
                )
            elif self._begun == self.group.log.base(self.seq):
                raise error
            else:
                oldest = await _oldest(self.group, self.group.log.base(self.seq))
                fresh = PointMap(
                    self.group, self._files, self.machine, self.header, salvage=self._salvage
                )
                fresh._checkpoints = self._checkpoints
                await fresh._read(oldest)
                self._pass_over(error)
            self._become(fresh)

    def _become(self, fresh: PointMap) -> None:
        """Take over another map of the same point; whoever reads meanwhile begins again."""
        self.close()
        self.doubt = fresh.doubt
        self._scratch, self._directory = fresh._scratch, fresh._directory
        self._tables, self._rows = fresh._tables, fresh._rows
        self._pages, self._floors = fresh._pages, fresh._floors
        self._begun = fresh._begun
        self._base, self._base_blocks = fresh._base, fresh._base_blocks
        self._rebuilt += 1

    def _pass_over(self, error: BackstayError) -> None:
        self.group.log.ignored.append(f"{error}; commits are read instead")

    async def _locations(self, disk: int, first: int, count: int) -> U64:
        table, pages = self._tables.get(disk, NOTHING), self._pages
        try:
            over = self._scratch[disk].read(first, count)[:, 0]
        except OSError as error:
            raise _no_scratch(error) from None
        if over.all():
            return over
        below = np.zeros(count, np.uint64)
        rows = min(count, max(0, self._rows.get(disk, 0) - first))
        at = 0
        while at < rows:
            page, low = divmod(first + at, PAGE_ROWS)
            step = min(PAGE_ROWS - low, rows - at)
            if not over[at : at + step].all():
                found = await _map_page(pages, disk, page, table)
                below[at : at + step] = found[low : low + step]
            at += step
        known = min(count, self._base_blocks.get(disk, 0) - first)
        if known > 0 and not over[:known].all():
            below[:known] = await (await self._parent()).locations(disk, first, known)
        return np.where(over != 0, over, below)

    def close(self) -> None:
        """Release the scratch files."""
        for array in self._scratch.values():
            array.close()
        if self._base is not None:
            self._base.close()
        if self.doubt is not None:
            self.doubt.close()

    async def _fold(self, commit: Commit) -> None:
        header = commit.header
        if header.epoch <= self.group.above:
            what = "its epoch is not above that of the commit that the branch begins at"
            raise DamagedObject(what, subject=commit.container.key)
        await self._follow(header.machine)
        keys = await self.group.ring.keys(header.epoch)
        segments = commit.index(self.group.scope, keys)
        key = commit.container.key
        limits = {number: array.rows for number, array in self._scratch.items()}
        check_bounds(segments, limits, key)
        for step in steps(header, segments):
            match step:
                case SetData(disk=disk, runs=runs, locations=locations):
                    self._scratch[disk].assign(runs, locations)
                    self._touch(disk, runs.start, runs.count)
                    self._certain(disk, runs)
                case SetZero(disk=disk, runs=runs):
                    self._certain(disk, runs)
                    array = self._scratch[disk]
                    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
                        array.fill(start, count, location.ZERO)
                case CopyRefs():
                    found = await self._targets(step, key)
                    for disk in distinct(step.disk).tolist():
                        here = step.disk == disk
                        self._scratch[disk].scatter(step.block[here], found[here])
                        self._touch(disk, step.block[here], np.ones(1, np.uint64))
                    if self.doubt is not None:
                        self.doubt.copy(step)
        self._directory.add(header, segments)

    def _touch(self, disk: int, first: U64, count: U64) -> None:
        """Frames may have come to the pages of these runs; zeros bring none."""
        size = np.uint64(PAGE_ROWS)
        low, high = first // size, (first + count - np.uint64(1)) // size
        pages = self._touched.setdefault(disk, set())
        pages.update(low.tolist(), high.tolist())
        for at in np.flatnonzero(high > low + np.uint64(1)).tolist():
            pages.update(range(int(low[at]), int(high[at])))

    def _certain(self, disk: int, runs: Runs) -> None:
        if self.doubt is not None:
            self.doubt.clear(disk, runs)

    async def _follow(self, number: int) -> None:
        """The machine record that a commit names; one of the past can be done without."""
        if number not in self._lost_records:
            try:
                self._know(await self.group.machine(number))
            except UNREADABLE as error:
                if number == self.machine.number:
                    raise
                self._lost_records.add(number)
                self.group.log.ignored.append(f"{error}; sizes are taken from the one in force")
        if number in self._lost_records:
            for disk in self.machine.disks:
                self._room(disk.number, disk.blocks)

    async def _targets(self, step: CopyRefs, key: str) -> U64:
        """What references stand for, as the map is now; unset becomes an explicit zero."""
        found = np.zeros((len(step.block), 1), np.uint64)
        for disk in distinct(step.target_disk).tolist():
            here = np.flatnonzero(step.target_disk == disk)
            wanted = step.target_block[here]
            array = self._scratch.get(disk)
            if array is None or int(wanted.max()) >= array.rows:
                raise DamagedObject("a reference leaves the disks", subject=key)
            values = array.gather(wanted)
            inherited = np.flatnonzero(values[:, 0] == 0)
            if len(inherited):
                values[inherited, 0] = await self._inherited(disk, wanted[inherited])
            found[here] = values
        found[found == location.UNSET] = location.ZERO
        return found

    async def _gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,). Raises ``Damage``."""

        async def look() -> U64:
            values: U64 = self._scratch[disk].gather(blocks)[:, 0]
            inherited = np.flatnonzero(values == 0)
            if len(inherited):
                values[inherited] = await self._inherited(disk, blocks[inherited])
            return values

        return await self._steady(look)

    async def _inherited(self, disk: int, blocks: U64) -> U64:
        values = np.zeros(len(blocks), np.uint64)
        known = np.flatnonzero(blocks < np.uint64(self._base_blocks.get(disk, 0)))
        if len(known):
            values[known] = await (await self._parent())._gather(disk, blocks[known])
        table, stored = self._tables.get(disk, NOTHING), self._pages
        pages = blocks // np.uint64(PAGE_ROWS)
        for page in distinct(pages).tolist():
            if page < len(table):
                here = pages == page
                rows = await _map_page(stored, disk, page, table)
                values[here] = rows[(blocks[here] % np.uint64(PAGE_ROWS)).astype(np.int64)]
        return values

    def _know(self, machine: MachineRecord) -> None:
        """Follow a machine record's sizes; what is cut and grown again reads zeros (R7)."""
        for disk in machine.disks:
            self._room(disk.number, disk.blocks)
            delta = self._scratch[disk.number]
            if disk.blocks < self._sizes.get(disk.number, 0):
                delta.fill(disk.blocks, delta.rows - disk.blocks, location.ZERO)
            self._sizes[disk.number] = disk.blocks

    def _room(self, disk: int, blocks: int) -> None:
        array = self._scratch.get(disk)
        if array is None:
            share = 1 + len(self._scratch)
            array = self._scratch[disk] = Delta(
                self._files.scratch(),
                cache=max(1 << 20, _SCRATCH_CACHE // share),
                limit=max(1 << 20, _GATHERED // share),
            )
        if array.rows < blocks:
            array.resize(blocks)
        if self.doubt is not None:
            self.doubt.cover(disk, array.rows)

    def _adopt(self, manifest: Manifest) -> None:
        for disk in manifest.disks:
            self._tables[disk.number] = disk.map
            self._rows[disk.number] = self._sizes[disk.number] = disk.blocks
            self._room(disk.number, disk.blocks)
        for pages in manifest.epochs:
            self._directory.adopt(pages)


async def _map_page(pages: Pages, disk: int, page: int, table: U64) -> U64:
    """Locations (PAGE_ROWS,); of a page stored before its disk grew the rest is unset."""
    rows = (await pages.get(MAP, disk, page, table))[:, 0]
    if len(rows) == PAGE_ROWS:
        return rows
    return np.concatenate((rows, np.zeros(PAGE_ROWS - len(rows), np.uint64)))


async def _oldest(group: Group, base: int) -> Manifest | None:
    """The checkpoint ``base`` before which nothing is left; None if all of the log is."""
    manifest = await read(group, base) if base else None
    if base and manifest is None:
        raise _no_base(group, base)
    return manifest


def _no_base(group: Group, base: int) -> DamagedObject:
    return DamagedObject(
        "the checkpoint that this point is read from is damaged or missing, and retention has let "
        "go of the commits before it",
        operation="read the block map",
        subject=layout.manifest(group.scope.group, base),
    )


def _no_scratch(error: OSError) -> NoSpace:
    return NoSpace(
        f"no place for scratch files: {error.strerror or error}",
        operation="read the block map",
        subject=error.filename or "temporary folder",
        hint="set TMPDIR to a folder with room: 8 bytes for each block written since a checkpoint",
    )
