"""Of missing commits that a checkpoint spares a reader: whose content a point still needs.

A checkpoint says where every frame is, so nobody reads the commits before it. But small content
lies in the tail of its commit, and which data objects have to be there only the commits say. In a
geo-replicated store both can arrive after the checkpoint that knows their frames; points that map
one of them are not complete until they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.errors import UNREADABLE
from stages.model import U64, Bools, Runs, distinct, empty_u64
from stages.recover.directory import Pages
from stages.recover.opened import Group
from stages.stage import crew
from stages.vault import layout, location
from stages.vault.checkpoint import FRAMES, MAP, PAGE_ROWS, EpochPages, Manifest
from stages.vault.commit import Header
from stages.vault.commits import PARALLEL, Commit
from stages.vault.fold import CopyRefs, SetData, SetZero, steps
from stages.vault.rollup import SPAN

MOST = 1 << 20  # blocks that are followed; of more it is taken that some are never overwritten


@dataclass
class Lost:
    """Blocks of a map whose content lies in missing objects: by disk the blocks (n,), ascending,
    and the number (n,) of the object of each, from 1."""

    disks: dict[int, tuple[U64, U64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(blocks) for blocks, _ in self.disks.values())

    def first(self) -> int:
        """The first object that a block needs; 0 if none does."""
        return min(
            (int(objects.min()) for _, objects in self.disks.values() if len(objects)), default=0
        )

    def put(self, disk: int, blocks: U64, objects: U64) -> None:
        """Blocks (n,), each once, are now in objects (n,); 0 is one that is there."""
        self.keep(disk, lambda known: ~np.isin(known, blocks))
        known, of = self.disks.get(disk, (blocks[:0], objects[:0]))
        lost = objects != 0
        joined = np.concatenate((known, blocks[lost]))
        order = joined.argsort(kind="stable")
        self.disks[disk] = joined[order], np.concatenate((of, objects[lost]))[order]

    def keep(self, disk: int, which: Callable[[U64], Bools]) -> None:
        """Forget the blocks of a disk that ``which`` is false for."""
        if disk in self.disks:
            blocks, objects = self.disks[disk]
            here = which(blocks)
            self.disks[disk] = blocks[here], objects[here]

    def overwrite(self, disk: int, runs: Runs) -> None:
        """These blocks hold something else now."""
        order = runs.start.argsort()
        starts, ends = runs.start[order], (runs.start + runs.count)[order]

        def outside(blocks: U64) -> Bools:
            at = starts.searchsorted(blocks, side="right").astype(np.int64) - 1
            return (at < 0) | (blocks >= ends[at])

        if len(starts):
            self.keep(disk, outside)

    def copy(self, step: CopyRefs) -> None:
        """Blocks that were copied from lost ones are lost, too."""
        objects = np.zeros(len(step.block), np.uint64)
        for disk in distinct(step.target_disk).tolist():
            here = step.target_disk == disk
            objects[here] = self._of(disk, step.target_block[here])
        for disk in distinct(step.disk).tolist():
            here = step.disk == disk
            blocks, of = step.block[here][::-1], objects[here][::-1]
            last, at = np.unique(blocks, return_index=True)  # named twice: the later row counts
            self.put(disk, last, of[at])

    def _of(self, disk: int, blocks: U64) -> U64:
        known, objects = self.disks.get(disk, (blocks[:0], blocks[:0]))
        return looked_up(known, objects, blocks)


class Tails:
    """Answers for points of one group, one after the other; pages are fetched once for all.

    ``headers``: those of the commits that are known, ascending.
    """

    def __init__(self, group: Group, headers: Sequence[Header]):
        self._group = group
        self._pages = Pages(group)
        self._headers = headers
        # Keys of objects that have not arrived: the number of one is its place.
        self._lacking = [""]
        self._numbers: dict[str, int] = {}
        self._sizes: dict[str, int] = {}  # of data objects and commits looked for; 0: not there

    async def needed(self, commit: Commit, manifest: Manifest, holes: list[int]) -> str:
        """What a point, read from ``manifest``, lacks of missing commits ``holes`` that are not
        after it: the key of one, or of its data, with frames that the point maps, or of what cannot
        be read to know it; "" if nothing. Memory: pages, ``MOST`` blocks, the commits of a span.
        """
        try:
            return self._lacking[await self._needed(commit, manifest, holes)]
        except UNREADABLE as error:
            return error.subject

    async def _needed(self, commit: Commit, manifest: Manifest, holes: list[int]) -> int:
        frames, objects = await self._frames(manifest, holes)
        if not len(frames):
            return 0
        most = MOST if manifest.seq < commit.header.seq else 0  # one block settles it
        lost = Lost()
        for disk in manifest.disks:
            for page in _since(disk.map, holes[0]):
                found = await self._pages.get(MAP, disk.number, page, disk.map)
                blocks = np.arange(len(found), dtype=np.uint64) + np.uint64(page * PAGE_ROWS)
                of = looked_up(frames, objects, location.frame_of(found[:, 0]))
                of[blocks >= np.uint64(disk.blocks)] = 0
                if of.any():
                    lost.put(disk.number, blocks, of)
                if len(lost) > most:
                    return lost.first()
        sizes = {disk.number: disk.blocks for disk in manifest.disks}
        return await self._after(lost, sizes, manifest.seq, commit)

    async def _frames(self, manifest: Manifest, holes: list[int]) -> tuple[U64, U64]:
        """Frames (n,) that cannot be had, ascending, and the number (n,) of the object of each."""
        frames, objects = [empty_u64()], [empty_u64()]
        for epoch in sorted(manifest.epochs, key=_epoch):
            for page in _since(epoch.table, holes[0]) if epoch.frames else ():
                rows = await self._pages.get(FRAMES, epoch.epoch, page, epoch.table)
                first = (epoch.epoch << 32) + page * PAGE_ROWS
                numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(first)
                of = await self._objects(epoch.epoch, numbers, rows, holes)
                frames.append(numbers[of != 0])
                objects.append(of[of != 0])
        return np.concatenate(frames), np.concatenate(objects)

    async def _objects(self, epoch: int, frames: U64, rows: U64, holes: list[int]) -> U64:
        """Of frames (n,) at ``rows`` (n, 2) the numbers (n,) of objects that they should be in and
        are not; 0 of those that are there, or that no missing commit has brought.

        How long an object should be only its commit says; but a frame has to end within it.
        """
        brought = np.zeros(len(rows), np.bool_)
        for hole in holes:
            low, high = self._brought(hole)
            brought |= (frames >= np.uint64(low)) & (frames < np.uint64(high))
        brought &= (rows[:, 1] != 0) & (rows[:, 0] & np.uint64(location.PACKED) == 0)
        gid = self._group.scope.group
        keys = {
            place: layout.commit(gid, place & ~location.INLINE)
            if place & location.INLINE
            else layout.data(gid, epoch, place)
            for place in distinct(np.sort(rows[brought, 0])).tolist()
        }
        await self._look_for(keys.values())
        ends = (rows[:, 1] >> np.uint64(32)) + (rows[:, 1] & np.uint64(0xFFFFFFFF))
        of = np.zeros(len(rows), np.uint64)
        for place, key in keys.items():
            lost = brought & (rows[:, 0] == np.uint64(place))
            if not place & location.INLINE:
                lost &= ends > np.uint64(self._sizes[key])
            elif self._sizes[key] and place & ~location.INLINE not in holes:
                # Where its tail begins only the commit says, which is there but cannot be read.
                continue
            if lost.any():
                of[lost] = self._number(key)
        return of

    def _number(self, key: str) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self._lacking)
            self._lacking.append(key)
        return self._numbers[key]

    def _brought(self, hole: int) -> tuple[int, int]:
        """The frames from the known commit before a missing one to the known one after it."""
        begins = {header.seq: header.epoch << 32 | header.first_frame for header in self._headers}
        low = [begins[seq] for seq in begins if seq < hole]
        high = [begins[seq] for seq in begins if seq > hole]
        return (low[-1] if low else 0), (high[0] if high else (1 << 63))

    async def _look_for(self, keys: Iterable[str]) -> None:
        pending = iter([key for key in keys if key not in self._sizes])

        async def look() -> None:
            for key in pending:
                info = await self._group.log.store.info(key)
                self._sizes[key] = 0 if info is None else info.size

        async with crew() as nursery:
            for _ in range(PARALLEL):
                nursery.start_soon(look)

    async def _after(self, lost: Lost, sizes: dict[int, int], at: int, commit: Commit) -> int:
        """Fold the commits after a checkpoint: the first object that a block still needs, or 0."""
        seq = commit.header.seq
        while at < seq and len(lost):
            until = min(seq, (at // SPAN + 1) * SPAN)
            for each in await self._group.log.stretch(at + 1, until, None):
                await self._follow(lost, sizes, each.header.machine)
                await self._fold(lost, each)
                if len(lost) > MOST:
                    return lost.first()
            at = until
        disks = {disk.number for disk in (await self._group.machine(commit.header.machine)).disks}
        return Lost({disk: lost.disks[disk] for disk in lost.disks.keys() & disks}).first()

    async def _follow(self, lost: Lost, sizes: dict[int, int], number: int) -> None:
        """What is cut and grown again reads zeros (R7)."""
        try:
            machine = await self._group.machine(number)
        except UNREADABLE:
            return  # one of the past can be done without
        for disk in machine.disks:
            cut = sizes.get(disk.number, 0) - disk.blocks
            if cut > 0:
                start = np.array([disk.blocks], np.uint64)
                lost.overwrite(disk.number, Runs(start, np.array([cut], np.uint64)))
            sizes[disk.number] = disk.blocks

    async def _fold(self, lost: Lost, commit: Commit) -> None:
        keys = await self._group.ring.keys(commit.header.epoch)
        for step in steps(commit.header, commit.index(self._group.scope, keys)):
            match step:
                case SetData(disk=disk, runs=runs) | SetZero(disk=disk, runs=runs):
                    lost.overwrite(disk, runs)
                case CopyRefs():
                    lost.copy(step)


def looked_up(known: U64, values: U64, wanted: U64) -> U64:
    """Of ``known`` (n,), ascending, the values (n,) of those ``wanted`` (m,); 0 of others."""
    if not len(known):
        return np.zeros(len(wanted), np.uint64)
    at = np.minimum(known.searchsorted(wanted), len(known) - 1)
    found: U64 = np.where(known[at] == wanted, values[at], np.uint64(0))
    return found


def _epoch(pages: EpochPages) -> int:
    return pages.epoch


def _since(table: U64, seq: int) -> list[int]:
    """Pages that may know of commit ``seq``: stored by a later checkpoint, or of one value."""
    later = (table[:, 2] != 0) & (table[:, 0] >= np.uint64(seq))
    uniform = (table[:, 2] == 0) & (table[:, 1] > np.uint64(location.ZERO))
    return [int(page) for page in np.flatnonzero(later | uniform)]
