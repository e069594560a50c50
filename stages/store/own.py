"""Puts of objects that nobody else can make: sealed bytes under a name that is taken once."""

from __future__ import annotations

from collections.abc import Sequence

from stages.errors import ObjectMissing
from stages.ports import Buffer
from stages.store.port import ObjectStore, Put


async def put_own(store: ObjectStore, key: str, parts: Sequence[Buffer]) -> bool:
    """True if the object is there with these very bytes, False if the place is taken.

    "Exists" may be the answer to a put that arrived twice: libraries and proxies repeat requests
    by themselves, and only the last answer is heard.
    """
    if await store.put(key, parts) is Put.CREATED:
        return True
    wanted = b"".join(parts)
    try:
        return await store.get(key, 0, len(wanted) + 1) == wanted
    except ObjectMissing:
        return False
