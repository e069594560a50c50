"""Verify: that a point can be restored, by doing everything but the writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.errors import UNREADABLE, Damage, ObjectMissing
from stages.model import BLOCK, U64
from stages.ports import Machine
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.checkpoints import fetch_page, nearest
from stages.recover.extract import DamagedExtent, Laid
from stages.recover.lineage import parent_of
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.recover.records import wrong_records
from stages.recover.sweep import MAX_DAMAGE, Sweep
from stages.vault import layout
from stages.vault.checkpoint import DIGESTS, FRAMES, MAP, Manifest, PageName
from stages.vault.commits import Commit
from stages.vault.rollup import SPAN, decode


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that is not as it should be; ``fatal`` if a point needs it."""

    key: str
    reason: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and what is wrong."""

    seq: int
    commits: int
    frames: int
    stored_bytes: int
    problems: tuple[Problem, ...]
    damage: tuple[DamagedExtent, ...]

    @property
    def whole(self) -> bool:
        """True if the point can be restored completely."""
        return not self.damage and not any(problem.fatal for problem in self.problems)


class Verify:
    """Verifies one point of a group, its history included."""

    def __init__(self, group: Group, machine: Machine, seq: int, *, workers: int = 2):
        self._group = group
        self._machine = machine
        self._seq = seq
        self._workers = workers
        self._problems: list[Problem] = []
        self._epochs: set[int] = set()
        self._machines: set[int] = set()

    async def run(self, advance: Callable[[int], None] | None = None) -> Verified:
        """Check log, rollups, checkpoints and every frame of the point. Raises ``Expired``."""
        for _ in range(TRIES):
            since = floors(self._group)
            found = await self._once(advance)
            clean = found.whole and not found.problems
            if clean or not await moved_on(self._group, self._seq, since):
                return found
            self._problems.clear()  # retention has gone on meanwhile: under the new floor, then
            self._group.log.ignored.clear()
            advance = None  # it was heard of
        return found

    async def _once(self, advance: Callable[[int], None] | None) -> Verified:
        commits = await self._history()
        try:
            point = await PointMap.build(self._group, self._machine.files, self._seq, salvage=True)
        except UNREADABLE as error:
            self._fatal(error.subject, error.message)
            return Verified(self._seq, commits, 0, 0, tuple(self._problems), ())
        for hole in point.doubt.holes if point.doubt is not None else ():
            self._fatal(hole.key, hole.reason)  # restoring goes on after it with salvage only
        sweep = Sweep(point, self._machine, workers=self._workers)
        try:
            for disk in point.machine.disks:
                for first in sweep.windows(disk):
                    window = await sweep.locate(disk, first)
                    await sweep.extract(window, _discard)
                    if advance is not None:
                        advance(len(window.locations) * BLOCK)
        except Damage as error:
            self._fatal(error.subject, error.message)
        finally:
            point.close()
        self._passed_over()  # of packs, too, which are looked at for frames only
        return Verified(
            self._seq,
            commits,
            sweep.frames,
            sweep.stored_bytes,
            tuple(self._problems),
            tuple(sweep.damage),
        )

    async def _history(self) -> int:
        """All that is not content, of the groups before a branch too: how many commits are whole.

        Of those nothing after the point at which the branch begins.
        """
        self._passed_over()
        commits = await self._log()
        if not self._group.below:
            await self._unlisted()
        await self._rollups()
        await self._checkpoints()
        for wrong in await wrong_records(self._group, self._epochs, self._machines):
            self._tell(wrong.key, wrong.reason)
        self._passed_over()
        try:
            parent = await parent_of(self._group)
        except UNREADABLE as error:
            self._tell(error.subject, error.message)
            return commits
        if parent is not None:
            before = Verify(parent, self._machine, parent.tail)
            commits += await before._history()
            for problem in before._problems:
                self._tell(problem.key, problem.reason)
        return commits

    async def _log(self) -> int:
        """Every commit up to the point: links, signatures, bodies. Returns how many are whole."""
        at, link, whole = self._begin() - 1, None, 0
        while at < self._seq:
            until = min(self._seq, (at // SPAN + 1) * SPAN)
            try:
                commits = await self._group.log.stretch(at + 1, until, link, rollups=False)
                link = commits[-1].link
                self._saw(commits)
                whole += len(commits)
            except UNREADABLE as error:
                # A point that does not need it is whole all the same: reading it will tell.
                self._tell(error.subject, error.message)
                whole += await self._one_by_one(at + 1, until, error.subject)
                link = None
            at = until
        return whole

    def _begin(self) -> int:
        """The first commit that the point can be held against: retention may have left no more."""
        log = self._group.log
        if self._seq >= log.first:
            return log.first
        return min(log.base(self._seq) + 1, self._seq)

    async def _one_by_one(self, first: int, last: int, known: str) -> int:
        """Name everything that is damaged in a stretch, not only what was met first."""
        whole = 0
        for seq in range(first, last + 1):
            try:
                self._saw([await self._group.log.signed(seq)])
                whole += 1
            except UNREADABLE as error:
                if error.subject != known:
                    self._tell(error.subject, error.message)
        return whole

    def _saw(self, commits: list[Commit]) -> None:
        self._epochs.update(commit.header.epoch for commit in commits)
        self._machines.update(commit.header.machine for commit in commits)

    def _tell(self, key: str, reason: str) -> None:
        """The point may be whole all the same. No more are kept than can be read."""
        if len(self._problems) < MAX_DAMAGE:
            self._problems.append(Problem(key, reason, False))

    def _fatal(self, key: str, reason: str) -> None:
        """The point cannot be restored: also if the object is known to be damaged already."""
        others = [problem for problem in self._problems if problem.key != key]
        self._problems = [*others[1 - MAX_DAMAGE :], Problem(key, reason, True)]

    async def _unlisted(self) -> None:
        """Objects in the log beyond its tail: foreign, or after a hole."""
        prefix = layout.log_prefix(self._group.scope.group)
        last = layout.commit(self._group.scope.group, self._group.tail)
        after = last if self._group.tail else ""
        known = {problem.key for problem in self._problems}
        for info in await self._group.log.store.page(prefix, after):
            if info.key in known:
                continue
            self._tell(info.key, "lies beyond the end of the log")

    def _passed_over(self) -> None:
        """What reading went round by itself."""
        known = {problem.key for problem in self._problems}
        for note in self._group.log.ignored:
            operation, _, rest = note.partition(": ")
            key, _, reason = (note if "/" in operation else rest).partition(": ")
            if key not in known:
                self._tell(key, reason)

    async def _rollups(self) -> None:
        whole = -(-(self._begin() - 1) // SPAN) * SPAN + SPAN
        for last in range(whole, self._seq + 1, SPAN):
            key = layout.rollup(self._group.scope.group, last)
            try:
                heads = decode(await self._group.log.store.get(key), key)
                first = last - SPAN + 1
                commits = await self._group.log.stretch(first, last, None, rollups=False)
                for head, commit in zip(heads, commits, strict=True):
                    if not head.endswith(commit.body) or commit.container.signature not in head:
                        self._tell(key, "differs from the log")
                        break
            except ObjectMissing:
                self._tell(key, "a rollup is missing: reads slower")
            except UNREADABLE as error:
                self._tell(error.subject, error.message)

    async def _checkpoints(self) -> None:
        """All pages of the checkpoint that this point would be read with."""
        try:
            newest = await self._group.log.signed(self._seq)
            manifest = await nearest(self._group, newest)
        except UNREADABLE as error:
            self._tell(error.subject, error.message)
            return
        if manifest is None:
            return
        for what, owner, table in _tables(manifest):
            for page in np.flatnonzero(table[:, 2]).tolist():
                seq, place, length = table[page].tolist()
                name = PageName(what, owner, page, seq)
                try:
                    await fetch_page(self._group, name, place, length)
                except Damage as error:
                    self._tell(error.subject, error.message)


def _tables(manifest: Manifest) -> list[tuple[int, int, U64]]:
    found: list[tuple[int, int, U64]] = []
    for disk in manifest.disks:
        found.append((MAP, disk.number, disk.map))
        found.append((DIGESTS, disk.number, disk.digests))
    found.extend((FRAMES, pages.epoch, pages.table) for pages in manifest.epochs)
    return found


def _discard(room: memoryview, laid: Sequence[Laid]) -> None:
    """Opening it was the point."""
