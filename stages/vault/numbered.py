"""Objects that are numbered from 1 without a hole: the last of them, found without a list."""

from __future__ import annotations

from collections.abc import Callable

from stages.store.port import ObjectStore


async def last_there(store: ObjectStore, key: Callable[[int], str], after: int = 0) -> int:
    """The highest number above ``after`` whose object is there, or ``after``.

    Looked for in doubling steps, then by bisecting. Raises store errors.
    """

    async def there(number: int) -> bool:
        return await store.info(key(number)) is not None

    low, step = after, 1
    while await there(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await there(middle) else (low, middle)
    return low
