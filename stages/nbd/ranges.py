"""Locks on ranges of blocks: overlapping ones are held one after the other, in order of arrival."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class _Claim:
    """A range that is held, or waits with ``granted`` not yet set."""

    __slots__ = ("first", "gone", "granted", "stop")

    def __init__(self, first: int, stop: int):
        self.first = first
        self.stop = stop
        self.granted: trio.Event | None = None
        self.gone: trio.Event | None = None

    def overlaps(self, other: _Claim) -> bool:
        return self.first < other.stop and other.first < self.stop


class RangeLocks:
    """Holders and waiters are as many as requests in flight, so lists are searched linearly."""

    def __init__(self) -> None:
        self._claims: list[_Claim] = []  # in order of arrival, held and waiting

    @property
    def busy(self) -> bool:
        """Something is held."""
        return bool(self._claims)

    def taken(self, first: int, stop: int) -> bool:
        """Some of blocks ``first`` to ``stop`` is held, or waited for."""
        return any(claim.first < stop and first < claim.stop for claim in self._claims)

    def held(self) -> list[tuple[int, int]]:
        """The ranges held or waited for, as (first, stop)."""
        return [(claim.first, claim.stop) for claim in self._claims]

    async def passed(self) -> None:
        """Return when nothing is held any more of what is held, or waited for, now."""
        events = []
        for claim in self._claims:
            claim.gone = claim.gone or trio.Event()
            events.append(claim.gone)
        for gone in events:
            await gone.wait()

    @asynccontextmanager
    async def hold(self, first: int, stop: int) -> AsyncIterator[None]:
        """Hold blocks ``first`` to ``stop``, exclusively."""
        claim = _Claim(first, stop)
        blocked = any(claim.overlaps(other) for other in self._claims)
        self._claims.append(claim)
        try:
            if blocked:
                claim.granted = trio.Event()
                await claim.granted.wait()
            yield
        finally:
            self._claims.remove(claim)
            if claim.gone is not None:
                claim.gone.set()
            self._grant(claim)

    def _grant(self, gone: _Claim) -> None:
        """Wake the waiters that only ``gone`` stood in front of."""
        for index, claim in enumerate(self._claims):
            if claim.granted is None or claim.granted.is_set() or not claim.overlaps(gone):
                continue
            if not any(claim.overlaps(earlier) for earlier in self._claims[:index]):
                claim.granted.set()
