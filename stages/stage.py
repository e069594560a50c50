"""What a stage is, and the ordered parallel map that most of them are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import trio

from stages.channel import Channel, ChannelClosed
from stages.errors import leaves

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """A snapshot. Seconds are summed over workers: ``busy`` at work, ``wait_in`` with nothing to
    do, ``wait_out`` with something finished that the next stage had no room for. What is left of
    ``workers`` times the wall clock went by waiting for one's turn, or after the input had ended.
    """

    name: str
    workers: int
    items: int
    busy: float
    bytes_in: int
    bytes_out: int
    wait_in: float = 0.0
    wait_out: float = 0.0


class Stage(Protocol):
    """One step of the pipeline, run by a nursery of its owner; it closes what it sends to."""

    name: str

    async def run(self) -> None:
        """Work until the input ends; cancellable at any await."""

    def statistics(self) -> StageStatistics:
        """An immutable snapshot."""


@dataclass
class Meter:
    """Mutable counters behind ``StageStatistics``.

    The clock is looked at when something changes hands, a few times for each item. ``ordered_map``
    drives it for stages made of it; a plain loop says ``running``, ``hungry`` and ``blocked``.
    """

    name: str
    workers: int = 1
    items: int = 0
    busy: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    wait_in: float = 0.0
    wait_out: float = 0.0
    _at: float | None = None  # up to when time has been counted; None: it does not run
    _working: int = 0
    _finished: int = 0  # results that have not been handed on
    _starving: bool = False
    _blocked: bool = False

    def snapshot(self) -> StageStatistics:
        """Freeze the counters; what is still going on is counted up to now."""
        self._count()
        return StageStatistics(
            self.name,
            self.workers,
            self.items,
            self.busy,
            self.bytes_in,
            self.bytes_out,
            self.wait_in,
            self.wait_out,
        )

    def change(
        self,
        *,
        working: int = 0,
        finished: int = 0,
        starving: bool | None = None,
        blocked: bool | None = None,
    ) -> None:
        """From now on that many more work or have finished; is one waiting for either side?"""
        self._count()
        self._working += working
        self._finished += finished
        self._starving = self._starving if starving is None else starving
        self._blocked = self._blocked if blocked is None else blocked

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Time counts inside."""
        self._at = trio.current_time()
        try:
            yield
        finally:
            self._count()
            self._at = None
            self._working = self._finished = 0
            self._starving = self._blocked = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """A loop of one worker: at work wherever it is neither ``hungry`` nor ``blocked``."""
        with self.counting():
            self.change(working=1)
            yield

    @contextmanager
    def hungry(self) -> Iterator[None]:
        """The loop waits for its input."""
        self.change(working=-1, starving=True)
        try:
            yield
        finally:
            self.change(working=1, starving=False)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """The loop waits for room behind it."""
        self.change(working=-1, finished=1, blocked=True)
        try:
            yield
        finally:
            self.change(working=1, finished=-1, blocked=False)

    def _count(self) -> None:
        if self._at is None:
            return
        now = trio.current_time()
        passed, self._at = now - self._at, now
        self.busy += passed * self._working
        if self._starving:
            self.wait_in += passed * max(0, self.workers - self._working - self._finished)
        if self._blocked:
            self.wait_out += passed * self._finished


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


async def together(
    items: Sequence[A], work: Callable[[A], Awaitable[B]], *, at_once: int
) -> list[B]:
    """What ``work`` makes of each, in the order of ``items``; up to ``at_once`` at a time.

    The first failure cancels the rest and is raised by itself.
    """
    found: dict[int, B] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for at, item in waiting:
            found[at] = await work(item)

    async with crew() as nursery:
        for _ in range(min(at_once, len(items))):
            nursery.start_soon(worker)
    return [found[at] for at in range(len(items))]


async def ordered_map(
    source: Channel[A],
    work: Callable[[A], Awaitable[B]],
    sink: Channel[B],
    *,
    workers: int,
    size: Callable[[B], int],
    meter: Meter | None = None,
) -> None:
    """Apply ``work`` to up to ``workers`` items at a time; send results in the order of the input.

    ``work`` is called in that order too, and what it returns is awaited side by side.

    At most ``workers`` items are inside at any time, counting finished ones that wait for their
    turn. The first failure cancels the rest. Closes ``sink`` at the end, abandons ``source`` if
    it leaves early. ``meter`` is told who works and who waits.
    """
    told = meter or Meter("")
    told.workers = workers
    places = trio.Semaphore(workers)
    order: Channel[_Slot[B]] = Channel("order", max_bytes=workers, max_items=workers)

    async def one(begun: Awaitable[B], slot: _Slot[B]) -> None:
        slot.set(await begun)
        told.change(working=-1, finished=1)

    async def emit() -> None:
        async for slot in order:
            await slot.done.wait()
            told.change(blocked=True)
            await sink.send(slot.value, size(slot.value))
            told.change(finished=-1, blocked=False)
            places.release()
            del slot  # or its value is held until the next one is ready

    try:
        with sink, told.counting():
            async with crew() as nursery:
                nursery.start_soon(emit)
                with order:
                    while True:
                        await places.acquire()
                        told.change(starving=True)
                        try:
                            item = await source.receive()
                        except trio.EndOfChannel:
                            break
                        finally:
                            told.change(starving=False)
                        told.change(working=1)
                        slot: _Slot[B] = _Slot()
                        await order.send(slot, 1)
                        nursery.start_soon(one, work(item), slot)
                        del item, slot
    finally:
        source.abandon()
