"""Reading a group's log: its tail, its commits in order, points by time.

Trust comes from the newest commit of a stretch: its signature is checked, and because every header
names the digest of the one before it, so is every byte of those. No list is needed anywhere.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import trio

from stages.errors import (
    UNREADABLE,
    BackstayError,
    BrokenChain,
    Damage,
    DamagedObject,
    Expired,
    MissingData,
    NotAdmitted,
    ObjectMissing,
    UnknownVersion,
)
from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import layout, rollup
from stages.vault.commit import Header, SegmentIndex, decode_body, read_header
from stages.vault.container import FIRST_READ, Container, Kind, header_reach, parse
from stages.vault.floors import Floor
from stages.vault.records import Parent
from stages.vault.sealing import EpochKeys, Scope, open_body
from stages.vault.terms import KeyRing, check_signer

PARALLEL = 32
_LOOK_BEYOND = 16  # a hole in the log must not pass for its end
_GENESIS = bytes(32)
_ROLLED = 4  # rollups whose commits are remembered


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as read: its header, container and sealed body."""

    header: Header
    container: Container
    body: bytes

    @property
    def head(self) -> bytes:
        """The bytes that it was read from: prefix to body."""
        return self.container.head + self.body

    @property
    def link(self) -> bytes:
        """The digest that the next commit names."""
        return self.container.digest

    def index(self, scope: Scope, keys: EpochKeys) -> tuple[SegmentIndex, ...]:
        """Open the body. Raises ``DamagedObject``."""
        container = self.container
        sealed = container.check_body(self.body)
        plain = open_body(scope, Kind.COMMIT, keys, self.header.seq, sealed, container.key)
        return decode_body(plain, self.header, container.key)


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
        self._rolled: dict[int, dict[int, Commit]] = {}

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
        newest, holed = await self._last_object()
        if self.floor is not None and newest < self.first:
            raise BrokenChain(
                f"commit {self.first}, which the log begins at, is missing",
                operation="read log",
                subject=layout.commit(self.scope.group, self.first),
            )
        beyond = await self._exist(range(newest + 2, newest + 2 + _LOOK_BEYOND))
        if holed or any(beyond):
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
                self._note(str(error))
                newest -= 1
                continue
            except (Damage, UnknownVersion):
                pass  # its place is known; whoever reads it will say so
            break
        return newest

    async def signed(self, seq: int) -> Commit:
        """One commit, its signature checked against charter and term.

        Raises ``Expired`` if retention has let it go, ``Damage``.
        """
        try:
            commit = await self._one(seq)
        except MissingData:
            self.check_offered(seq)
            raise
        await self._check_signature(commit)
        self._check_kept(commit)
        return commit

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
        except (Damage, NotAdmitted, UnknownVersion) as error:
            # A rollup is a copy that nobody signed: what it says counts only if it fits.
            found = await self._linked(first, last, before, rollups=False)
            self._note(f"{error}, in a rollup; the log is read instead")
            return found

    async def _linked(
        self, first: int, last: int, before: bytes | None, *, rollups: bool
    ) -> list[Commit]:
        found = await self._collect(first, last, rollups=rollups)
        commits = [found[seq] for seq in range(first, last + 1)]
        await self._check_signature(commits[-1])
        link = self.genesis if first == 1 else before
        if link is not None and commits[0].header.previous != link:
            raise _does_not_follow(commits[0])
        for commit, following in itertools.pairwise(commits):
            if not _follows(commit, following):
                await self._check_signature(commit)  # or was the one before it changed?
                raise _does_not_follow(following)
        return commits

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
            step = -(-(high - low) // (PARALLEL + 1))
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
            self._note(f"{error}; whose epoch it was is not checked")
            return
        if writer != holder:
            raise NotAdmitted(
                "signed by another writer than its epoch's",
                operation="read log",
                subject=commit.container.key,
            )

    def _note(self, what: str) -> None:
        if what not in self.ignored:
            self.ignored.append(what)

    async def _collect(self, first: int, last: int, *, rollups: bool) -> dict[int, Commit]:
        """All commits of a range, from rollups where a whole one helps, else one by one."""
        found: dict[int, Commit] = {}
        wanted = range(first, last + 1)
        for end in range(-(-first // rollup.SPAN) * rollup.SPAN, last + 1, rollup.SPAN):
            if rollups and sum(end - rollup.SPAN < seq <= end for seq in wanted) > PARALLEL:
                found.update(await self._from_rollup(end))
        missing = [seq for seq in wanted if seq not in found]
        limit = trio.CapacityLimiter(PARALLEL)
        failed: dict[int, BackstayError] = {}

        async def fetch(seq: int) -> None:
            async with limit:
                try:
                    found[seq] = await self._one(seq)
                except (DamagedObject, MissingData) as error:
                    failed[seq] = error

        async with crew() as nursery:
            for seq in missing:
                nursery.start_soon(fetch, seq)
        for seq in sorted(failed):
            raise failed[seq]
        return found

    async def _from_rollup(self, end: int) -> dict[int, Commit]:
        """The commits of a rollup; what is missing or damaged in it is read one by one instead."""
        key = layout.rollup(self.scope.group, end)
        try:
            heads = rollup.decode(await self.store.get(key, 0, rollup.MAX_SIZE + 1), key)
        except ObjectMissing:
            return {}
        except DamagedObject as error:
            self._note(f"{error}; the log is read instead")
            return {}
        found = {}
        for seq, head in zip(range(end - rollup.SPAN + 1, end + 1), heads, strict=True):
            try:
                found[seq] = self.parse(seq, head)
            except (DamagedObject, UnknownVersion):
                self._note(f"{key}: entry {seq} is damaged, read from the log instead")
        return found

    async def _one(self, seq: int) -> Commit:
        key = layout.commit(self.scope.group, seq)
        try:
            data = await self.store.get(key, 0, FIRST_READ)
            reach = header_reach(data)
            if reach > len(data) >= FIRST_READ:
                data += await self.store.get(key, len(data), reach - len(data))
        except ObjectMissing:
            if seq < self.first:
                return await self._only_rolled(seq)
            raise MissingData("a commit is missing", operation="read log", subject=key) from None
        return self.parse(seq, data)

    async def _only_rolled(self, seq: int) -> Commit:
        """A commit before the floor whose frames have gone or were moved: its rollup has the rest.

        Raises ``MissingData`` if that has not, either.
        """
        end = -(-seq // rollup.SPAN) * rollup.SPAN
        if end not in self._rolled:
            if len(self._rolled) >= _ROLLED:
                self._rolled.clear()
            self._rolled[end] = await self._from_rollup(end)
        found = self._rolled[end].get(seq)
        if found is not None:
            return found
        key = layout.commit(self.scope.group, seq)
        raise MissingData("a commit is missing", operation="read log", subject=key)

    def parse(self, seq: int, data: bytes) -> Commit:
        """Commit ``seq`` from its first bytes; its signature is not checked. Raises ``Damage``."""
        key = layout.commit(self.scope.group, seq)
        container = parse(data, key, Kind.COMMIT)
        header = read_header(container, self.scope, seq)
        body = data[container.body_at : container.tail_at]
        return Commit(header, container, container.check_body(body))

    async def _stamps(self, seqs: range) -> tuple[dict[int, int], list[BackstayError]]:
        """Stamps of commits with a good signature, ascending; why the others have none."""
        found: dict[int, int] = {}
        failed: list[BackstayError] = []

        async def fetch(seq: int) -> None:
            try:
                found[seq] = (await self.signed(seq)).header.stamp
            except (Damage, NotAdmitted, UnknownVersion) as error:
                failed.append(error)
                self._note(f"{error}; passed over")

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(fetch, seq)
        return {seq: found[seq] for seq in seqs if seq in found}, failed

    async def _last_object(self) -> tuple[int, bool]:
        """The end of the log, and whether anything was seen beyond it.

        Probes at powers of two, then between the last two of them, ``PARALLEL`` at a time.
        """
        before = self.first - 1
        low, high, holed = before, 0, False
        for power in range(0, 64, PARALLEL):
            probes = [before + (1 << exponent) for exponent in range(power, power + PARALLEL)]
            low, high, seen = await self._narrow(low, 0, probes)
            holed |= seen
            if high:
                break
        while high - low > 1:
            step = -(-(high - low) // (PARALLEL + 1))
            low, high, seen = await self._narrow(low, high, list(range(low + step, high, step)))
            holed |= seen
        return low, holed

    async def _narrow(self, low: int, high: int, probes: list[int]) -> tuple[int, int, bool]:
        """Bounds of the end: the last probe before a missing one, the first that is missing."""
        exist = await self._exist(probes)
        if all(exist):
            return probes[-1], high, False
        first = exist.index(False)
        return ([low, *probes][first], probes[first], any(exist[first:]))

    async def _exist(self, seqs: range | list[int]) -> list[bool]:
        found: dict[int, bool] = {}

        async def probe(seq: int) -> None:
            key = layout.commit(self.scope.group, seq)
            found[seq] = await self.store.info(key) is not None

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(probe, seq)
        return [found[seq] for seq in seqs]


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
