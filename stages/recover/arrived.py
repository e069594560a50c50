"""What of a log's newest commits has arrived in a copy of the vault, and which points lack some."""

from __future__ import annotations

from dataclasses import dataclass

from stages.recover.checkpoints import nearest, parts_of
from stages.recover.opened import Group
from stages.recover.tails import Tails
from stages.stage import crew
from stages.vault import layout
from stages.vault.commit import Header
from stages.vault.commits import PARALLEL, Commit
from stages.vault.rollup import SPAN


@dataclass(frozen=True, slots=True)
class Arrived:
    """Of a window of the log: ``holes`` are the numbers of commits that are not there (or, where a
    listing tells, are cut short), ascending, and ``rolled`` those of them that a rollup tells of,
    all but their content; ``late`` is the key of a data object that is not there or of another
    size, "" without one, and ``first_late`` the first commit that names one.
    """

    group: Group
    holes: list[int]
    rolled: dict[int, Commit]
    first_late: int
    late: str
    tails: Tails

    @staticmethod
    async def of(group: Group, wanted: range, commits: list[Commit]) -> Arrived:
        """Look for what ``commits`` name, which could be read of ``wanted``, and for the others."""
        headers = [commit.header for commit in commits]
        first, key = await _first_incomplete(group, headers)
        known = {commit.header.seq: commit for commit in commits}
        holes = await _holes(group, wanted, known)
        rolled = {hole: known[hole] for hole in holes if hole in known}
        return Arrived(group, holes, rolled, first, key, Tails(group, headers))

    async def lacking(self, commit: Commit) -> str:
        """The key of something that is missing for a point to be read; "" if nothing is."""
        missing = await self._in_the_way(commit)
        return missing or (self.late if commit.header.seq >= self.first_late else "")

    async def _in_the_way(self, commit: Commit) -> str:
        """What holes cost a point: "" if a whole checkpoint spares those that no rollup tells of,
        and no content is in them that the point may still have."""
        group, seq = self.group, commit.header.seq
        before = [hole for hole in self.holes if hole < seq]
        if not before:
            return ""
        known = list(group.log.ignored)
        manifest = await nearest(group, commit)
        group.log.ignored[:] = known  # who reads the point will say so
        base = 0 if manifest is None else manifest.seq
        for hole in reversed([hole for hole in before if base < hole]):
            # Its frames are not followed: a point that comes soon after is passed over, too.
            if hole not in self.rolled or await self._has_content(self.rolled[hole]):
                return layout.commit(group.scope.group, hole)
        spared = [hole for hole in before if hole <= base]
        if manifest is None or not spared:
            return ""
        for (at, part), end in sorted(parts_of(manifest).items()):
            name = layout.checkpoint_part(group.scope.group, at, part)
            info = await group.log.store.info(name)
            if info is None or info.size < end:
                return name
        return await self.tails.needed(commit, manifest, spared)

    async def _has_content(self, commit: Commit) -> bool:
        """Frames in its own tail."""
        keys = await self.group.ring.keys(commit.header.epoch)
        index = commit.index(self.group.scope, keys)
        return any(segment.source < 0 and len(segment.spans) for segment in index)


async def _holes(group: Group, wanted: range, commits: dict[int, Commit]) -> list[int]:
    """Numbers of commits that are not there, ascending. Of those that may be known of a rollup
    only, too: it has no content.

    The listing that tells which those are tells the sizes, too. Without one, nobody has asked for
    the size of a commit that could be read: if its tail is cut, that is found when it is wanted.
    """
    gid, store = group.scope.group, group.log.store
    known, short = set(commits), set[int]()
    ends = range(-(-wanted.start // SPAN) * SPAN, wanted.stop, SPAN)
    if any(_rolled(wanted, end) for end in ends):
        listed = await store.page(layout.log_prefix(gid), layout.commit(gid, wanted.start - 1))
        sizes = {info.key: info.size for info in listed}
        known = {seq for seq in commits if layout.commit(gid, seq) in sizes}
        short = {
            seq for seq in known if sizes[layout.commit(gid, seq)] < commits[seq].container.size
        }
    return [
        seq
        for seq in wanted
        if seq in short or (seq not in known and await store.info(layout.commit(gid, seq)) is None)
    ]


def _rolled(wanted: range, end: int) -> bool:
    """Would a rollup be read rather than its commits?"""
    return end - max(wanted.start, end - SPAN + 1) + 1 > PARALLEL


async def _first_incomplete(group: Group, headers: list[Header]) -> tuple[int, str]:
    """The first commit that names a data object which is missing or of another size, and that."""
    pending = iter([(header, ref) for header in headers for ref in header.objects])
    bad = [(group.tail + 1, "")]

    async def look() -> None:
        for header, ref in pending:
            key = layout.data(group.scope.group, header.epoch, ref.number)
            info = await group.log.store.info(key)
            if info is None or info.size != ref.size:
                bad.append((header.seq, key))

    async with crew() as nursery:
        for _ in range(PARALLEL):
            nursery.start_soon(look)
    return min(bad)
