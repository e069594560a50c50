"""Failover records made by hand, put where they belong or where they do not."""

from __future__ import annotations

from dataclasses import replace

from stages.crypto.sign import Signer
from stages.store.memory import MemoryStore
from stages.store.port import ObjectStore
from stages.vault import layout
from stages.vault.container import Kind, parse
from stages.vault.failover_state import FailoverState, following
from stages.vault.failovers import NO_RECORD, Event, FailoverPoint, FailoverRecord, failover_object
from tests.vault.support import SECOND, START, People

PEOPLE = People.of("failover")
SCOPE = PEOPLE.scope()
OPERATOR = PEOPLE.operator.signer
STRANGER = Signer(b"s" * 32)
POINT = FailoverPoint(7, b"d" * 32, START)
OTHER_POINT = FailoverPoint(5, b"e" * 32, START - SECOND)
BRANCH, OTHER_BRANCH = b"B" * 16, b"C" * 16


def record(event: Event, number: int = 1, previous: bytes = NO_RECORD) -> FailoverRecord:
    """A record as an operation would make it."""
    made = FailoverRecord(
        number, previous, event, START + number * SECOND, "replica7", "ann", POINT, BRANCH, True, ""
    )
    if event is Event.CHANGED:
        return replace(made, point=OTHER_POINT, branch=OTHER_BRANCH)
    return made


def sealed(made: FailoverRecord, signer: Signer = OPERATOR) -> bytes:
    """The object of a record."""
    return b"".join(failover_object(SCOPE, made, signer))


def link(data: bytes) -> bytes:
    """What the next record names."""
    return parse(data, "a record", Kind.FAILOVER).digest


def chain(*events: Event) -> list[bytes]:
    """The objects of a history, legal or not."""
    objects: list[bytes] = []
    for number, event in enumerate(events, 1):
        before = link(objects[-1]) if objects else NO_RECORD
        objects.append(sealed(record(event, number, before)))
    return objects


async def put(store: ObjectStore, number: int, data: bytes) -> None:
    """Store an object under a number."""
    await store.put(layout.failover(SCOPE.group, number), [data])


async def stored(*objects: bytes) -> MemoryStore:
    """A vault with these, from number 1."""
    store = MemoryStore()
    for number, data in enumerate(objects, 1):
        await put(store, number, data)
    return store


def after(*events: Event) -> FailoverState:
    """The state after a legal history."""
    state = FailoverState()
    for number, event in enumerate(events, 1):
        state = following(state, record(event, number))
    return state
