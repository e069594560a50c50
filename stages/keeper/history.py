"""Reads a log in stretches, from rollups as columns where they are whole, else commit by commit."""

from __future__ import annotations

from stages.errors import UNREADABLE, DamagedObject, ObjectMissing
from stages.recover.opened import Group
from stages.vault import commits as vault_commits
from stages.vault import layout, rollup
from stages.vault.heads import Heads, Odd, read_heads


class History:
    """The commits of one group. Holds one rollup at a time.

    ``whole``: rollups, by their last commit, that have turned out to be whole: all their commits
    as they were signed, the last by the writer whose epoch it is.
    """

    def __init__(self, group: Group):
        self._group = group
        self._end = 0
        self._rolled: Heads | None = None
        self.whole: set[int] = set()

    def view(self, group: Group) -> History:
        """For the same log under another floor: what is known of rollups stays known."""
        other = History(group)
        other._end, other._rolled, other.whole = self._end, self._rolled, self.whole
        return other

    async def stretch(self, first: int, last: int, before: bytes | None) -> Heads:
        """Commits ``first`` to ``last``, checked as ``Log.stretch`` does: signature of the last of
        them or of their rollup, links of all. At most a rollup's span. Raises ``Damage``.
        """
        end = -(-first // rollup.SPAN) * rollup.SPAN
        some = last - first + 1 > vault_commits.PARALLEL or end == self._end
        rolled = await self._read(end) if last <= end and some else None
        if rolled is not None:
            low = first - (end - rollup.SPAN + 1)
            found = rolled.part(low, low + last - first + 1)
            link = self._group.log.genesis if first == 1 else before
            if link in (None, found.before):
                return found
        commits = await self._group.log.stretch(first, last, before)
        try:
            return read_heads([commit.head for commit in commits], first, self._group.scope)
        except Odd as error:
            key = layout.commit(self._group.scope.group, first)
            raise DamagedObject(f"cannot be told: {error}", subject=key) from None

    async def _read(self, end: int) -> Heads | None:
        """The commits of a rollup, if it is there and nothing is odd about it."""
        if end != self._end:
            self._end, self._rolled = end, None
            self._rolled = await self._from_rollup(end)
        return self._rolled

    async def _from_rollup(self, end: int) -> Heads | None:
        log = self._group.log
        key = layout.rollup(log.scope.group, end)
        try:
            heads = rollup.decode(await log.store.get(key, 0, rollup.MAX_SIZE + 1), key)
            found = read_heads(heads, end - rollup.SPAN + 1, log.scope)
            await log.ring.writer(int(found.epoch[-1]))  # without its term the careful way notes it
            await log.proven(end, heads[-1])
        except (Odd, ObjectMissing, *UNREADABLE):
            return None
        self.whole.add(end)
        return found

    async def prove(self, end: int) -> bool:
        """Does a rollup hold all its commits as they were signed, so that it can stand in?"""
        if end not in self.whole:
            await self._read(end)
        return end in self.whole
