"""A store in memory: for tests and simulations, and the oracle of the conformance suite."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from stages.errors import NoSpace, ObjectMissing
from stages.ports import Buffer, Clock
from stages.store.port import PAGE, ObjectInfo, Put, check_key, check_limit, check_range


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    modified: float


class MemoryStore:
    """Objects in a dictionary. Every call is one atomic step between two scheduling points.

    ``modified`` comes from ``clock`` and is 0 without one. ``max_bytes`` over all objects: beyond
    it puts end in ``NoSpace``.
    """

    def __init__(
        self, url: str = "memory:", *, clock: Clock | None = None, max_bytes: int = 1 << 32
    ):
        self.url = url
        self._clock = clock
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._objects: dict[str, _Object] = {}
        self._keys: list[str] = []  # sorted

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key`` unless it exists."""
        check_key(key)
        await trio.lowlevel.checkpoint()
        self._check_folders(key)
        if key in self._objects:
            return Put.EXISTS
        data = b"".join(parts)
        if self._held_bytes + len(data) > self._max_bytes:
            raise NoSpace(
                f"the store is limited to {self._max_bytes} bytes",
                operation="put",
                subject=key,
                hint="delete objects or raise the limit",
            )
        modified = self._clock.wall_us() / 1e6 if self._clock else 0.0
        self._held_bytes += len(data)
        self._objects[key] = _Object(data, modified)
        insort(self._keys, key)
        return Put.CREATED

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``, fewer where the object ends before."""
        check_key(key)
        check_range(offset, length)
        await trio.lowlevel.checkpoint()
        found = self._objects.get(key)
        if found is None:
            raise ObjectMissing("no such object", operation="get", subject=key)
        end = len(found.data) if length is None else offset + length
        return found.data[offset:end]

    async def info(self, key: str) -> ObjectInfo | None:
        """Size and age, or None."""
        check_key(key)
        await trio.lowlevel.checkpoint()
        return self._info(key) if key in self._objects else None

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Up to ``limit`` objects under ``prefix`` after ``after``, in order."""
        check_limit(limit)
        await trio.lowlevel.checkpoint()
        first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        keys = self._keys[first : first + limit]
        return [self._info(key) for key in keys if key.startswith(prefix)]

    async def delete(self, key: str) -> bool:
        """Remove; False if it was not there."""
        check_key(key)
        await trio.lowlevel.checkpoint()
        found = self._objects.pop(key, None)
        if found is None:
            return False
        self._held_bytes -= len(found.data)
        del self._keys[bisect_left(self._keys, key)]
        return True

    async def aclose(self) -> None:
        """Nothing to release; the objects stay."""

    def _info(self, key: str) -> ObjectInfo:
        found = self._objects[key]
        return ObjectInfo(key, len(found.data), found.modified)

    def _check_folders(self, key: str) -> None:
        at = bisect_left(self._keys, f"{key}/")
        inside = self._keys[at : at + 1]
        above = [key[:end] for end, char in enumerate(key) if char == "/"]
        clash = [other for other in inside if other.startswith(f"{key}/")]
        clash += [other for other in above if other in self._objects]
        if clash:
            raise ValueError(f"one key is a folder of the other: {key!r} and {clash[0]!r}")
