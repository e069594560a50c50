"""Reading a group's log: its tail, its commits in order, points by time.

Trust comes from the newest commit of a stretch: its signature is checked, and because every header
names the digest of the one before it, so is every byte of those. No list is needed anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from stages.errors import (
    BackstayError,
    BrokenChain,
    DamagedObject,
    MissingData,
    NotAdmitted,
    NotFound,
    ObjectMissing,
)
from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import layout, rollup
from stages.vault.commit import Header, SegmentIndex, decode_body, read_header
from stages.vault.container import FIRST_READ, Container, Kind, header_reach, parse
from stages.vault.sealing import EpochKeys, Scope, open_body
from stages.vault.terms import KeyRing, check_signer

PARALLEL = 16
_LOOK_BEYOND = 16  # a hole in the log must not pass for its end
_GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as read: its header, container and sealed body."""

    header: Header
    container: Container
    body: bytes

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

    async def tail(self) -> int:
        """Number of the newest commit by an admitted writer; 0 if there is none.

        Raises ``BrokenChain`` if commits exist beyond the end that was found.
        """
        newest = await self._last_object()
        beyond = await self._exist(range(newest + 2, newest + 2 + _LOOK_BEYOND))
        if any(beyond):
            raise BrokenChain(
                f"commit {newest + 1} is missing, later ones exist",
                operation="read log",
                subject=layout.commit(self.scope.group, newest + 1),
                hint="'backstay verify' lists what is whole; points up to the hole can be restored",
            )
        while newest:
            try:
                await self.signed(newest)
            except NotAdmitted as error:
                self.ignored.append(str(error))
                newest -= 1
                continue
            except DamagedObject:
                pass  # its place is known; whoever reads it will say so
            break
        return newest

    async def signed(self, seq: int) -> Commit:
        """One commit, its signature checked against charter and term."""
        commit = await self._one(seq)
        await self._check_signature(commit)
        return commit

    async def stretch(self, first: int, last: int, before: bytes | None) -> list[Commit]:
        """Commits ``first`` to ``last``, checked: signature of the last, links of all.

        ``before``: the digest of commit ``first - 1``, None if it is not known. At most a rollup's
        span at a time. Raises ``Damage``.
        """
        found = await self._collect(first, last)
        commits = [found[seq] for seq in range(first, last + 1)]
        await self._check_signature(commits[-1])
        link = _GENESIS if first == 1 else before
        for commit in commits:
            if link is not None and commit.header.previous != link:
                raise BrokenChain(
                    "does not follow the commit before it",
                    operation="read log",
                    subject=commit.container.key,
                )
            link = commit.link
        return commits

    async def at_or_before(self, stamp: int, tail: int) -> int:
        """The last commit stamped at or before ``stamp``; 0 if all are later. Stamps rise."""
        low, high = 0, tail
        while low < high:
            step = max(1, -(-(high - low) // (PARALLEL + 1)))
            probes = list(range(low + step, high + 1, step))[:PARALLEL] or [high]
            if probes[-1] != high and len(probes) < PARALLEL:
                probes.append(high)
            stamps = await self._stamps(probes)
            for seq, found in zip(probes, stamps, strict=True):
                if found > stamp:
                    high = seq - 1
                    break
                low = seq
        return low

    async def consistent_before(self, seq: int) -> int:
        """The newest consistent commit at or before ``seq``, 0 if there is none."""
        if not seq:
            return 0
        header = (await self.signed(seq)).header
        return seq if header.consistent else header.last_consistent

    async def _check_signature(self, commit: Commit) -> None:
        writer = check_signer(commit.container, self.ring.charter)
        if writer != await self.ring.writer(commit.header.epoch):
            raise NotAdmitted(
                "signed by another writer than its epoch's",
                operation="read log",
                subject=commit.container.key,
            )

    async def _collect(self, first: int, last: int) -> dict[int, Commit]:
        """All commits of a range, from rollups where a whole one helps, else one by one."""
        found: dict[int, Commit] = {}
        wanted = range(first, last + 1)
        for end in range(-(-first // rollup.SPAN) * rollup.SPAN, last + 1, rollup.SPAN):
            if sum(end - rollup.SPAN < seq <= end for seq in wanted) > PARALLEL:
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
            heads = rollup.decode(await self.store.get(key), key)
        except (ObjectMissing, DamagedObject):
            return {}
        found = {}
        for seq, head in zip(range(end - rollup.SPAN + 1, end + 1), heads, strict=True):
            try:
                found[seq] = self._parse(seq, head)
            except DamagedObject:
                self.ignored.append(f"{key}: entry {seq} is damaged, read from the log instead")
        return found

    async def _one(self, seq: int) -> Commit:
        key = layout.commit(self.scope.group, seq)
        try:
            data = await self.store.get(key, 0, FIRST_READ)
            reach = header_reach(data)
            if reach > len(data) >= FIRST_READ:
                data += await self.store.get(key, len(data), reach - len(data))
        except ObjectMissing:
            raise MissingData("a commit is missing", operation="read log", subject=key) from None
        return self._parse(seq, data)

    def _parse(self, seq: int, data: bytes) -> Commit:
        key = layout.commit(self.scope.group, seq)
        container = parse(data, key, Kind.COMMIT)
        header = read_header(container, self.scope, seq)
        body = data[container.body_at : container.tail_at]
        return Commit(header, container, container.check_body(body))

    async def _stamps(self, seqs: list[int]) -> list[int]:
        found: dict[int, int] = {}

        async def fetch(seq: int) -> None:
            found[seq] = (await self._one(seq)).header.stamp

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(fetch, seq)
        return [found[seq] for seq in seqs]

    async def _last_object(self) -> int:
        """The end of the log: probes that double, then bisect, ``PARALLEL`` at a time."""
        low = 0
        while True:
            probes = [low + (1 << power) for power in range(PARALLEL)]
            exist = await self._exist(probes)
            if all(exist):
                low = probes[-1]
                continue
            first_missing = exist.index(False)
            high = probes[first_missing]
            low = probes[first_missing - 1] if first_missing else low
            break
        while high - low > 1:
            step = max(1, (high - low) // (PARALLEL + 1))
            probes = list(range(low + step, high, step))[:PARALLEL]
            for seq, there in zip(probes, await self._exist(probes), strict=True):
                if not there:
                    high = seq
                    break
                low = seq
        return low

    async def _exist(self, seqs: range | list[int]) -> list[bool]:
        found: dict[int, bool] = {}

        async def probe(seq: int) -> None:
            key = layout.commit(self.scope.group, seq)
            found[seq] = await self.store.info(key) is not None

        async with crew() as nursery:
            for seq in seqs:
                nursery.start_soon(probe, seq)
        return [found[seq] for seq in seqs]


def no_point(machine: str, what: str, hint: str) -> NotFound:
    """The error for a point that is not there."""
    return NotFound(what, operation="choose point", subject=machine, hint=hint)
