"""Reading a group's log: its tail, its commits in order, points by time.

Trust comes from the newest commit of a stretch: its signature is checked, and because every header
names the digest of the one before it, so is every byte of those. No list is needed anywhere.
"""

from __future__ import annotations

import itertools

from stages.errors import (
    UNREADABLE,
    BackstayError,
    BrokenChain,
    Damage,
    Expired,
    MissingData,
    NotAdmitted,
    UnknownVersion,
)
from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import commits, layout
from stages.vault.commits import Commit, Commits
from stages.vault.floors import Floor
from stages.vault.log_end import LogEnd
from stages.vault.records import Parent
from stages.vault.sealing import Scope
from stages.vault.terms import KeyRing, check_signer

_GENESIS = bytes(32)
MAX_IGNORED = 1000  # notes that are kept


class Log:
    """The log of one group, read through a key ring. ``ignored`` lists what was passed over."""

    def __init__(self, store: ObjectStore, scope: Scope, ring: KeyRing):
        self.store = store
        self.scope = scope
        self.ring = ring
        self.ignored: list[str] = []
        self.genesis = _GENESIS
        self.floor: Floor | None = None
        self.pinned = False  # the floor is given: newer ones are not looked for
        self._commits = Commits(store, scope, lambda: self.first, self.note)

    @property
    def first(self) -> int:
        """The number that the log begins at: below are only points that retention has kept."""
        return self.floor.seq if self.floor is not None else 1

    def offers(self, seq: int) -> bool:
        """Has retention left this point?"""
        return self.floor is None or self.floor.offers(seq)

    def base(self, seq: int) -> int:
        """The checkpoint before which nothing can be read for a point; 0: all is there."""
        return self.floor.base(seq) if self.floor is not None else 0

    def check_offered(self, seq: int) -> None:
        """Raise ``Expired`` if retention has let a point go."""
        if not self.offers(seq):
            raise self.expired(seq)

    def expired(self, seq: int) -> Expired:
        """The error for a point that has gone."""
        return Expired(
            f"point #{seq} was let go by retention",
            operation="read log",
            subject=layout.commit(self.scope.group, seq),
            hint="this is no damage; 'backstay points' lists the points that are left",
        )

    def begin_at(self, parent: Parent | None) -> None:
        """Commit 1 of a branch follows its parent's commit, as its group's record names it."""
        self.genesis = _GENESIS if parent is None else parent.digest

    async def tail(self) -> int:
        """Number of the newest commit by an admitted writer; 0 if there is none.

        Raises ``BrokenChain`` if commits were seen beyond the end that was found.
        """
        end = LogEnd(self.store, self.scope.group)
        newest, holed = await end.find(self.first)
        if self.floor is not None and newest < self.first:
            raise BrokenChain(
                f"commit {self.first}, which the log begins at, is missing",
                operation="read log",
                subject=layout.commit(self.scope.group, self.first),
            )
        if holed or await end.goes_on(newest):
            raise BrokenChain(
                f"commit {newest + 1} is missing, later ones exist",
                operation="read log",
                subject=layout.commit(self.scope.group, newest + 1),
                hint="'backstay verify' lists what is whole; points up to the hole can be restored",
            )
        while newest >= self.first:
            try:
                await self.signed(newest)
            except NotAdmitted as error:
                self.note(str(error))
                newest -= 1
                continue
            except (Damage, UnknownVersion):
                pass  # its place is known; whoever reads it will say so
            break
        return newest

    async def signed(self, seq: int) -> Commit:
        """One commit, its signature checked against charter and term.

        Raises ``Expired`` if retention has let it go, ``Damage``. The newest ones are read once:
        whoever opens a group and a point asks for them again and again.
        """
        known = self._commits.known(seq) if self.offers(seq) else None
        commit = known or await self._read(seq)
        await self._check_signature(commit)
        self._check_kept(commit)
        self._commits.remember([commit])
        return commit

    async def _read(self, seq: int) -> Commit:
        try:
            return await self._commits.one(seq)
        except MissingData:
            self.check_offered(seq)
            raise

    def _check_kept(self, commit: Commit) -> None:
        """A commit that a floor names is the one that it means."""
        if self.floor is None:
            return
        point = self.floor.kept(commit.header.seq)
        link = point.link if point is not None else self.floor.link
        named = point is not None or commit.header.seq == self.floor.seq
        if named and commit.link != link:
            raise BrokenChain(
                "is not the commit that the floor names",
                operation="read log",
                subject=commit.container.key,
            )

    async def stretch(
        self, first: int, last: int, before: bytes | None, *, rollups: bool = True
    ) -> list[Commit]:
        """Commits ``first`` to ``last``, checked: signature of the last, links of all.

        ``before``: the digest of commit ``first - 1``, None if it is not known. At most a rollup's
        span at a time. ``rollups`` False reads every commit from its own object. Raises ``Damage``.
        """
        if not rollups:
            return await self._linked(first, last, before, rollups=False)
        try:
            return await self._linked(first, last, before, rollups=True)
        except UNREADABLE as error:
            # A rollup is a copy that nobody signed: what it says counts only if it fits.
            found = await self._linked(first, last, before, rollups=False)
            self.note(f"{error}, in a rollup; the log is read instead")
            return found

    async def _linked(
        self, first: int, last: int, before: bytes | None, *, rollups: bool
    ) -> list[Commit]:
        found = await self._commits.all(first, last, rollups=rollups)
        await self._check_signature(found[-1])
        link = self.genesis if first == 1 else before
        if link is not None and found[0].header.previous != link:
            raise _does_not_follow(found[0])
        for commit, following in itertools.pairwise(found):
            if not _follows(commit, following):
                await self._check_signature(commit)  # or was the one before it changed?
                raise _does_not_follow(following)
        self._commits.remember(found)
        return found

    async def at_or_before(self, stamp: int, tail: int) -> int:
        """The last commit stamped at or before ``stamp``; 0 if all are later. Stamps rise.

        A commit that cannot be read is passed over and noted: it does not keep a time from being
        found. Raises its error if there is nothing else to go by.
        """
        floor = self.floor
        low, high = self.first - 1, tail
        if floor is not None:
            if (await self.signed(floor.seq)).header.stamp > stamp:
                return self._kept_before(floor, stamp)
            low = floor.seq
        while low < high:
            step = -(-(high - low) // (commits.PARALLEL + 1))
            stamps, failed = await self._stamps(range(low + step, high + 1, step))
            if failed and not stamps and (step > 1 or not low):
                raise failed[0]
            for seq, found in stamps.items():
                if found > stamp:
                    high = seq - 1
                    break
                low = seq
            if step == 1:
                break
        return low

    @staticmethod
    def _kept_before(floor: Floor, stamp: int) -> int:
        return max((point.seq for point in floor.points if point.stamp <= stamp), default=0)

    async def consistent_before(self, seq: int) -> int:
        """The newest consistent commit at or before ``seq`` that is left, 0 if there is none."""
        if not seq:
            return 0
        header = (await self.signed(seq)).header
        found = seq if header.consistent else header.last_consistent
        if found and not self.offers(found):  # of those before the floor only consistent ones are
            points = self.floor.points if self.floor is not None else ()
            return max((point.seq for point in points if point.seq < found), default=0)
        return found

    def parse(self, seq: int, head: bytes) -> Commit:
        """Commit ``seq`` from its first bytes; its signature is not checked. Raises ``Damage``,
        ``UnknownVersion``.
        """
        return self._commits.parse(seq, head)

    async def proven(self, seq: int, head: bytes) -> Commit:
        """Commit ``seq`` from its first bytes, its signature checked as that of the last of a
        stretch. Raises ``Damage``, ``NotAdmitted``, ``UnknownVersion``.
        """
        commit = self.parse(seq, head)
        await self._check_signature(commit)
        return commit

    async def _check_signature(self, commit: Commit) -> None:
        """An admitted writer's, and the one's whose epoch it is.

        A term that is lost or damaged costs the second part only: that is noted.
        """
        writer = check_signer(commit.container, self.ring.charter)
        try:
            holder = await self.ring.writer(commit.header.epoch)
        except UNREADABLE as error:
            self.note(f"{error}; whose epoch it was is not checked")
            return
        if writer != holder:
            raise NotAdmitted(
                "signed by another writer than its epoch's",
                operation="read log",
                subject=commit.container.key,
            )

    def note(self, what: str) -> None:
        """Something was passed over. Whoever may put objects can put any number of them."""
        if what not in self.ignored and len(self.ignored) < MAX_IGNORED:
            self.ignored.append(what)

    async def _stamps(self, seqs: range) -> tuple[dict[int, int], list[BackstayError]]:
        """Stamps of commits with a good signature, ascending; why the others have none."""
        found: dict[int, int] = {}
        failed: list[BackstayError] = []

        async def fetch(seq: int) -> None:
            try:
                found[seq] = (await self.signed(seq)).header.stamp
            except UNREADABLE as error:
                failed.append(error)
                self.note(f"{error}; passed over")

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(fetch, seq)
        return {seq: found[seq] for seq in seqs if seq in found}, failed


def _follows(before: Commit, after: Commit) -> bool:
    """What every commit owes to its predecessor: its digest, an epoch and a stamp above."""
    one, other = before.header, after.header
    return other.previous == before.link and other.epoch >= one.epoch and other.stamp > one.stamp


def _does_not_follow(commit: Commit) -> BrokenChain:
    return BrokenChain(
        "does not follow the commit before it",
        operation="read log",
        subject=commit.container.key,
    )
