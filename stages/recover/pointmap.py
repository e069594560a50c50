"""The block map of one point: checkpoint pages fetched when looked at, and what came after them.

The commits since the checkpoint are folded into a sparse scratch file; 0 there means "as in the
checkpoint". So opening a point costs reading those commits, whatever the size of the disks, and
memory stays bounded by caches.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from stages.errors import DamagedObject, NotFound
from stages.model import U64, Disk
from stages.ports import Files
from stages.recover.checkpoints import fetch_page, nearest
from stages.recover.opened import Group
from stages.vault import checkpoint, layout, location
from stages.vault.checkpoint import FRAMES, MAP, PAGE_ROWS, Manifest, PageName
from stages.vault.commit import Header
from stages.vault.fold import CopyRefs, SetData, SetZero, check_bounds, steps
from stages.vault.log import Commit
from stages.vault.paged import PagedArray
from stages.vault.records import MachineRecord
from stages.vault.rollup import SPAN

_PAGE_CACHE = 24 << 20
_SCRATCH_CACHE = 16 << 20
_NOTHING = np.zeros((0, 3), np.uint64)


@dataclass
class _Frames:
    """Where an epoch's frames are: pages of the checkpoint, rows of the commits after it."""

    table: U64
    first: list[int] = field(default_factory=list)
    rows: list[U64] = field(default_factory=list)


class PointMap:
    """Locations of all blocks of all disks at commit ``seq``. Make it with ``build``."""

    def __init__(self, group: Group, files: Files, machine: MachineRecord, header: Header):
        self.group = group
        self.machine = machine
        self.header = header
        self.seq = header.seq
        self._files = files
        self._scratch: dict[int, PagedArray] = {}
        self._tables: dict[int, U64] = {}
        self._rows: dict[int, int] = {}
        self._frames: dict[int, _Frames] = {}
        self._pages: OrderedDict[tuple[int, int, int], U64] = OrderedDict()
        self._cached = 0

    @staticmethod
    async def build(group: Group, files: Files, seq: int, *, checkpoints: bool = True) -> PointMap:
        """Read the nearest checkpoint's manifest and fold the commits after it.

        A damaged checkpoint costs time, not data: the commits before it are folded instead.
        ``checkpoints`` False does so from the start. Raises ``Damage`` naming the object that
        stands in the way.
        """
        newest = await group.log.signed(seq)
        machine = await group.machine(newest.header.machine)
        self = PointMap(group, files, machine, newest.header)
        manifest = await nearest(group, newest) if checkpoints else None
        self._know(machine)
        at, link = 0, None
        if manifest is not None:
            self._adopt(manifest)
            at, link = manifest.seq, manifest.link
        while at < seq:
            until = min(seq, (at // SPAN + 1) * SPAN)
            commits = await group.log.stretch(at + 1, until, link)
            for commit in commits:
                await self._fold(commit)
            at, link = until, commits[-1].link
        return self

    @property
    def time(self) -> datetime:
        """The point's stamp in UTC."""
        return datetime.fromtimestamp(self.header.stamp / 1e6, UTC)

    @property
    def uses_checkpoint(self) -> bool:
        """True if part of the map comes from a checkpoint's pages."""
        return bool(self._rows)

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
        over = self._scratch[disk].read(first, count)[:, 0]
        if over.all():
            return over
        below = np.zeros(count, np.uint64)
        rows = min(count, max(0, self._rows.get(disk, 0) - first))
        at = 0
        while at < rows:
            page, low = divmod(first + at, PAGE_ROWS)
            step = min(PAGE_ROWS - low, rows - at)
            if not over[at : at + step].all():
                below[at : at + step] = (await self._map_page(disk, page))[low : low + step]
            at += step
        return np.where(over != 0, over, below)

    async def places(self, frames: U64) -> U64:
        """Directory rows (n, 2) of frames given as ``location.frame_of`` numbers, ascending."""
        found = np.zeros((len(frames), 2), np.uint64)
        epochs = frames >> np.uint64(32)
        numbers = frames & np.uint64(0xFFFFFFFF)
        for epoch in np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            found[here] = await self._places(epoch, numbers[here])
        return found

    def close(self) -> None:
        """Release the scratch files."""
        for array in self._scratch.values():
            array.close()

    async def _places(self, epoch: int, numbers: U64) -> U64:
        known = self._frames.get(epoch)
        if known is None:
            raise DamagedObject(f"the map names unknown epoch {epoch}", subject=self._name)
        found = np.zeros((len(numbers), 2), np.uint64)
        starts = np.array(known.first, np.uint64)
        which = np.searchsorted(starts, numbers, side="right").astype(np.int64) - 1
        for at in np.unique(which).tolist():
            here = which == at
            if at >= 0:
                rows = known.rows[at]
                offset = (numbers[here] - starts[at]).astype(np.int64)
                if (offset < len(rows)).all():
                    found[here] = rows[offset]
                    continue
            found[here] = await self._checkpointed_places(epoch, known, numbers[here])
        if not found[:, 1].all():
            raise DamagedObject(
                f"the map names unknown frames of epoch {epoch}", subject=self._name
            )
        return found

    async def _checkpointed_places(self, epoch: int, known: _Frames, numbers: U64) -> U64:
        found = np.zeros((len(numbers), 2), np.uint64)
        pages = numbers // np.uint64(PAGE_ROWS)
        for page in np.unique(pages).tolist():
            if page >= len(known.table):
                continue
            here = pages == page
            rows = await self._page(PageName(FRAMES, epoch, page, 0), known.table)
            offset = (numbers[here] % np.uint64(PAGE_ROWS)).astype(np.int64)
            if (offset < len(rows)).all():
                found[here] = rows[offset]
        return found

    async def _fold(self, commit: Commit) -> None:
        header = commit.header
        self._know(await self.group.machine(header.machine))
        keys = await self.group.ring.keys(header.epoch)
        segments = commit.index(self.group.scope, keys)
        key = commit.container.key
        limits = {number: array.rows for number, array in self._scratch.items()}
        check_bounds(segments, limits, key)
        for step in steps(header, segments):
            array = self._scratch[step.disk]
            match step:
                case SetData(runs=runs, locations=locations):
                    array.assign(runs, locations)
                case SetZero(runs=runs):
                    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
                        array.fill(start, count, location.ZERO)
                case CopyRefs():
                    array.scatter(step.blocks, await self._targets(step, key))
        at = header.first_frame
        frames = self._frames.setdefault(header.epoch, _Frames(_NOTHING))
        for segment in segments:
            if len(segment.spans):
                inline = segment.source < 0
                number = header.seq if inline else header.objects[segment.source].number
                frames.first.append(at)
                frames.rows.append(location.places(number, inline, segment.spans))
                at += len(segment.spans)

    async def _targets(self, step: CopyRefs, key: str) -> U64:
        """What references stand for, as the map is now; unset becomes an explicit zero."""
        found = np.zeros((len(step.blocks), 1), np.uint64)
        for disk in np.unique(step.target_disk).tolist():
            here = np.flatnonzero(step.target_disk == disk)
            wanted = step.target_block[here]
            array = self._scratch.get(disk)
            if array is None or int(wanted.max()) >= array.rows:
                raise DamagedObject("a reference leaves the disks", subject=key)
            values = array.gather(wanted)
            inherited = np.flatnonzero(values[:, 0] == 0)
            if len(inherited) and disk in self._tables:
                values[inherited, 0] = await self._inherited(disk, wanted[inherited])
            found[here] = values
        found[found == location.UNSET] = location.ZERO
        return found

    async def _inherited(self, disk: int, blocks: U64) -> U64:
        values = np.zeros(len(blocks), np.uint64)
        pages = blocks // np.uint64(PAGE_ROWS)
        for page in np.unique(pages).tolist():
            if page < len(self._tables[disk]):
                here = pages == page
                rows = await self._map_page(disk, page)
                values[here] = rows[(blocks[here] % np.uint64(PAGE_ROWS)).astype(np.int64)]
        return values

    def _know(self, machine: MachineRecord) -> None:
        """Make room for the disks of a machine record; a disk of the past may be gone later."""
        for disk in machine.disks:
            self._room(disk.number, disk.blocks)

    def _room(self, disk: int, blocks: int) -> None:
        array = self._scratch.get(disk)
        if array is None:
            cache = max(1 << 20, _SCRATCH_CACHE // (1 + len(self._scratch)))
            array = self._scratch[disk] = PagedArray(self._files.scratch(), 1, cache=cache)
        if array.rows < blocks:
            array.resize(blocks)

    def _adopt(self, manifest: Manifest) -> None:
        for disk in manifest.disks:
            self._tables[disk.number] = disk.map
            self._rows[disk.number] = disk.blocks
            self._room(disk.number, disk.blocks)
        for pages in manifest.epochs:
            self._frames[pages.epoch] = _Frames(pages.table)

    async def _map_page(self, disk: int, page: int) -> U64:
        return (await self._page(PageName(MAP, disk, page, 0), self._tables[disk]))[:, 0]

    async def _page(self, name: PageName, table: U64) -> U64:
        """A checkpoint page through a bounded cache."""
        cached = self._pages.get((name.what, name.owner, name.page))
        if cached is not None:
            self._pages.move_to_end((name.what, name.owner, name.page))
            return cached
        seq, place, length = table[name.page].tolist()
        if length:
            exact = PageName(name.what, name.owner, name.page, seq)
            rows = await fetch_page(self.group, exact, place, length)
        else:
            rows = np.full((PAGE_ROWS, checkpoint.COLUMNS[name.what]), place, np.uint64)
        self._pages[(name.what, name.owner, name.page)] = rows
        self._cached += rows.nbytes
        while self._cached > _PAGE_CACHE and len(self._pages) > 1:
            self._cached -= self._pages.popitem(last=False)[1].nbytes
        return rows

    @property
    def _name(self) -> str:
        return layout.commit(self.group.scope.group, self.seq)
