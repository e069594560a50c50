"""Commits as objects of the store: each by itself, or many at once from a rollup.

Nothing is trusted here yet: see ``log`` for signatures and links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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

    def parse(self, seq: int, data: bytes) -> Commit:
        """Commit ``seq`` from its first bytes. Raises ``Damage``, ``UnknownVersion``."""
        key = layout.commit(self._scope.group, seq)
        container = parse(data, key, Kind.COMMIT)
        header = read_header(container, self._scope, seq)
        body = data[container.body_at : container.tail_at]
        return Commit(header, container, container.check_body(body))

    async def one(self, seq: int) -> Commit:
        """Commit ``seq``. Raises ``Damage``, ``UnknownVersion``.

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

        Raises the error of the first that cannot be read.
        """
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
                found[seq] = self.parse(seq, head)
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
