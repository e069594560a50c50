"""A writer's session on one group's log: taking it over, advancing it, being fenced (R11-R13)."""

from __future__ import annotations

from dataclasses import dataclass

from stages.crypto.digest import digest
from stages.crypto.sign import Signer
from stages.errors import (
    UNREADABLE,
    BackstayError,
    BrokenChain,
    DamagedObject,
    Fenced,
    NotAdmitted,
    ObjectMissing,
    OutcomeUnknown,
    StoreUnreachable,
)
from stages.ports import Buffer, Machine
from stages.ship.ledger import Ledger
from stages.ship.wal import Intent
from stages.store.port import ObjectStore, Put
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.commit import Header, read_header
from stages.vault.container import HEAD_SIZE, MAX_HEADER, Kind, parse
from stages.vault.deletion import load_deletion
from stages.vault.failover_log import failed_over
from stages.vault.floor_log import load_floor
from stages.vault.sealing import EpochKeys, Scope
from stages.vault.terms import MAX_EPOCH, check_signer, claim, next_epoch

_PUT_TRIES = 3
_CLAIM_TRIES = 8


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes where: everything a session needs that does not change."""

    store: ObjectStore
    scope: Scope
    charter: Charter
    signer: Signer
    machine: Machine

    def check_admitted(self) -> None:
        """Raise ``NotAdmitted`` before anything is put that readers would ignore."""
        if not self.charter.admits(self.signer.public):
            raise NotAdmitted(
                "this daemon's signing key is not admitted",
                operation="open vault",
                subject=self.store.url,
                hint=f"backstay vault admit {self.store.url} --key KEY "
                f"--writer {self.signer.public.hex()}",
            )


class LogSession:
    """From ``open`` on this process is the only one whose commits count, until it is fenced."""

    def __init__(self, writer: Writer, ledger: Ledger):
        self.writer = writer
        self.ledger = ledger
        self.keys: EpochKeys
        self._won = False  # a commit in this epoch
        self.shipped = 0  # bytes of commits and of the data that they name

    async def open(self) -> None:
        """Settle what an earlier life left open, check the tail, begin a new term.

        Raises ``Fenced``, ``BrokenChain``, ``DamagedObject`` or store errors.
        """
        await self._check_not_failed_over("open log")
        await self._check_floor(max([self.ledger.tail.seq, *self.ledger.pending]))
        await self._settle_open_intents()
        if not await self._is_tail():
            # The put of an earlier life has arrived this moment: there is no other after it.
            await self._settle_open_intents()
            await self._is_tail()
        epoch = self.ledger.tail.epoch
        for _ in range(_CLAIM_TRIES):
            epoch = await next_epoch(self.writer.store, self.writer.scope.group, epoch)
            if epoch > MAX_EPOCH:
                break
            keys = await claim(
                self.writer.store,
                self.writer.scope,
                self.writer.charter,
                self.writer.signer,
                self.writer.machine.entropy,
                epoch,
                self.writer.machine.clock.wall_us(),
            )
            if keys is not None:
                # Once more: a failover puts its record before it fences, so that one which was
                # opened meanwhile has its fence above this term, or its record is seen here.
                await self._check_not_failed_over("open log")
                self.keys = keys
                self._won = False
                return
        raise Fenced("no epoch could be claimed", operation="open log", subject=self._group())

    async def advance(self, intent: Intent, parts: list[Buffer]) -> Header:
        """Put one commit after its data objects are stored; settled on return.

        A recoverable error leaves the intent open: the next session finds out what became of it.
        Raises ``OutcomeUnknown`` and other store errors, and ``Fenced`` or ``NotAdmitted`` if its
        place in the log is another's.
        """
        key = layout.commit(self.writer.scope.group, intent.seq)
        await self.writer.machine.offload.run(lambda: self.ledger.intend(intent))
        for attempt in range(_PUT_TRIES):
            try:
                if await self.writer.store.put(key, parts) is Put.CREATED:
                    break
            except OutcomeUnknown:
                pass
            try:
                found = await self.writer.store.get(key)
            except ObjectMissing:
                if attempt + 1 == _PUT_TRIES:
                    raise OutcomeUnknown(
                        "the commit was put and is not there", operation="commit", subject=key
                    ) from None
                continue
            self._check_own(key, intent, found)
            break
        await self._check_not_succeeded()
        if not self._won:  # a place in the log that retention has emptied can be taken (R12)
            await self._check_floor(intent.seq)
            self._won = True
        header = self.ledger.settle(intent)
        self.shipped += sum(memoryview(part).nbytes for part in parts) + sum(
            ref.size for ref in header.objects
        )
        return header

    def _check_own(self, key: str, intent: Intent, found: bytes) -> None:
        """Raise unless the object in the commit's place is this very intent, or fences it."""
        if digest([found]) == intent.object_digest:
            return
        earlier = self.ledger.intent_of(intent.seq, digest([found]))
        if earlier is not None:
            raise StoreUnreachable(
                "a commit of an earlier run arrived late, after this one began",
                operation="commit",
                subject=key,
                hint="run again: it is taken into account then",
            )
        raise self._foreign(key, found)

    def _foreign(self, key: str, found: bytes) -> BackstayError:
        """What to say about an object in the log that is none of ours."""
        try:
            container = parse(found, key, Kind.COMMIT)
            header = read_header(container, self.writer.scope, _seq_of(key))
            writer = check_signer(container, self.writer.charter)
        except (DamagedObject, NotAdmitted) as error:
            return NotAdmitted(
                f"its place in the log is taken: {error.message}",
                operation="commit",
                subject=key,
                hint="someone with access to the store put it there; remove it with an operator's "
                "credentials after a look at it",
            )
        return Fenced(
            f"epoch {header.epoch} of writer {writer.hex()[:16]} has written this commit",
            operation="commit",
            subject=key,
            hint="another daemon protects this machine with a copy of this state, or a failover "
            "took place: stop one of them; this one ships nothing more",
        )

    async def _check_not_succeeded(self) -> None:
        """A win counts only if nobody has begun a later term (R12)."""
        after = layout.term(self.writer.scope.group, self.keys.epoch + 1)
        if await self.writer.store.info(after) is not None:
            data = await self.writer.store.get(after, 0, HEAD_SIZE + MAX_HEADER)
            try:
                check_signer(parse(data, after, Kind.TERM), self.writer.charter, operator=True)
            except UNREADABLE as error:
                raise NotAdmitted(
                    f"the place of the next term is taken: {error.message}",
                    operation="commit",
                    subject=after,
                    hint="someone with access to the store put it there: find out who; the next "
                    "run begins a term after it",
                ) from None
            await self._check_not_failed_over("commit")
            raise Fenced(
                f"epoch {self.keys.epoch + 1} has begun",
                operation="commit",
                subject=self._group(),
                hint="another daemon has taken this log over, or a failover was opened and "
                "cancelled meanwhile; this one ships nothing more",
            )

    async def _check_not_failed_over(self, operation: str) -> None:
        """Raise ``Fenced`` that names who, when, where and the way on (R14). A deleted group is one
        that nobody goes on with: its record is put before the fence, too."""
        writer = self.writer
        deletion = await load_deletion(writer.store, writer.scope, writer.charter)
        if deletion is not None:
            raise deletion.fenced(writer.scope.group, operation)
        notice = await failed_over(writer.store, writer.scope.group, writer.charter)
        if notice is not None:
            raise notice.error(operation, self._group())

    async def _check_floor(self, newest: int) -> None:
        """Raise ``Fenced`` if retention has gone past all that this writer knows of the log."""
        writer = self.writer
        found = await load_floor(writer.store, writer.scope, writer.charter)
        if found.floor is not None and found.floor.seq > newest:
            raise Fenced(
                f"the log begins at commit {found.floor.seq} by now, this state ends at "
                f"{self.ledger.tail.seq}",
                operation="open log",
                subject=self._group(),
                hint="this state is older than what the vault has kept, another daemon has gone on "
                "meanwhile; move the machine's state folder away to begin a new base",
            )

    async def _settle_open_intents(self) -> None:
        """Apply intents of an earlier life that did reach the vault.

        The newest that did proves those before it, because each names its predecessor.
        """
        for seq in sorted(self.ledger.pending, reverse=True):
            key = layout.commit(self.writer.scope.group, seq)
            try:
                found = await self.writer.store.get(key)
            except ObjectMissing:
                continue
            intent = self.ledger.intent_of(seq, digest([found]))
            if intent is None:
                raise self._foreign(key, found)
            for each in self._lineage(intent):
                self.ledger.settle(each)
            break
        newest = max(self.ledger.pending, default=0)
        if newest > self.ledger.tail.seq + 1:  # it was only planned once the one before was there
            raise self._rolled_back(newest - 1)
        # What did not arrive stays on the books: it may still come, late (R11).
        await self.writer.machine.offload.run(self.ledger.doubt_pending)
        await self.writer.machine.offload.run(self.ledger.checkpoint_state)

    def _lineage(self, intent: Intent) -> list[Intent]:
        """``intent`` and its predecessors above the tail, oldest first."""
        found = [intent]
        while found[-1].seq > self.ledger.tail.seq + 1:
            head = parse(found[-1].head, "intent", Kind.COMMIT)
            previous = head.header.raw("previous", 32)
            before = [
                other
                for other in self.ledger.pending.get(found[-1].seq - 1, ())
                if other.link == previous
            ]
            if not before:
                raise BrokenChain(
                    "a commit in the vault follows one that this state does not know",
                    operation="open log",
                    subject=self._group(),
                )
            found.append(before[0])
        return found[::-1]

    async def _is_tail(self) -> bool:
        """The vault's newest commit must be our recorded tail (R13); False if it is an intent."""
        tail = self.ledger.tail
        group = self.writer.scope.group
        if tail.seq:
            key = layout.commit(group, tail.seq)
            try:
                found = await self.writer.store.get(key, 0, HEAD_SIZE + MAX_HEADER)
            except ObjectMissing:
                raise self._rolled_back(tail.seq) from None
            if parse(found, key, Kind.COMMIT).digest != tail.link:
                raise self._foreign(key, await self.writer.store.get(key))
        following = layout.commit(group, tail.seq + 1)
        if await self.writer.store.info(following) is None:
            return True
        found = await self.writer.store.get(following)
        if self.ledger.intent_of(tail.seq + 1, digest([found])) is None:
            raise self._foreign(following, found)
        return False

    def _rolled_back(self, seq: int) -> BrokenChain:
        return BrokenChain(
            "a commit that this daemon made is not in the vault any more",
            operation="open log",
            subject=layout.commit(self.writer.scope.group, seq),
            hint="was the vault restored from an older copy? Move the machine's state folder away "
            "to begin a new base beside the old points",
        )

    def _group(self) -> str:
        return f"{self.writer.store.url} group {self.writer.scope.group.hex()}"


def _seq_of(key: str) -> int:
    return int(key.rpartition("/")[2])
