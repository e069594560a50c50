"""Groups, terms and their keys (R12, R15, R18): who writes, and who may read what was written.

An epoch is claimed by the create-only put of its term; only the winner then stores the wrapped
keys, each in an object of its own so that recipients can be added later without touching data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from stages.crypto.box import BoxSecret, seal_to
from stages.crypto.sign import Signer
from stages.errors import (
    UNREADABLE,
    DamagedObject,
    MissingData,
    NotAdmitted,
    ObjectMissing,
    StoreError,
    WrongKey,
)
from stages.ports import Buffer, Entropy
from stages.stage import crew
from stages.store.own import put_own
from stages.store.port import ObjectStore, Put
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, Container, Kind, build, parse
from stages.vault.numbered import last_there
from stages.vault.sealing import EpochKeys, Scope

DATA, INDEX, DIGEST = "data", "index", "digest"
MAX_EPOCH = (1 << 24) - 1  # locations have 24 bits for it
_PARALLEL = 16
_MAX_SIZE = HEAD_SIZE + (64 << 10)


@dataclass(frozen=True, slots=True)
class Term:
    """A writer's term: ``writer`` is its public key, ``created`` its wall time in µs."""

    epoch: int
    writer: bytes
    created: int


def term_object(scope: Scope, term: Term, signer: Signer) -> list[Buffer]:
    """The object that claims an epoch."""
    fields = scope.fields() | {"epoch": term.epoch, "created": term.created}
    return build(Kind.TERM, fields, signer)


def wrapped_object(
    scope: Scope,
    epoch: int,
    use: str,
    secret: bytes,
    recipient: bytes,
    signer: Signer,
    entropy: Entropy,
) -> list[Buffer]:
    """One key wrapped for one recipient; epoch 0 for the group's digest key."""
    fields = scope.fields() | {"epoch": epoch, "use": use, "recipient": recipient}
    return build(Kind.WRAPPED_KEY, fields, signer, seal_to(recipient, secret, entropy))


async def claim(
    store: ObjectStore,
    scope: Scope,
    charter: Charter,
    signer: Signer,
    entropy: Entropy,
    epoch: int,
    now: int,
) -> EpochKeys | None:
    """Begin a term: None if another writer has that epoch. Keys are in the vault on return.

    Raises ``StoreError`` if the place of a wrapped key is taken: then the epoch cannot be used.
    """
    term = Term(epoch, signer.public, now)
    if await store.put(layout.term(scope.group, epoch), term_object(scope, term, signer)) is (
        Put.EXISTS
    ):
        return None
    keys = EpochKeys(epoch, entropy.token(32), entropy.token(32))
    wrapped = [
        (recipient.key, use, secret)
        for recipient in charter.recipients
        for use, secret in ((DATA, keys.data or b""), (INDEX, keys.index))
    ]
    # For a keeper of the two keys the one that opens indexes only (R16).
    wrapped += [(keeper.key, INDEX, keys.index) for keeper in charter.keepers]
    limit = trio.CapacityLimiter(_PARALLEL)

    async def put(key: str, parts: list[Buffer]) -> None:
        async with limit:
            if not await put_own(store, key, parts):
                raise _taken(key)

    async with crew() as nursery:  # far away each put costs a round trip
        for member, use, secret in wrapped:
            parts = wrapped_object(scope, epoch, use, secret, member, signer, entropy)
            nursery.start_soon(put, layout.wrapped_key(scope.group, epoch, member, use), parts)
    return keys


def _taken(key: str) -> StoreError:
    """What is there cannot open this epoch: nobody could read what would be written in it."""
    return StoreError(
        "a key object of this new epoch exists already",
        operation="begin epoch",
        subject=key,
        hint="the store does not keep create-only puts, or someone else writes there; "
        "the next run takes another epoch",
    )


async def next_epoch(store: ObjectStore, group: bytes, after: int) -> int:
    """The first epoch above ``after`` that nobody has claimed.

    Starts that never made a commit leave epochs behind, in any number but without a hole.
    """
    return await last_there(store, partial(layout.term, group), after) + 1


def check_signer(found: Container, charter: Charter, *, operator: bool = False) -> bytes:
    """The admitted key that signed ``found``.

    Raises ``DamagedObject`` if nobody signed it as it is, ``NotAdmitted`` if a stranger did.
    """
    writer = found.header.raw("writer", 32)
    if not found.signed_by(writer):
        raise DamagedObject("the signature does not verify", subject=found.key)
    known = charter.admits(writer) or (operator and writer == charter.operator)
    if not known:
        raise NotAdmitted(
            f"written by {writer.hex()[:16]}, who is not admitted",
            subject=found.key,
            hint="it is ignored; if the writer is yours: backstay vault admit",
        )
    return writer


def check_place(found: Container, scope: Scope) -> None:
    """Raise ``DamagedObject`` if the object belongs to another vault or group."""
    place = (found.header.raw("vault", 16), found.header.raw("group", 16))
    if place != (scope.vault, scope.group):
        raise DamagedObject("belongs to another vault or group", subject=found.key)


@dataclass
class KeyRing:
    """Opens epoch keys with a private key, each once. Owned by one reader."""

    store: ObjectStore
    scope: Scope
    charter: Charter
    box: BoxSecret
    uses: Sequence[str] = (DATA, INDEX)
    _known: dict[int, EpochKeys] = field(default_factory=dict)
    _data: dict[int, bytes] = field(default_factory=dict)
    _writers: dict[int, bytes] = field(default_factory=dict)

    async def keys(self, epoch: int) -> EpochKeys:
        """The keys of ``epoch``; ``data`` is None where ``data_key`` would raise ``Damage``.

        Raises ``WrongKey``, ``Damage`` or ``NotAdmitted`` if there is no index key.
        """
        if epoch not in self._known:
            data: bytes | None = None

            async def frames() -> None:
                nonlocal data
                with suppress(*UNREADABLE):  # without frames there are still indexes
                    data = await self.data_key(epoch)

            async with crew() as nursery:  # far away each get costs a round trip
                if DATA in self.uses:
                    nursery.start_soon(frames)
                index = await self._open(epoch, INDEX)
            self._known[epoch] = EpochKeys(epoch, data, index)
        return self._known[epoch]

    async def data_key(self, epoch: int) -> bytes:
        """The key of the frames of ``epoch``. Raises as ``keys`` does."""
        if epoch not in self._data:
            self._data[epoch] = await self._open(epoch, DATA)
        return self._data[epoch]

    async def load(self, epochs: Collection[int]) -> None:
        """Fetch the keys of several epochs side by side; raises what ``keys`` does."""
        limit = trio.CapacityLimiter(_PARALLEL)

        async def one(epoch: int) -> None:
            async with limit:
                await self.keys(epoch)

        async with crew() as nursery:
            for epoch in epochs:
                nursery.start_soon(one, epoch)

    async def writer(self, epoch: int) -> bytes:
        """Who holds the term of ``epoch``; its commits must be signed by that key.

        Raises ``Damage``, ``NotAdmitted``, ``UnknownVersion``.
        """
        if epoch not in self._writers:
            key = layout.term(self.scope.group, epoch)
            try:
                data = await self.store.get(key, 0, _MAX_SIZE)
            except ObjectMissing:
                raise MissingData("the term of an epoch is missing", subject=key) from None
            found = parse(data, key, Kind.TERM)
            writer = check_signer(found, self.charter)
            check_place(found, self.scope)
            if found.header.number("epoch") != epoch:
                raise DamagedObject("is the term of another epoch", subject=key)
            self._writers[epoch] = writer
        return self._writers[epoch]

    async def digest_key(self) -> bytes:
        """The group's digest key."""
        key = layout.digest_key(self.scope.group, self.box.public)
        return await self._unwrap(key, 0, DIGEST)

    async def _open(self, epoch: int, use: str) -> bytes:
        key = layout.wrapped_key(self.scope.group, epoch, self.box.public, use)
        return await self._unwrap(key, epoch, use)

    async def _unwrap(self, key: str, epoch: int, use: str) -> bytes:
        readers = [member.key for member in self.charter.recipients]
        if use == INDEX:
            readers += [keeper.key for keeper in self.charter.keepers]
        if self.box.public not in readers:
            raise WrongKey(
                "this key is not a recipient of the vault",
                operation="open vault",
                subject=self.store.url,
                hint="use the private key of one of the recipients shown by 'backstay vault check'",
            )
        try:
            data = await self.store.get(key, 0, _MAX_SIZE)
        except ObjectMissing:
            raise MissingData("a wrapped key is missing", subject=key) from None
        found = parse(data, key, Kind.WRAPPED_KEY)
        check_signer(found, self.charter, operator=True)
        check_place(found, self.scope)
        right = (epoch, use, self.box.public)
        header = found.header
        if (header.number("epoch"), header.text("use"), header.raw("recipient", 32)) != right:
            raise DamagedObject("is another key than its name says", subject=key)
        body = found.check_body(data[found.body_at : found.tail_at])
        secret = self.box.open(body)
        if secret is None or len(secret) != 32:
            raise DamagedObject("does not open with this private key", subject=key)
        return secret
