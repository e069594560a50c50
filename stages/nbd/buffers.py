"""Receive buffers: a fixed handful per connection, larger ones for one payload out of a budget."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio


class ReceiveBuffer:
    """Memory that is recycled when its last holder lets go.

    Payloads are slices of ``view``: whoever keeps one longer than the call it came with calls
    ``hold`` before that call returns and ``release`` when done.
    """

    __slots__ = ("_recycle", "capacity", "holders", "view")

    def __init__(self, capacity: int, recycle: Callable[[ReceiveBuffer], None]):
        # Mapped, not filled with zeros: only what a client sends takes memory.
        self.view = memoryview(mmap.mmap(-1, capacity))
        self.capacity = capacity
        self.holders = 1
        self._recycle = recycle

    def hold(self) -> None:
        """One more holder."""
        self.holders += 1

    def release(self) -> None:
        """One holder fewer."""
        self.holders -= 1
        if not self.holders:
            self._recycle(self)


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot, in bytes."""

    limit: int
    held: int
    peak: int
    waiting: int


class Budget:
    """Bytes that all connections share, given in order of arrival.

    It covers what a client can make the server hold beyond the connection's own buffers: replies
    of reads, and payloads larger than a buffer. Holders never wait for more of it, so it drains.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._held = self._peak = 0
        self._waiters: deque[tuple[int, trio.Event]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait for ``size`` bytes; more than the whole budget is granted when nothing is held."""
        if not self._waiters and self._fits(size):
            self._grant(size)
            return
        granted = trio.Event()
        self._waiters.append((size, granted))
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self.release(size)
            else:
                self._waiters.remove((size, granted))
                self._wake()
            raise

    def release(self, size: int) -> None:
        """Give back."""
        self._held -= size
        self._wake()

    def statistics(self) -> BudgetStatistics:
        """An immutable snapshot."""
        return BudgetStatistics(self._limit, self._held, self._peak, len(self._waiters))

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._limit

    def _grant(self, size: int) -> None:
        self._held += size
        self._peak = max(self._peak, self._held)

    def _wake(self) -> None:
        while self._waiters and self._fits(self._waiters[0][0]):
            size, granted = self._waiters.popleft()
            self._grant(size)
            granted.set()


class BufferPool:
    """One connection's buffers: up to ``most`` of ``size`` bytes, made when first needed."""

    def __init__(self, size: int, most: int, budget: Budget):
        self.size = size
        self._most = most
        self._made = 0
        self._free: list[ReceiveBuffer] = []
        self._parked = trio.lowlevel.ParkingLot()
        self._budget = budget

    async def take(self, capacity: int) -> ReceiveBuffer:
        """A buffer of at least ``capacity``: a pooled one, or exactly that out of the budget."""
        if capacity > self.size:
            await self._budget.acquire(capacity)
            return ReceiveBuffer(capacity, self._drop_large)
        while not self._free and self._made >= self._most:
            await self._parked.park()
        if not self._free:
            self._made += 1
            return ReceiveBuffer(self.size, self._recycle)
        buffer = self._free.pop()
        buffer.holders = 1
        return buffer

    def _recycle(self, buffer: ReceiveBuffer) -> None:
        self._free.append(buffer)
        self._parked.unpark()

    def _drop_large(self, buffer: ReceiveBuffer) -> None:
        self._budget.release(buffer.capacity)
