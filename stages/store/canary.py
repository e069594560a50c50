"""What a credential may do that a writer of a vault should not: overwrite and delete.

Tried on an object that is there for nothing else, with the store's own operations. It is made once
and found again by the next look, so that nothing piles up where deleting is not permitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from stages.errors import BackstayError, StoreDenied, StoreUnreachable
from stages.ports import Buffer
from stages.store.port import ObjectStore

KEY = "canary"
CONTENT = b"made by 'backstay vault check' to see whether it can be overwritten and deleted\n"


@runtime_checkable
class Overwriting(Protocol):
    """A store in which an object can be replaced, if the credential allows it. Only the canary is
    ever replaced: nothing else in this program needs it."""

    async def overwrite(self, key: str, data: Buffer) -> None:
        """Replace or make ``key``. Errors as ``put``."""


@dataclass(frozen=True, slots=True)
class Powers:
    """True: it was done; False: it was refused. ``create`` false: nothing else was tried."""

    create: bool
    overwrite: bool = False
    delete: bool = False


async def powers(store: ObjectStore) -> Powers | None:
    """What the store's credential may do to the canary; None where it cannot be told.

    Raises ``StoreUnreachable`` and ``NoSpace``: then nothing is known.
    """
    if not isinstance(store, Overwriting):
        return None
    try:
        await store.put(KEY, [CONTENT])  # or it is there since an earlier look
    except StoreDenied:
        return Powers(create=False)
    try:
        await store.overwrite(KEY, CONTENT)
        overwrite = True
    except BackstayError as error:
        overwrite = _refused(error)
    try:
        delete = await store.delete(KEY)
    except BackstayError as error:
        delete = _refused(error)
    return Powers(True, overwrite, delete)


def _refused(error: BackstayError) -> bool:
    """False: refused. Raises what says nothing."""
    if isinstance(error, StoreUnreachable) or error.recoverable:
        raise error
    return False
