"""The object store port: create-only put, get with range, list by prefix, delete. Nothing more.

Keys are relative ASCII paths of ``[a-z0-9._-]`` segments joined by ``/``, at most 512 bytes, each
segment at most 255. No key is a folder of another (``a`` and ``a/b`` never both exist), so that a
file system can hold them; a store that notices a breach raises ``ValueError``.

Errors: ``ObjectMissing`` from ``get``; ``StoreDenied`` for credentials; ``NoSpace``;
``OutcomeUnknown`` when a put ended without an answer (it may or may not be stored); every other
trouble is ``StoreUnreachable``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from stages.ports import Buffer

MAX_KEY = 512
PAGE = 1000

_SEGMENT = r"[a-z0-9_-][a-z0-9._-]{0,254}"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")


class Put(enum.Enum):
    """What a create-only put found."""

    CREATED = "created"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Size in bytes; ``modified`` in seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """One prefix of one store. Calls are cancellable; a cancelled put has an unknown outcome."""

    url: str

    async def put(self, key: str, parts: Sequence[Buffer]) -> Put:
        """Create ``key`` with the joined parts, durable on return, unless it exists."""

    async def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``; fewer than ``length`` (or none) where the object ends before."""

    async def info(self, key: str) -> ObjectInfo | None:
        """Size and age, or None if there is no such object."""

    async def page(self, prefix: str, after: str = "", limit: int = PAGE) -> list[ObjectInfo]:
        """Up to ``limit`` objects whose keys start with ``prefix`` and sort after ``after``.

        In byte order of the keys. ``prefix`` is any string, also half a segment.
        """

    async def delete(self, key: str) -> bool:
        """Remove; False if it was not there."""

    async def aclose(self) -> None:
        """Release connections. Idempotent."""


def check_key(key: str) -> str:
    """Return ``key`` or raise ``ValueError``: this program makes keys, a bad one is a defect."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise ValueError(f"not an object key: {key!r}")
    return key


def check_range(offset: int, length: int | None) -> None:
    """Raise ``ValueError`` for a range that no object can have."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: offset {offset}, length {length}")


def check_limit(limit: int) -> None:
    """Raise ``ValueError`` for a page that cannot hold anything."""
    if limit < 1:
        raise ValueError(f"not a page: limit {limit}")


async def walk(store: ObjectStore, prefix: str, *, most: int) -> AsyncIterator[ObjectInfo]:
    """All objects under ``prefix``, page by page, at most ``most``."""
    after = ""
    while most > 0:
        found = await store.page(prefix, after, min(PAGE, most))
        for info in found:
            yield info
        if len(found) < min(PAGE, most):
            return
        most -= len(found)
        after = found[-1].key
