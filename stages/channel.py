"""Channels between stages, bounded in bytes and in items, with statistics.

``reserve`` waits for credit and ``push`` then enqueues without an await, so that a producer can do
something irrevocable in between (R4, R8). ``send`` is both. Credit is given strictly in the order
in which it was asked for, so that many small items never starve a large one. An item larger than
the whole limit is admitted when the channel is empty, so nothing ever deadlocks on its own size.

Credit that was reserved before ``close`` may still be pushed: the consumer sees the end only once
every reservation was pushed or released.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class ChannelClosed(Exception):
    """The other side has gone: nothing more can be sent."""


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A snapshot. Waits are in seconds, summed over the channel's life. ``mean_bytes``: held,
    reserved ones too, on average from the first item on."""

    name: str
    items: int
    bytes: int
    max_items: int
    max_bytes: int
    peak_bytes: int
    total_items: int
    total_bytes: int
    send_wait: float
    receive_wait: float
    closed: bool
    mean_bytes: float = 0.0


class _Waiter:
    """A reservation in the queue for credit."""

    __slots__ = ("granted", "size", "woken")

    def __init__(self, size: int) -> None:
        self.size = size
        self.granted = False
        self.woken = trio.Event()


class Channel(Generic[T]):
    """One producer side, one consumer side, first in first out."""

    def __init__(self, name: str, *, max_bytes: int, max_items: int):
        if max_bytes < 1 or max_items < 1:
            raise ValueError(f"channel {name}: limits must be positive")
        self.name = name
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._queue: deque[tuple[T, int]] = deque()
        self._held_bytes = 0  # reserved or queued
        self._held_items = 0
        self._waiting: deque[_Waiter] = deque()
        self._receivers = trio.lowlevel.ParkingLot()
        self._closed = False
        self._abandoned = False
        self._peak = self._total_items = self._total_bytes = 0
        self._send_wait = self._receive_wait = 0.0
        self._since: float | None = None  # when the first item came
        self._counted = 0.0  # up to when the fill has been summed
        self._byte_seconds = 0.0

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes and one item fit. Follow with ``push`` or ``release``.

        Raises ``ChannelClosed``, also if it is closed meanwhile.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise ChannelClosed(self.name)
        if self._waiting or not self._fits(size):
            await self._wait_for_credit(size)
        else:
            self._take(size)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def push(self, item: T, size: int) -> None:
        """Enqueue into credit reserved before; never waits. Uses the credit also if it raises."""
        if self._abandoned:
            self.release(size)
            raise ChannelClosed(self.name)
        self._queue.append((item, size))
        self._total_items += 1
        self._total_bytes += size
        self._receivers.unpark()

    def release(self, size: int) -> None:
        """Give back credit that was reserved and is not used."""
        self._count()
        self._held_bytes -= size
        self._held_items -= 1
        self._grant()
        if self._closed and not self._held_items:
            self._receivers.unpark_all()

    async def send(self, item: T, size: int) -> None:
        """Reserve and push."""
        await self.reserve(size)
        self.push(item, size)

    async def receive(self) -> T:
        """Return the oldest item. Raises ``trio.EndOfChannel`` once closed and empty."""
        await trio.lowlevel.checkpoint_if_cancelled()
        started = trio.current_time()
        while not self._queue:
            if self._ended:
                raise trio.EndOfChannel
            await self._receivers.park()
        self._receive_wait += trio.current_time() - started
        item, size = self._queue.popleft()
        self.release(size)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return item

    def close(self) -> None:
        """No more reservations; what is queued or reserved can still be received."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().woken.set()
        self._receivers.unpark_all()

    def abandon(self) -> None:
        """The consumer has gone: senders fail instead of waiting for ever."""
        self._abandoned = True
        self.close()
        while self._queue:
            self.release(self._queue.popleft()[1])

    def statistics(self) -> ChannelStatistics:
        """An immutable snapshot."""
        return ChannelStatistics(
            name=self.name,
            items=len(self._queue),
            bytes=sum(size for _, size in self._queue),
            max_items=self._max_items,
            max_bytes=self._max_bytes,
            peak_bytes=self._peak,
            total_items=self._total_items,
            total_bytes=self._total_bytes,
            send_wait=self._send_wait,
            receive_wait=self._receive_wait,
            closed=self._closed,
            mean_bytes=self._mean(),
        )

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __enter__(self) -> Channel[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _wait_for_credit(self, size: int) -> None:
        started = trio.current_time()
        waiter = _Waiter(size)
        self._waiting.append(waiter)
        try:
            await waiter.woken.wait()
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            self._send_wait += trio.current_time() - started
        if not waiter.granted:
            raise ChannelClosed(self.name)

    def _withdraw(self, waiter: _Waiter) -> None:
        """Undo a cancelled wait; credit may have come between the cancellation and its delivery."""
        if waiter.granted:
            self.release(waiter.size)
        elif not waiter.woken.is_set():
            self._waiting.remove(waiter)
            self._grant()  # those behind may fit where this one did not

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            waiter = self._waiting.popleft()
            self._take(waiter.size)
            waiter.granted = True
            waiter.woken.set()

    def _count(self) -> None:
        now = trio.current_time()
        if self._since is None:
            self._since = now
        else:
            self._byte_seconds += self._held_bytes * (now - self._counted)
        self._counted = now

    def _mean(self) -> float:
        """Up to the last change: what does not move any more is not counted."""
        lived = 0.0 if self._since is None else self._counted - self._since
        return self._byte_seconds / lived if lived else 0.0

    def _take(self, size: int) -> None:
        self._count()
        self._held_bytes += size
        self._held_items += 1
        self._peak = max(self._peak, self._held_bytes)

    def _fits(self, size: int) -> bool:
        if not self._held_items:
            return True
        return self._held_items < self._max_items and self._held_bytes + size <= self._max_bytes

    @property
    def _ended(self) -> bool:
        return self._abandoned or (self._closed and not self._held_items)
