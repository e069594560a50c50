"""Of missing commits that a checkpoint spares a reader, whose inline frames a point still needs.

A checkpoint says where every frame is, so nobody reads the commits before it: but small content
lies in the tail of its commit. In a geo-replicated store such a commit can arrive after the
checkpoint that knows its frames; points that map one of them are not complete until it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stages.errors import UNREADABLE
from stages.model import U64, Bools, Runs, distinct
from stages.recover.directory import Pages
from stages.recover.opened import Group
from stages.vault import layout, location
from stages.vault.checkpoint import FRAMES, MAP, PAGE_ROWS, EpochPages, Manifest
from stages.vault.commits import Commit
from stages.vault.fold import CopyRefs, SetData, SetZero, steps
from stages.vault.rollup import SPAN

MOST = 1 << 20  # blocks that are followed; of more it is taken that some are never overwritten


@dataclass
class Lost:
    """Blocks of a map whose content lies in missing commits: by disk the blocks (n,), ascending,
    and the number (n,) of the commit of each."""

    disks: dict[int, tuple[U64, U64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(blocks) for blocks, _ in self.disks.values())

    def first(self) -> int:
        """The first commit that a block needs; 0 if none does."""
        return min((int(seqs.min()) for _, seqs in self.disks.values() if len(seqs)), default=0)

    def put(self, disk: int, blocks: U64, seqs: U64) -> None:
        """Blocks (n,), each once, are now in commits (n,); 0 is elsewhere."""
        self.keep(disk, lambda known: ~np.isin(known, blocks))
        known, of = self.disks.get(disk, (blocks[:0], seqs[:0]))
        lost = seqs != 0
        joined = np.concatenate((known, blocks[lost]))
        order = joined.argsort(kind="stable")
        self.disks[disk] = joined[order], np.concatenate((of, seqs[lost]))[order]

    def keep(self, disk: int, which: Callable[[U64], Bools]) -> None:
        """Forget the blocks of a disk that ``which`` is false for."""
        if disk in self.disks:
            blocks, seqs = self.disks[disk]
            here = which(blocks)
            self.disks[disk] = blocks[here], seqs[here]

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
        seqs = np.zeros(len(step.block), np.uint64)
        for disk in distinct(step.target_disk).tolist():
            here = step.target_disk == disk
            seqs[here] = self._of(disk, step.target_block[here])
        for disk in distinct(step.disk).tolist():
            here = step.disk == disk
            blocks, of = step.block[here][::-1], seqs[here][::-1]
            last, at = np.unique(blocks, return_index=True)  # named twice: the later row counts
            self.put(disk, last, of[at])

    def _of(self, disk: int, blocks: U64) -> U64:
        known, seqs = self.disks.get(disk, (blocks[:0], blocks[:0]))
        return looked_up(known, seqs, blocks)


class Tails:
    """Answers for points of one group, one after the other; pages are fetched once for all."""

    def __init__(self, group: Group):
        self._group = group
        self._pages = Pages(group)

    async def needed(self, commit: Commit, manifest: Manifest, holes: list[int]) -> str:
        """What a point, read from ``manifest``, lacks of missing commits ``holes`` that are not
        after it: the key of one whose frames it maps, or of what cannot be read to know it; "" if
        nothing. Memory: one page, ``MOST`` blocks, the commits of a span.
        """
        try:
            seq = await self._needed(commit, manifest, np.array(holes, np.uint64))
        except UNREADABLE as error:
            return error.subject
        return layout.commit(self._group.scope.group, seq) if seq else ""

    async def _needed(self, commit: Commit, manifest: Manifest, holes: U64) -> int:
        frames, seqs = await self._frames(manifest, holes)
        if not len(frames):
            return 0
        most = MOST if manifest.seq < commit.header.seq else 0  # one block settles it
        lost = Lost()
        for disk in manifest.disks:
            for page in _since(disk.map, int(holes[0])):
                found = await self._pages.get(MAP, disk.number, page, disk.map)
                blocks = np.arange(len(found), dtype=np.uint64) + np.uint64(page * PAGE_ROWS)
                of = looked_up(frames, seqs, location.frame_of(found[:, 0]))
                of[blocks >= np.uint64(disk.blocks)] = 0
                if of.any():
                    lost.put(disk.number, blocks, of)
                if len(lost) > most:
                    return lost.first()
        sizes = {disk.number: disk.blocks for disk in manifest.disks}
        return await self._after(lost, sizes, manifest.seq, commit)

    async def _frames(self, manifest: Manifest, holes: U64) -> tuple[U64, U64]:
        """Frames (n,) inside missing commits, ascending, and the commit (n,) of each."""
        frames, seqs = [holes[:0]], [holes[:0]]
        for epoch in sorted(manifest.epochs, key=_number):
            for page in _since(epoch.table, int(holes[0])) if epoch.frames else ():
                rows = await self._pages.get(FRAMES, epoch.epoch, page, epoch.table)
                inline = holes | np.uint64(location.INLINE)
                here = np.flatnonzero((rows[:, 1] != 0) & np.isin(rows[:, 0], inline))
                first = (epoch.epoch << 32) + page * PAGE_ROWS
                frames.append(here.astype(np.uint64) + np.uint64(first))
                seqs.append(rows[here, 0] & ~np.uint64(location.INLINE))
        return np.concatenate(frames), np.concatenate(seqs)

    async def _after(self, lost: Lost, sizes: dict[int, int], at: int, commit: Commit) -> int:
        """Fold the commits after a checkpoint: the first that a block is still in, or 0."""
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


def _number(pages: EpochPages) -> int:
    return pages.epoch


def _since(table: U64, seq: int) -> list[int]:
    """Pages that may know of commit ``seq``: stored by a later checkpoint, or of one value."""
    later = (table[:, 2] != 0) & (table[:, 0] >= np.uint64(seq))
    uniform = (table[:, 2] == 0) & (table[:, 1] > np.uint64(location.ZERO))
    return [int(page) for page in np.flatnonzero(later | uniform)]
