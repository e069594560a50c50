"""Retries blips of seconds, so that the supervisor's ladder sees outages only.

A put whose answer was lost is put again, create-only. If the object then exists, its bytes decide:
equal ones were ours. (Another writer's equal bytes count as ours too; sealed objects never are.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from stages.errors import ObjectMissing, OutcomeUnknown, StoreUnreachable
from stages.ports import Buffer, Clock, Entropy
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put

T = TypeVar("T")

FIRST_PAUSE = 0.1  # seconds; doubles
LONGEST_PAUSE = 2.0


class RetryStore:
    """Repeats what ended in ``StoreUnreachable`` until ``seconds`` after the call began.

    The pause before each repetition is drawn from 0 to 0.1, 0.2, 0.4 … 2 s. Then the last error is
    raised. Other errors are raised at once. ``again`` hears of each put that is sent once more.
    """

    def __init__(
        self,
        inner: ObjectStore,
        clock: Clock,
        entropy: Entropy,
        *,
        seconds: float = 10.0,
        again: Callable[[Sequence[Buffer]], None] = lambda _: None,
    ):
        self.url = inner.url
        self.retries = 0  # since the start
        self._inner = inner
        self._clock = clock
        self._entropy = entropy
        self._seconds = seconds
        self._again = again

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key``; CREATED also if an attempt without an answer did."""
        unsure = False

        async def attempt() -> Put:
            nonlocal unsure
            if unsure:
                self._again(parts)
            try:
                found = await self._inner.put(key, parts)
            except StoreUnreachable:
                unsure = True
                raise
            if found is Put.EXISTS and unsure and await self._holds(key, parts):
                return Put.CREATED
            return found

        return await self._retry(attempt)

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See ``ObjectStore``."""
        return await self._retry(lambda: self._inner.get(key, offset, length))

    async def info(self, key: str) -> ObjectInfo | None:
        """See ``ObjectStore``."""
        return await self._retry(lambda: self._inner.info(key))

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """See ``ObjectStore``."""
        return await self._retry(lambda: self._inner.page(prefix, after, limit))

    async def delete(self, key: str) -> bool:
        """Remove; after an attempt without an answer, nothing there counts as removed."""
        unsure = False

        async def attempt() -> bool:
            nonlocal unsure
            try:
                return await self._inner.delete(key) or unsure
            except StoreUnreachable:
                unsure = True
                raise

        return await self._retry(attempt)

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()

    async def _holds(self, key: str, parts: Sequence[Buffer]) -> bool:
        """True if the object is exactly these bytes."""
        wanted = b"".join(parts)
        try:
            return await self._inner.get(key, 0, len(wanted) + 1) == wanted
        except ObjectMissing as error:
            raise OutcomeUnknown(
                "exists, but cannot be read yet",
                operation="put",
                subject=key,
                hint="a delete or a slow replica; it is tried again",
            ) from error

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        end = self._clock.monotonic() + self._seconds
        longest = FIRST_PAUSE
        while True:
            try:
                return await attempt()
            except StoreUnreachable:
                pause = longest * self._fraction()
                if self._clock.monotonic() + pause > end:
                    raise
            self.retries += 1
            await self._clock.sleep(pause)
            longest = min(2 * longest, LONGEST_PAUSE)

    def _fraction(self) -> float:
        return int.from_bytes(self._entropy.token(4)) / (1 << 32)
