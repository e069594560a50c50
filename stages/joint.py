"""Where intake and delivery of a group meet: two positions and a way to ask for digests.

It lives in intake. Delivery in the same process uses it as it is; a delivery process of its own
works through a socket whose server calls the same methods (``stages.link``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from stages.model import U64
from stages.stream import ORIGIN, DeliveryGone, Digests, MarkedPoint, Position


class Joint:
    """Both an ``Upstream`` and a ``Downstream``. ``on_settled`` hears of every step (to trim)."""

    def __init__(self, on_settled: Callable[[Position], None] = lambda _: None):
        self.durable = ORIGIN
        self.committed_at = ORIGIN
        self.settled_at = ORIGIN
        self.on_settled = on_settled
        self.on_lost: Callable[[str], Awaitable[Position]]
        self._digests: Digests | None = None
        self._awaited: set[int] = set()
        self._marks: dict[int, MarkedPoint] = {}
        self._moved = trio.lowlevel.ParkingLot()

    def publish(self, position: Position) -> None:
        """The journal is durable up to ``position``."""
        if position > self.durable:
            self.durable = position
            self._moved.unpark_all()

    async def wait_durable(self, beyond: Position) -> Position:
        """See ``Upstream``."""
        while self.durable <= beyond:
            await self._moved.park()
        return self.durable

    async def committed(self, position: Position) -> None:
        """See ``Upstream``."""
        await trio.lowlevel.checkpoint()
        if position > self.committed_at:
            self.committed_at = position
            self._moved.unpark_all()

    async def settled(self, position: Position) -> None:
        """See ``Upstream``."""
        await self.committed(position)
        if position > self.settled_at:
            self.settled_at = position
            self.on_settled(position)

    async def marked(self, point: MarkedPoint) -> None:
        """See ``Upstream``."""
        await trio.lowlevel.checkpoint()
        self.tell(point)

    def tell(self, point: MarkedPoint) -> None:
        """What became of a mark."""
        if point.mark in self._awaited:
            self._marks[point.mark] = point
            self._moved.unpark_all()

    @contextmanager
    def awaiting(self, mark: int) -> Iterator[None]:
        """While this lasts, what becomes of ``mark`` is kept for ``wait_marked``."""
        self._awaited.add(mark)
        try:
            yield
        finally:
            self._awaited.discard(mark)
            self._marks.pop(mark, None)

    async def lost(self, reason: str) -> Position:
        """See ``Upstream``."""
        return await self.on_lost(reason)

    async def wait_marked(self, mark: int) -> MarkedPoint:
        """What became of a mark."""
        while mark not in self._marks:
            await self._moved.park()
        return self._marks[mark]

    async def wait_committed(self, position: Position) -> None:
        """See ``Downstream``."""
        while self.committed_at < position:
            await self._moved.park()

    @property
    def present(self) -> bool:
        """Delivery is there to answer."""
        return self._digests is not None

    async def wait_present(self) -> None:
        """See ``Downstream``."""
        while self._digests is None:
            await self._moved.park()

    @asynccontextmanager
    async def attached(self, digests: Digests) -> AsyncIterator[None]:
        """Delivery answers from ``digests`` while this lasts."""
        self._digests = digests
        self._moved.unpark_all()
        try:
            yield
        finally:
            if self._digests is digests:
                self._digests = None

    async def key(self) -> bytes:
        """See ``Downstream``."""
        return await self._there().key()

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        """See ``Downstream``."""
        return await self._there().chunks(disk, first, count)

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        """See ``Downstream``."""
        return await self._there().blocks(disk, first, count)

    def _there(self) -> Digests:
        if self._digests is None:
            raise DeliveryGone("delivery is not running", operation="ask for digests")
        return self._digests
