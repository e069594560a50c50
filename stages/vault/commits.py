"""Commits as objects of the store: each by itself, or many at once from a rollup.

Nothing is trusted here yet: see ``log`` for signatures and links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import trio

from stages.errors import BackstayError, DamagedObject, MissingData, ObjectMissing, UnknownVersion
from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import layout, rollup
from stages.vault.commit import Header, SegmentIndex, decode_body, read_header
from stages.vault.container import FIRST_READ, Container, Kind, header_reach, parse
from stages.vault.sealing import EpochKeys, Scope, open_body

PARALLEL = 32  # requests of one reader at a time
_ROLLED = 4  # rollups whose commits are remembered
KEPT = 128  # newest commits of those read that are remembered
KEPT_BYTES = 4 << 20  # of their heads


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as read: its header, container and sealed body. ``rolled``: from a rollup."""

    header: Header
    container: Container
    body: bytes
    rolled: bool = field(default=False, compare=False)

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


class _Kept:
    """The newest of the commits that were read: one, or more within the bounds. ``own``: those
    that were read from their own objects; the others are a rollup's word for it."""

    def __init__(self) -> None:
        self.all: dict[int, Commit] = {}
        self.own: dict[int, Commit] = {}
        self._bytes = 0

    def put(self, commit: Commit) -> None:
        """Remember it, unless newer ones fill the room."""
        seq = commit.header.seq
        if seq not in self.all:
            if len(self.all) >= KEPT and seq < min(self.all):
                return
            self._bytes += commit.container.tail_at
            self.all[seq] = commit
        if not commit.rolled:
            self._bytes += commit.container.tail_at - self.all[seq].container.tail_at
            self.all[seq] = self.own[seq] = commit
        while len(self.all) > 1 and (len(self.all) > KEPT or self._bytes > KEPT_BYTES):
            oldest = min(self.all)
            self._bytes -= self.all.pop(oldest).container.tail_at
            self.own.pop(oldest, None)


class Commits:
    """The commits of a group. ``begin`` tells the number that its log begins at, which retention
    moves on; ``note`` hears what was passed over.
    """

    def __init__(
        self,
        store: ObjectStore,
        scope: Scope,
        begin: Callable[[], int],
        note: Callable[[str], None],
    ):
        self._store = store
        self._scope = scope
        self._begin = begin
        self._note = note
        self._rolled: dict[int, dict[int, Commit]] = {}
        self._kept = _Kept()

    def parse(self, seq: int, data: bytes) -> Commit:
        """Commit ``seq`` from its first bytes. Raises ``Damage``, ``UnknownVersion``."""
        key = layout.commit(self._scope.group, seq)
        container = parse(data, key, Kind.COMMIT)
        header = read_header(container, self._scope, seq)
        body = data[container.body_at : container.tail_at]
        return Commit(header, container, container.check_body(body))

    def known(self, seq: int) -> Commit | None:
        """Commit ``seq``, if it is remembered from its own object."""
        return self._kept.own.get(seq)

    def remember(self, found: Sequence[Commit]) -> None:
        """Commits that were proven: what could be false is read again, from another place."""
        for commit in found[-KEPT:]:
            self._kept.put(commit)

    async def one(self, seq: int) -> Commit:
        """Commit ``seq``, read now. Raises ``Damage``, ``UnknownVersion``.

        The frames of one before the log's beginning have gone or were moved: its rollup has the
        rest.
        """
        key = layout.commit(self._scope.group, seq)
        try:
            data = await self._store.get(key, 0, FIRST_READ)
            reach = header_reach(data)
            if reach > len(data) >= FIRST_READ:
                data += await self._store.get(key, len(data), reach - len(data))
        except ObjectMissing:
            found = await self._only_rolled(seq) if seq < self._begin() else None
            if found is not None:
                return found
            raise MissingData("a commit is missing", operation="read log", subject=key) from None
        return self.parse(seq, data)

    async def all(self, first: int, last: int, *, rollups: bool) -> list[Commit]:
        """Commits ``first`` to ``last``, from rollups where a whole one helps, else one by one.

        With ``rollups`` also from memory: whoever chooses a point has read the newest commits, and
        they are read again when it is opened. Raises the error of the first that cannot be read.
        """
        wanted, kept = range(first, last + 1), self._kept.all
        found = {seq: kept[seq] for seq in wanted if seq in kept} if rollups else {}
        for end in range(-(-first // rollup.SPAN) * rollup.SPAN, last + 1, rollup.SPAN):
            here = range(max(first, end - rollup.SPAN + 1), min(last, end) + 1)
            if rollups and sum(seq not in found for seq in here) > PARALLEL:
                found = await self._from_rollup(end) | found
        missing = [seq for seq in wanted if seq not in found]
        limit = trio.CapacityLimiter(PARALLEL)
        failed: dict[int, BackstayError] = {}

        async def fetch(seq: int) -> None:
            async with limit:
                try:
                    found[seq] = await self.one(seq)
                except (DamagedObject, MissingData) as error:
                    failed[seq] = error

        async with crew() as nursery:
            for seq in missing:
                nursery.start_soon(fetch, seq)
        for seq in sorted(failed):
            raise failed[seq]
        return [found[seq] for seq in wanted]

    async def _from_rollup(self, end: int) -> dict[int, Commit]:
        """The commits of a rollup; what is missing or damaged in it is read one by one instead."""
        key = layout.rollup(self._scope.group, end)
        try:
            heads = rollup.decode(await self._store.get(key, 0, rollup.MAX_SIZE + 1), key)
        except ObjectMissing:
            return {}
        except DamagedObject as error:
            self._note(f"{error}; the log is read instead")
            return {}
        found = {}
        for seq, head in zip(range(end - rollup.SPAN + 1, end + 1), heads, strict=True):
            try:
                found[seq] = replace(self.parse(seq, head), rolled=True)
            except (DamagedObject, UnknownVersion):
                self._note(f"{key}: entry {seq} is damaged, read from the log instead")
        return found

    async def _only_rolled(self, seq: int) -> Commit | None:
        end = -(-seq // rollup.SPAN) * rollup.SPAN
        if end not in self._rolled:
            if len(self._rolled) >= _ROLLED:
                self._rolled.clear()
            self._rolled[end] = await self._from_rollup(end)
        return self._rolled[end].get(seq)
