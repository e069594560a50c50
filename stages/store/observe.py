"""Counts what a store does, for status and metrics: calls, bytes, errors, latencies."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from stages.errors import BackstayError
from stages.ports import Buffer, Clock
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put

T = TypeVar("T")

OPERATIONS = ("put", "get", "info", "page", "delete")
BUCKETS = 32  # bucket i: below 2**i microseconds; the last one holds everything longer


@dataclass(frozen=True, slots=True)
class OperationStatistics:
    """One kind of call. ``bytes``: stored by puts, returned by gets. ``seconds``: sum of all calls.

    ``errors``: by class name, sorted. ``latencies``: ``BUCKETS`` counts of calls, failed ones too;
    bucket i holds calls of at least 2**(i-1) and below 2**i microseconds.
    """

    name: str
    calls: int
    running: int
    cancelled: int
    bytes: int
    seconds: float
    errors: tuple[tuple[str, int], ...]
    latencies: tuple[int, ...]

    def quantile(self, share: float) -> float:
        """Seconds that ``share`` of the calls did not exceed, rounded up to a bucket; 0 if none."""
        return quantile(self.latencies, share)


def quantile(latencies: Sequence[int], share: float) -> float:
    """Of counts as in ``OperationStatistics``; see there."""
    wanted = share * sum(latencies)
    seen = 0
    for bucket, count in enumerate(latencies):
        seen += count
        if count and seen >= wanted:
            return float(2**bucket) / 1e6
    return 0.0


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot of all operations, in the order of ``OPERATIONS``."""

    url: str
    operations: tuple[OperationStatistics, ...]

    def of(self, name: str) -> OperationStatistics:
        """One operation."""
        return self.operations[OPERATIONS.index(name)]


@dataclass
class _Counter:
    name: str
    calls: int = 0
    running: int = 0
    cancelled: int = 0
    bytes: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    latencies: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def ended(self, seconds: float) -> None:
        micros = max(0, int(seconds * 1e6))
        self.running -= 1
        self.seconds += seconds
        self.latencies[min(micros.bit_length(), BUCKETS - 1)] += 1

    def failed(self, error: BackstayError) -> None:
        kind = type(error).__name__
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def snapshot(self) -> OperationStatistics:
        return OperationStatistics(
            name=self.name,
            calls=self.calls,
            running=self.running,
            cancelled=self.cancelled,
            bytes=self.bytes,
            seconds=self.seconds,
            errors=tuple(sorted(self.errors.items())),
            latencies=tuple(self.latencies),
        )


class Counters:
    """What stores have counted: one after the other, or several at once."""

    def __init__(self) -> None:
        self._all = {name: _Counter(name) for name in OPERATIONS}

    def __getitem__(self, name: str) -> _Counter:
        return self._all[name]

    def statistics(self, url: str) -> StoreStatistics:
        """An immutable snapshot."""
        return StoreStatistics(url, tuple(self._all[name].snapshot() for name in OPERATIONS))


class ObservedStore:
    """Passes everything on and counts it, in ``counters`` that may be older than it."""

    def __init__(self, inner: ObjectStore, clock: Clock, counters: Counters | None = None):
        self.url = inner.url
        self._inner = inner
        self._clock = clock
        self._counters = counters or Counters()

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Put; its bytes count if it created the object."""
        found = await self._observe("put", self._inner.put(key, parts))
        if found is Put.CREATED:
            self._counters["put"].bytes += sum(memoryview(part).nbytes for part in parts)
        return found

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See ``ObjectStore``."""
        data = await self._observe("get", self._inner.get(key, offset, length))
        self._counters["get"].bytes += len(data)
        return data

    async def info(self, key: str) -> ObjectInfo | None:
        """See ``ObjectStore``."""
        return await self._observe("info", self._inner.info(key))

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """See ``ObjectStore``."""
        return await self._observe("page", self._inner.page(prefix, after, limit))

    async def delete(self, key: str) -> bool:
        """See ``ObjectStore``."""
        return await self._observe("delete", self._inner.delete(key))

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()

    def statistics(self) -> StoreStatistics:
        """An immutable snapshot."""
        return self._counters.statistics(self.url)

    async def _observe(self, name: str, call: Awaitable[T]) -> T:
        counter = self._counters[name]
        counter.calls += 1
        counter.running += 1
        started = self._clock.monotonic()
        try:
            return await call
        except BackstayError as error:
            counter.failed(error)
            raise
        except trio.Cancelled:
            counter.cancelled += 1
            raise
        finally:
            counter.ended(self._clock.monotonic() - started)
