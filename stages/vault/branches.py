"""What a failover puts beside its record: the fence in the parent's log, the branch's group (R14).

The fence is a term like any other, held by the operator, who writes no commits in it: a running
writer of the parent finds that its win does not count (R12). One that starts reads the records.
The record is stored before the fence, and a writer reads the records after it has its term: so
either the fence is above its term, or it sees the record. After a cancel the writer takes the next
term, and its own tail is still the newest commit (R13): nothing has to be undone.
"""

from __future__ import annotations

from stages.crypto.sign import Signer
from stages.errors import UNREADABLE, StoreError
from stages.ports import Entropy
from stages.store.own import put_own
from stages.store.port import ObjectStore, Put
from stages.vault import layout
from stages.vault.charter import Charter
from stages.vault.container import HEAD_SIZE, MAX_HEADER, Kind, parse
from stages.vault.records import GroupRecord, Parent, group_object, read_group
from stages.vault.sealing import Scope
from stages.vault.terms import (
    DIGEST,
    MAX_EPOCH,
    Term,
    check_place,
    check_signer,
    next_epoch,
    term_object,
    wrapped_object,
)

_TRIES = 64


async def fence(
    store: ObjectStore, scope: Scope, operator: Signer, now: int, *, from_epoch: int = 0
) -> int:
    """Make the newest term the operator's; returns its epoch. Does nothing if it is already, and
    above ``from_epoch``: one that is known to be taken, to begin the search at.

    Raises ``StoreError`` if another writer takes every term first: then nothing is fenced.
    """
    epoch = from_epoch
    for _ in range(_TRIES):
        free = await next_epoch(store, scope.group, epoch)
        if free - 1 > from_epoch and await _is_held_by(store, scope, free - 1, operator.public):
            return free - 1
        if free > MAX_EPOCH:
            break
        parts = term_object(scope, Term(free, operator.public, now), operator)
        if await store.put(layout.term(scope.group, free), parts) is Put.CREATED:
            return free
        epoch = free - 1
    raise StoreError(
        "no term could be claimed in the parent's log: its old writer may go on",
        operation="fence",
        subject=f"{store.url} group {scope.group.hex()}",
        hint="stop the old source's daemon and give the same command again",
    )


async def is_fenced(store: ObjectStore, scope: Scope, operator: bytes, from_epoch: int = 0) -> bool:
    """Is the newest term the operator's, and above ``from_epoch``, one that is taken?"""
    free = await next_epoch(store, scope.group, from_epoch)
    return free - 1 > from_epoch and await _is_held_by(store, scope, free - 1, operator)


async def _is_held_by(store: ObjectStore, scope: Scope, epoch: int, public: bytes) -> bool:
    key = layout.term(scope.group, epoch)
    data = await store.get(key, 0, HEAD_SIZE + MAX_HEADER)
    try:
        found = parse(data, key, Kind.TERM)
        return found.header.raw("writer", 32) == public and found.signed_by(public)
    except UNREADABLE:
        return False  # whatever it is, the next term stands above it


async def found_branch(
    store: ObjectStore,
    scope: Scope,
    charter: Charter,
    operator: Signer,
    entropy: Entropy,
    parent: Parent,
    digest_key: bytes,
    created: int,
) -> None:
    """Store what a branch begins with, the group's record last. Again: nothing changes.

    ``digest_key`` is the parent's: what is found on the way back can then be compared with the
    digests that the parent's vault has. Raises ``StoreError`` if the place is taken.
    """
    if await branch_exists(store, scope, charter, parent):
        return
    record = GroupRecord(created, parent)
    if not await put_group(store, scope, charter, operator, entropy, record, digest_key):
        raise _taken(scope)


async def put_group(
    store: ObjectStore,
    scope: Scope,
    charter: Charter,
    signer: Signer,
    entropy: Entropy,
    record: GroupRecord,
    digest_key: bytes,
) -> bool:
    """The objects that a group begins with: its digest key for every recipient, then its record.
    False if another group's record is there."""
    for recipient in charter.recipients:
        parts = wrapped_object(scope, 0, DIGEST, digest_key, recipient.key, signer, entropy)
        await store.put(layout.digest_key(scope.group, recipient.key), parts)
    return await put_own(
        store, layout.group_record(scope.group), group_object(scope, record, signer)
    )


async def branch_exists(store: ObjectStore, scope: Scope, charter: Charter, parent: Parent) -> bool:
    """Is the branch's record there? Raises ``StoreError`` if it is that of another group."""
    key = layout.group_record(scope.group)
    if await store.info(key) is None:
        return False
    found = parse(await store.get(key, 0, HEAD_SIZE + MAX_HEADER), key, Kind.GROUP)
    check_signer(found, charter, operator=True)
    check_place(found, scope)
    if read_group(found).parent != parent:
        raise _taken(scope)
    return True


def _taken(scope: Scope) -> StoreError:
    return StoreError(
        "the place of the branch is taken by another group",
        operation="open branch",
        subject=layout.group_record(scope.group),
        hint="cancel this failover and open another: it gets a branch of its own",
    )
