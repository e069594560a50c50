"""What a stage is, and the ordered parallel map that most of them are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import trio

from stages.channel import Channel, ChannelClosed
from stages.errors import leaves

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """A snapshot: ``busy`` is seconds of work summed over workers."""

    name: str
    workers: int
    items: int
    busy: float
    bytes_in: int
    bytes_out: int


class Stage(Protocol):
    """One step of the pipeline, run by a nursery of its owner; it closes what it sends to."""

    name: str

    async def run(self) -> None:
        """Work until the input ends; cancellable at any await."""

    def statistics(self) -> StageStatistics:
        """An immutable snapshot."""


@dataclass
class Meter:
    """Mutable counters behind ``StageStatistics``."""

    name: str
    workers: int = 1
    items: int = 0
    busy: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def snapshot(self) -> StageStatistics:
        """Freeze the counters."""
        return StageStatistics(
            self.name, self.workers, self.items, self.busy, self.bytes_in, self.bytes_out
        )


class _Slot(Generic[B]):
    """One result on its way, in order."""

    __slots__ = ("done", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: B

    def set(self, value: B) -> None:
        self.value = value
        self.done.set()


class Signal:
    """Says to one task that there is something to look at; said twice is said once."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """There is something to look at."""
        self._event.set()

    async def wait(self) -> None:
        """Return once it was set since the last return."""
        await self._event.wait()
        self._event = trio.Event()


@asynccontextmanager
async def crew() -> AsyncIterator[trio.Nursery]:
    """A nursery whose first failure is raised by itself, not in a group.

    The others fail because of it or beside it; a caller can then catch the error by its class.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        failed = [leaf for leaf in leaves(group) if not isinstance(leaf, trio.Cancelled)]
        if not failed:
            raise
        failed.sort(key=_rank)
        raise failed[0] from None


def _rank(failed: BaseException) -> int:
    """An interrupt goes first; that the other side has gone is only ever a consequence."""
    return isinstance(failed, Exception) + isinstance(failed, ChannelClosed)


async def ordered_map(
    source: Channel[A],
    work: Callable[[A], Awaitable[B]],
    sink: Channel[B],
    *,
    workers: int,
    size: Callable[[B], int],
) -> None:
    """Apply ``work`` to up to ``workers`` items at a time; send results in the order of the input.

    ``work`` is called in that order too, and what it returns is awaited side by side.

    At most ``workers`` items are inside at any time, counting finished ones that wait for their
    turn. The first failure cancels the rest. Closes ``sink`` at the end, abandons ``source`` if
    it leaves early.
    """
    places = trio.Semaphore(workers)
    order: Channel[_Slot[B]] = Channel("order", max_bytes=workers, max_items=workers)

    async def one(begun: Awaitable[B], slot: _Slot[B]) -> None:
        slot.set(await begun)

    async def emit() -> None:
        async for slot in order:
            await slot.done.wait()
            await sink.send(slot.value, size(slot.value))
            places.release()
            del slot  # or its value is held until the next one is ready

    try:
        with sink:
            async with crew() as nursery:
                nursery.start_soon(emit)
                with order:
                    while True:
                        await places.acquire()
                        try:
                            item = await source.receive()
                        except trio.EndOfChannel:
                            break
                        slot: _Slot[B] = _Slot()
                        await order.send(slot, 1)
                        nursery.start_soon(one, work(item), slot)
                        del item, slot
    finally:
        source.abandon()
