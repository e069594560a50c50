"""How many bytes a second go to a store and come from it, shared fairly by all who use it.

An object pays for all of its bytes before it is put, since a put takes it as a whole: it is sent
as fast as the line takes it, and what follows waits until the average is right again (``bucket``).
A get pays for what it asks for, and is given back what it did not get; if it asks for all of an
object of unknown size, it pays afterwards, and what follows waits.

Requests that have no content to speak of (info, page, delete) are never held up. Nothing ever
fails because of a limit: it takes longer, the journal grows, and status shows how old the newest
point is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from stages.errors import BackstayError
from stages.ports import Buffer, Clock
from stages.store.bucket import Bucket, Line, Ticket
from stages.store.port import ObjectStore, Put
from stages.store.through import Through

_LOOK_SECONDS = 15.0  # between two looks which rate holds, while somebody waits
_SHORTEST = 0.001  # seconds: less is lost in rounding


class Limiter:
    """One direction of one vault. ``rate``: bytes a second now, None for no limit; it is asked at
    every turn, so a schedule is followed. Flows (machines) have the same weight."""

    def __init__(self, clock: Clock, rate: Callable[[], float | None]):
        self._clock = clock
        self._rate = rate
        self._bucket = Bucket()
        self._line = Line()
        self._called: dict[Ticket, trio.Event] = {}
        self.waited = 0.0  # seconds, summed over all who did

    @property
    def rate(self) -> float | None:
        """Bytes a second now; None: no limit."""
        return self._rate()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._line)

    async def pay(self, flow: str, size: int) -> None:
        """Return when ``size`` bytes of ``flow`` may go. Cancelled before that, nothing was paid;
        after it, what is paid stays paid, since nobody knows how much of it was sent."""
        began = self._clock.monotonic()
        ticket = self._line.enter(flow, size)
        try:
            while (wait := self._grant(ticket)) is not None:
                event = self._called[ticket] = trio.Event()
                with trio.move_on_after(wait):
                    await event.wait()
        finally:
            self._called.pop(ticket, None)
            self.waited += self._clock.monotonic() - began
            if not ticket.granted:
                self._line.leave(ticket)
                self._call_first()

    def charge(self, size: int) -> None:
        """Bytes that went, or with a negative ``size`` did not go, beside what was paid for."""
        self._bucket.settle(self._clock.monotonic(), self._rate())
        self._bucket.take(size)
        if size < 0:
            self._call_first()

    def _grant(self, mine: Ticket) -> float | None:
        """Give turns to all who can have one. None: it has had its own; else seconds until it looks
        again, infinite where others come before it."""
        self._bucket.settle(self._clock.monotonic(), self._rate())
        while (first := self._line.first()) is not None:
            wait = self._bucket.wait(first.size)
            if wait > 0:
                if first is mine:
                    return min(max(wait, _SHORTEST), _LOOK_SECONDS)
                self._call(first)  # it may not know yet that it is the first
                break
            self._bucket.take(first.size)
            self._line.grant(first)
            self._call(first)
        return None if mine.granted else math.inf

    def _call_first(self) -> None:
        first = self._line.first()
        if first is not None:
            self._call(first)

    def _call(self, ticket: Ticket) -> None:
        if ticket in self._called:
            self._called[ticket].set()


class LimitedStore(Through):
    """A store as ``flow`` uses it. A limiter that is None does not limit."""

    def __init__(
        self,
        inner: ObjectStore,
        flow: str,
        *,
        upload: Limiter | None = None,
        download: Limiter | None = None,
    ):
        super().__init__(inner)
        self._flow = flow
        self._upload = upload
        self._download = download

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Put, when it may go."""
        if self._upload is not None:
            await self._upload.pay(self._flow, sum(memoryview(part).nbytes for part in parts))
        return await self._inner.put(key, parts)

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Get, when it may come."""
        if self._download is None:
            return await self._inner.get(key, offset, length)
        asked = length or 0
        await self._download.pay(self._flow, asked)
        try:
            data = await self._inner.get(key, offset, length)
        except BackstayError:
            self._download.charge(-asked)
            raise
        self._download.charge(len(data) - asked)
        return data
