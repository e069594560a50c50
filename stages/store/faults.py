"""A store that fails on purpose, for tests and simulations.

A rule sees every operation before it happens and answers with what goes wrong with it, if
anything. Keys can be hidden, as in a geo-replicated copy where objects arrive out of order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from stages.errors import BackstayError, ObjectMissing, OutcomeUnknown, StoreUnreachable
from stages.ports import Buffer, Clock
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put, check_key, check_limit

T = TypeVar("T")

TRACE = 100_000
ABANDONED = 64


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: ``number`` counts all calls of this store from 0; ``name`` as in the port."""

    number: int
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one operation, in this order.

    ``delay``: seconds before anything. ``before``: raised instead of doing it. ``late``: a put's
    answer is lost now and it takes effect that many seconds later, at the first call then.
    ``flip``: the byte at this offset (modulo the size) of what a get returns is inverted.
    ``after``: raised after it was done.
    """

    delay: float = 0.0
    before: type[BackstayError] | None = None
    late: float | None = None
    flip: int | None = None
    after: type[BackstayError] | None = None


NO_FAULT = Fault()
LOST_REQUEST = Fault(before=StoreUnreachable)
LOST_ANSWER = Fault(after=OutcomeUnknown)

Rule: TypeAlias = Callable[[Operation], Fault | None]


@dataclass
class FaultPlan:
    """``rule`` for each operation; ``hidden`` keys are not seen by get, info and page."""

    rule: Rule = lambda _operation: None
    hidden: Callable[[str], bool] = lambda _key: False


def nth(number: int, fault: Fault, *, name: str = "") -> Rule:
    """Fault only the operation ``number``, from 0: of all, or of those called ``name``."""
    seen = 0

    def rule(operation: Operation) -> Fault | None:
        nonlocal seen
        if name and operation.name != name:
            return None
        seen += 1
        return fault if seen == number + 1 else None

    return rule


def scripted(*faults: Fault | None) -> Rule:
    """Fault the first operations in turn, none after them."""
    rest = deque(faults)
    return lambda _operation: rest.popleft() if rest else None


@dataclass(frozen=True, slots=True)
class Traced:
    """An operation and how it ended: ``ok`` or the name of the error."""

    operation: Operation
    outcome: str


@dataclass(frozen=True, slots=True)
class _Late:
    due: float
    key: str
    data: bytes


@dataclass
class FaultStore:
    """Applies a plan to a store. ``trace`` holds the last calls, in the order they ended."""

    inner: ObjectStore
    plan: FaultPlan
    clock: Clock
    trace: deque[Traced] = field(default_factory=lambda: deque(maxlen=TRACE))

    def __post_init__(self) -> None:
        self.url = self.inner.url
        self._count = 0
        self._late: list[_Late] = []

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Put, unless the plan says otherwise."""
        operation, fault = await self._begin("put", key)
        if fault.late is not None:
            self._abandon(key, parts, fault.late)
            raise self._end(operation, OutcomeUnknown)
        return await self._do(operation, fault, self.inner.put(key, parts))

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Get, unless the plan says otherwise."""
        operation, fault = await self._begin("get", key)
        if self.plan.hidden(key):
            raise self._end(operation, ObjectMissing)
        data = await self._do(operation, fault, self.inner.get(key, offset, length))
        if fault.flip is None or not data:
            return data
        damaged = bytearray(data)
        damaged[fault.flip % len(data)] ^= 0xFF
        return bytes(damaged)

    async def info(self, key: str) -> ObjectInfo | None:
        """Info, unless the plan says otherwise."""
        operation, fault = await self._begin("info", key)
        found = await self._do(operation, fault, self.inner.info(key))
        return None if self.plan.hidden(key) else found

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Page without hidden keys, unless the plan says otherwise."""
        check_limit(limit)
        operation, fault = await self._begin("page", prefix)
        return await self._do(operation, fault, self._page(prefix, after, limit))

    async def delete(self, key: str) -> bool:
        """Delete, unless the plan says otherwise."""
        operation, fault = await self._begin("delete", key)
        return await self._do(operation, fault, self.inner.delete(key))

    async def aclose(self) -> None:
        """Close the inner store."""
        await self.inner.aclose()

    async def settle(self) -> None:
        """Let all abandoned puts take effect now."""
        await self._apply_late(until=float("inf"))

    async def _page(self, prefix: str, after: str, limit: int) -> list[ObjectInfo]:
        seen: list[ObjectInfo] = []
        while len(seen) < limit:
            found = await self.inner.page(prefix, after, limit)
            seen += [info for info in found if not self.plan.hidden(info.key)]
            if len(found) < limit:
                break
            after = found[-1].key
        return seen[:limit]

    async def _begin(self, name: str, key: str) -> tuple[Operation, Fault]:
        operation = Operation(self._count, name, key)
        self._count += 1
        fault = self.plan.rule(operation) or NO_FAULT
        if fault.delay:
            await self.clock.sleep(fault.delay)
        await self._apply_late(until=self.clock.monotonic())
        if fault.before:
            raise self._end(operation, fault.before)
        return operation, fault

    async def _do(self, operation: Operation, fault: Fault, call: Awaitable[T]) -> T:
        try:
            answer = await call
        except BackstayError as error:
            self.trace.append(Traced(operation, type(error).__name__))
            raise
        if fault.after:
            raise self._end(operation, fault.after)
        self.trace.append(Traced(operation, "ok"))
        return answer

    def _end(self, operation: Operation, kind: type[BackstayError]) -> BackstayError:
        self.trace.append(Traced(operation, kind.__name__))
        return kind("injected", operation=operation.name, subject=operation.key)

    def _abandon(self, key: str, parts: Sequence[Buffer], seconds: float) -> None:
        if len(self._late) >= ABANDONED:
            raise ValueError(f"more than {ABANDONED} abandoned puts")
        due = self.clock.monotonic() + seconds
        self._late.append(_Late(due, check_key(key), b"".join(parts)))
        self._late.sort(key=lambda put: put.due)

    async def _apply_late(self, *, until: float) -> None:
        while self._late and self._late[0].due <= until:
            put = self._late.pop(0)
            await self.inner.put(put.key, [put.data])
