"""Holding a point while it is read for long: leases, renewed until the reader ends.

A lease is short, so that a reader who is killed is soon forgotten, and renewed at a third of its
time. The store's clock alone says when it ends (how a reader's or a keeper's clock is set does not
matter): a point that is read looks free only if that clock jumps ahead by more than 20 minutes, or
renewing fails for as long. Even then nothing goes at once: a keeper lets the point go, and within
the grace the next lease has it taken back.

Whoever may not hold reads all the same: a note says that nothing holds the point.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from stages.errors import BackstayError
from stages.ports import Machine
from stages.recover.opened import Group
from stages.stage import crew
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.deletion import load_deletion
from stages.vault.floor_log import load_floor
from stages.vault.keyfile import PrivateKey
from stages.vault.leases import Lease, lease_object

SECONDS = 1800  # of a lease
EVERY = 600.0  # seconds until the next one
AGAIN = 60.0  # seconds until one that failed is tried again
_PUT = 10.0  # seconds that a reader waits for its lease
_GOODBYE = 5.0  # and for giving it back


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads which point. ``by``: in clear, for people. ``after``: seconds of reading before
    it is worth a lease. Without ``by`` nothing is held, as others see to it."""

    ports: Machine
    key: PrivateKey
    group: Group
    seq: int
    link: bytes
    by: str
    after: float = 0.0


@asynccontextmanager
async def leased(
    store: ObjectStore, reader: Reader, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """Hold the point until the end of the block. ``say`` hears why nothing holds it, if so."""
    if not reader.by:
        yield
        return
    holder = _Holder(store, reader, say)
    async with crew() as nursery:
        if not reader.after:
            await holder.renew()
        nursery.start_soon(holder.keep)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            await holder.give_back()


class _Holder:
    """The lease of one reader."""

    def __init__(self, store: ObjectStore, reader: Reader, say: Callable[[str], None]):
        self._store = store
        self._reader = reader
        self._say = say
        self._held: list[str] = []  # the newest, and the one before
        self._until = -math.inf  # monotonic seconds: when the newest lease ends
        self._next = EVERY  # seconds until the next one
        self._told = False

    async def keep(self) -> None:
        """Renew until cancelled."""
        clock = self._reader.ports.clock
        await clock.sleep(self._reader.after or self._next)
        while True:
            await self.renew()
            await clock.sleep(self._next)

    async def renew(self) -> None:
        """Put another lease. Trouble is told and tried again."""
        reader = self._reader
        self._next = EVERY
        if not reader.group.ring.charter.keeps(reader.key.signer.public):
            self._tell("this key is neither the operator's nor a keeper's")
            return
        scope = reader.group.scope
        key = layout.lease(scope.group, reader.seq, reader.ports.entropy.token(16))
        stamp = reader.ports.clock.wall_us()
        lease = Lease(reader.seq, reader.link, stamp, SECONDS, reader.by)
        begun = reader.ports.clock.monotonic()
        try:
            with trio.fail_after(_PUT):
                await self._store.put(key, lease_object(scope, lease, reader.key.signer))
                self._held.append(key)
                gone = await self._let_go()
        except trio.TooSlowError:
            self._next = AGAIN
            self._tell(f"the vault took more than {_PUT:.0f} s to take a lease")
        except BackstayError as error:
            self._next = AGAIN if error.recoverable else EVERY
            self._tell(str(error))
        else:
            if gone:
                self._until = -math.inf
                self._tell(
                    "retention has let it go this moment; the next run of the keeper takes it "
                    "back if it comes within the grace"
                )
            else:
                self._until, self._told = begun + SECONDS, False
        # The one before stays until the next: who lists them meanwhile sees one of the two.
        with trio.move_on_after(_GOODBYE):
            while len(self._held) > 2:
                await self._remove(self._held.pop(0))

    async def _let_go(self) -> bool:
        """Does the newest floor leave the point out? A keeper reads the leases again after its
        floor: either it sees the new one, or its floor is seen here. So it is with a deletion,
        which is an error."""
        group = self._reader.group
        deletion = await load_deletion(self._store, group.scope, group.ring.charter)
        if deletion is not None:
            raise deletion.error(group.scope.group, "read")
        newest = await load_floor(self._store, group.scope, group.ring.charter)
        return newest.floor is not None and not newest.floor.offers(self._reader.seq)

    async def give_back(self) -> None:
        """Who may not delete leaves it to end by itself."""
        with trio.move_on_after(_GOODBYE, shield=True):
            for key in self._held:
                await self._remove(key)

    async def _remove(self, key: str) -> None:
        with suppress(BackstayError):
            await self._store.delete(key)

    def _tell(self, why: str) -> None:
        if not self._told and self._reader.ports.clock.monotonic() >= self._until:
            self._told = True
            self._say(
                f"nothing holds point #{self._reader.seq} while it is read ({why}): should "
                "retention let it go, reading ends a grace later; 'backstay hold' keeps it"
            )
