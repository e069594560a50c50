"""Writing rollups: after every 256th commit, its head and those of the 255 before it.

Heads made by this session are at hand; those of earlier sessions are fetched from the vault, which
costs a get for a put and spares a file that would have to be kept right through crashes.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from stages.errors import ObjectMissing
from stages.ship.session import LogSession
from stages.stage import crew
from stages.vault import layout
from stages.vault.container import FIRST_READ, HEAD_SIZE, MAX_BODY, MAX_HEADER, header_reach
from stages.vault.rollup import MAX_SIZE, SPAN, encode

_PARALLEL = 16


class Rollups:
    """Keeps the heads since the last rollup; bounded by the span."""

    def __init__(self, session: LogSession):
        self._session = session
        self._heads: dict[int, bytes] = {}

    async def catch_up(self) -> None:
        """Write the newest rollup if an earlier life died before it could."""
        newest = self._session.ledger.tail.seq // SPAN * SPAN
        if newest:
            key = layout.rollup(self._group, newest)
            if await self._session.writer.store.info(key) is None:
                await self._write(newest)

    async def committed(self, seq: int, head: bytes) -> None:
        """A commit is settled; writes the rollup when it completes one."""
        self._heads[seq] = head
        if seq % SPAN == 0:
            await self._write(seq)
            self._heads.clear()

    async def _write(self, last: int) -> None:
        """A rollup saves time only: where retention has let go of commits of its span, and of it
        too, there will be none.
        """
        heads = dict(self._heads)
        limit = trio.CapacityLimiter(_PARALLEL)

        async def fetch(seq: int) -> None:
            async with limit:
                with suppress(ObjectMissing):
                    heads[seq] = await self._fetch(seq)

        wanted = range(last - SPAN + 1, last + 1)
        async with crew() as nursery:
            for seq in wanted:
                if seq not in heads:
                    nursery.start_soon(fetch, seq)
        if len(heads) < SPAN:
            return
        parts = encode([heads[seq] for seq in wanted])
        if sum(len(part) for part in parts) <= MAX_SIZE:
            await self._session.writer.store.put(layout.rollup(self._group, last), parts)

    async def _fetch(self, seq: int) -> bytes:
        key = layout.commit(self._group, seq)
        store = self._session.writer.store
        data = await store.get(key, 0, FIRST_READ)
        reach = header_reach(data)
        if reach > len(data):
            data = await store.get(key, 0, HEAD_SIZE + MAX_HEADER + MAX_BODY)
        return data[:reach]

    @property
    def _group(self) -> bytes:
        return self._session.writer.scope.group
