"""Look at the small signed objects of a group, whether a point needs them or not.

The group's record, machine records, terms and wrapped keys: also those for other recipients, which
this key cannot open. What is wrong with one is a problem of its own; reading goes round it where
it can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass

import trio

from stages.errors import UNREADABLE, ObjectMissing
from stages.recover.opened import Group
from stages.stage import crew
from stages.store.port import walk
from stages.vault import layout
from stages.vault.container import HEAD_SIZE, MAX_BODY, MAX_HEADER, Kind, parse
from stages.vault.terms import DATA, INDEX, check_place, check_signer

_PARALLEL = 16
_MOST_TERMS = 100_000


@dataclass(frozen=True, slots=True)
class Wrong:
    """An object that is not as it should be."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    key: str
    kind: Kind
    by_operator: bool = False


async def wrong_records(
    group: Group, epochs: Collection[int], machines: Collection[int]
) -> list[Wrong]:
    """What is wrong with the records of a group whose commits name these epochs and records."""
    wanted = [*_named(group, epochs, machines)]
    known = {each.key for each in wanted}
    wanted.extend([term async for term in _other_terms(group, known)])
    found: list[Wrong] = []
    limit = trio.CapacityLimiter(_PARALLEL)

    async def look(each: _Wanted) -> None:
        async with limit:
            reason = await _look(group, each)
        if reason:
            found.append(Wrong(each.key, reason))

    async with crew() as nursery:
        for each in wanted:
            nursery.start_soon(look, each)
    return sorted(found, key=lambda wrong: wrong.key)


def _named(group: Group, epochs: Collection[int], machines: Collection[int]) -> Iterator[_Wanted]:
    gid = group.scope.group
    recipients = [member.key for member in group.ring.charter.recipients]
    yield _Wanted(layout.group_record(gid), Kind.GROUP)
    for recipient in recipients:
        yield _Wanted(layout.digest_key(gid, recipient), Kind.WRAPPED_KEY, True)
    for number in sorted(machines):
        yield _Wanted(layout.machine(gid, number), Kind.MACHINE)
    for epoch in sorted(epochs):
        yield _Wanted(layout.term(gid, epoch), Kind.TERM)
        for recipient in recipients:
            for use in (DATA, INDEX):
                key = layout.wrapped_key(gid, epoch, recipient, use)
                yield _Wanted(key, Kind.WRAPPED_KEY, True)


async def _other_terms(group: Group, known: Collection[str]) -> AsyncIterator[_Wanted]:
    """Terms in which nothing was committed: of runs that failed, or of strangers."""
    prefix = f"{layout.group(group.scope.group)}epochs/"
    async for info in walk(group.log.store, prefix, most=_MOST_TERMS):
        if info.key.endswith("/term") and info.key not in known:
            yield _Wanted(info.key, Kind.TERM)


async def _look(group: Group, wanted: _Wanted) -> str:
    """Why an object is not as it should be; empty if it is."""
    try:
        most = HEAD_SIZE + MAX_HEADER + MAX_BODY
        data = await group.log.store.get(wanted.key, 0, most)
        found = parse(data, wanted.key, wanted.kind)
        check_signer(found, group.ring.charter, operator=wanted.by_operator)
        check_place(found, group.scope)
        found.check_body(data[found.body_at : found.tail_at])
    except ObjectMissing:
        return "is missing"
    except UNREADABLE as error:
        return error.message
    return ""
