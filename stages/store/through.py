"""A store that passes everything on: what decorators begin from that change a call or two."""

from __future__ import annotations

from collections.abc import Sequence

from stages.ports import Buffer
from stages.store.port import PAGE, ObjectInfo, ObjectStore, Put


class Through:
    """Implements ``ObjectStore`` by another."""

    def __init__(self, inner: ObjectStore):
        self.url = inner.url
        self._inner = inner

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """See ``ObjectStore``."""
        return await self._inner.put(key, parts)

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See ``ObjectStore``."""
        return await self._inner.get(key, offset, length)

    async def info(self, key: str) -> ObjectInfo | None:
        """See ``ObjectStore``."""
        return await self._inner.info(key)

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """See ``ObjectStore``."""
        return await self._inner.page(prefix, after, limit)

    async def delete(self, key: str) -> bool:
        """See ``ObjectStore``."""
        return await self._inner.delete(key)

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()
