"""What a group holds: commits since the floor, objects of every kind, who needs which point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.errors import UNREADABLE, BrokenChain, DamagedObject, ObjectMissing
from stages.keeper.history import History
from stages.keeper.reach import Inventory, Thing
from stages.keeper.retain import Columns
from stages.model import U64
from stages.recover.opened import Group
from stages.store.port import ObjectInfo, ObjectStore
from stages.vault import layout, rollup
from stages.vault.commit import read_header
from stages.vault.container import Kind, parse
from stages.vault.failover_log import load_failovers
from stages.vault.floor_log import load_holds
from stages.vault.heads import Heads
from stages.vault.leases import load_leases
from stages.vault.log import Log
from stages.vault.rollup import SPAN

MOST_OBJECTS = 50_000_000
# A folder is read anew for each page: with small pages of a long log that would be all it does.
_LISTED = 32_768


async def listed(store: ObjectStore, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
    """Objects under ``prefix``: what follows the prefix, and info."""
    after = ""
    for _ in range(MOST_OBJECTS):
        found = await store.page(prefix, after, _LISTED)
        for info in found:
            yield info.key.removeprefix(prefix), info
        if not found:
            return
        after = found[-1].key


async def read_columns(group: Group, history: History) -> Columns:
    """The headers from the log's beginning to its tail, chain and all. Raises ``Damage``."""
    stretches: list[Heads] = []
    at, link = group.log.first - 1, None
    while at < group.tail:
        until = min(group.tail, (at // SPAN + 1) * SPAN)
        found = await history.stretch(at + 1, until, link)
        if not stretches:
            _check_floor(group, found)
        link = found.link(-1)
        stretches.append(found.bare())
        at = until
    seqs = [found.seq[found.objects[:, 0].astype(np.int64)] for found in stretches]
    epochs = [found.epoch[found.objects[:, 0].astype(np.int64)] for found in stretches]
    named = np.concatenate([found.objects for found in stretches])
    return Columns(
        np.concatenate([found.seq for found in stretches]).astype(np.uint64),
        np.concatenate([found.epoch for found in stretches]).astype(np.uint64),
        np.concatenate([found.stamp for found in stretches]),
        np.concatenate([found.checkpoint for found in stretches]).astype(np.uint64),
        np.concatenate([found.consistent for found in stretches]),
        np.concatenate([found.links for found in stretches]),
        np.column_stack(
            (
                np.concatenate(seqs).astype(np.uint64),
                np.concatenate(epochs).astype(np.uint64),
                named[:, 1:],
            )
        ),
    )


def _check_floor(group: Group, found: Heads) -> None:
    floor = group.log.floor
    if floor is not None and found.link(0) != floor.link:
        raise BrokenChain(
            "is not the commit that the floor names",
            subject=layout.commit(group.scope.group, floor.seq),
        )


async def read_log(group: Group) -> dict[int, Thing]:
    """The commits that are there, those before the floor, too: listed once in a run, as a long log
    has many."""
    return await _numbered(group.log.store, layout.log_prefix(group.scope.group))


async def read_manifests(group: Group) -> U64:
    """Commits that have a checkpoint, ascending."""
    prefix = layout.checkpoints_prefix(group.scope.group)
    found = [
        int(name.partition("/")[0])
        async for name, _ in listed(group.log.store, prefix)
        if name.endswith("/manifest") and name.partition("/")[0].isdecimal()
    ]
    return np.array(sorted(seq for seq in found if seq <= group.tail), np.uint64)


async def read_inventory(group: Group, log: Mapping[int, Thing], floor: int) -> Inventory:
    """All objects that retention has to do with; of ``log`` those before ``floor``."""
    gid, store = group.scope.group, group.log.store
    data: dict[tuple[int, int], Thing] = {}
    async for name, info in listed(store, layout.data_prefix(gid)):
        numbers = _numbers(name.split("/"))
        if len(numbers) == 2 and layout.data(gid, *numbers) == info.key:
            data[numbers[0], numbers[1]] = _thing(info)
    manifests: dict[int, Thing] = {}
    parts: dict[tuple[int, int], Thing] = {}
    async for name, info in listed(store, layout.checkpoints_prefix(gid)):
        seq, _, rest = name.partition("/")
        if rest == "manifest" and seq.isdecimal():
            manifests[int(seq)] = _thing(info)
            continue
        numbers = _numbers([seq, *rest.split("-")])
        if len(numbers) == 3:
            part = numbers[1] << 16 | numbers[2]
            if layout.checkpoint_part(gid, numbers[0], part) == info.key:
                parts[numbers[0], part] = _thing(info)
    return Inventory(
        data,
        {seq: thing for seq, thing in log.items() if seq < floor},
        await _numbered(store, layout.rollups_prefix(gid)),
        manifests,
        parts,
        await _numbered(store, layout.packs_prefix(gid)),
    )


async def whole_rollups(
    group: Group, ends: Sequence[int], history: History | None = None
) -> frozenset[int]:
    """Which rollups hold all their commits as they were signed, so that they can stand in."""
    found = set()
    history = history or History(group)
    for end in ends:
        if not await history.prove(end):
            try:
                await _prove_rollup(group.log, end)
            except (*UNREADABLE, ObjectMissing):
                continue
        found.add(end)
    return frozenset(found)


async def _prove_rollup(log: Log, end: int) -> None:
    key = layout.rollup(log.scope.group, end)
    heads = rollup.decode(await log.store.get(key, 0, rollup.MAX_SIZE + 1), key)
    link: bytes | None = None
    for seq, head in enumerate(heads, end - SPAN + 1):
        container = parse(head, layout.commit(log.scope.group, seq), Kind.COMMIT)
        header = read_header(container, log.scope, seq)
        container.check_body(head[container.body_at : container.tail_at])
        if link is not None and header.previous != link:
            raise DamagedObject("its commits do not follow each other", subject=key)
        link = container.digest
    kept = log.floor.kept(end) if log.floor is not None else None
    if kept is not None and kept.link == link:
        return
    writer = await log.ring.writer(header.epoch)
    if not container.signed_by(writer):
        raise DamagedObject("its last commit is not signed by its epoch's writer", subject=key)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Points that are needed whatever their age: why, and their links.

    ``problems``: why that is not sure. ``ended``: leases that are over.
    """

    why: dict[int, str]
    links: dict[int, bytes]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    ended: tuple[ObjectInfo, ...] = ()


async def read_wanted(group: Group, others: Sequence[Group], now: int) -> Wanted:
    """Held points, points that branches begin at, that a failover shows, that are being read.

    ``now``: µs by the store's clock.
    """
    why: dict[int, str] = {}
    links: dict[int, bytes] = {}

    def need(seq: int, link: bytes, reason: str) -> None:
        why.setdefault(seq, reason)
        links.setdefault(seq, link)

    scope, charter = group.scope, group.ring.charter
    for other in others:
        parent = other.record.parent
        if parent is not None and parent.group == scope.group:
            need(parent.seq, parent.digest, f"branch {other.scope.group.hex()} begins at it")
    failovers = await load_failovers(group.log.store, scope, charter)
    state = failovers.state
    if state.point is not None and state.phase.is_over:
        need(state.point.seq, state.point.digest, "the failover shows it")
    if state.test is not None and state.test.point is not None:
        need(state.test.point.seq, state.test.point.digest, "a failover test shows it")
    holds = await load_holds(group.log.store, scope, charter)
    for hold in holds.holds:
        note = f": {hold.note}" if hold.note else ""
        need(hold.seq, hold.link, f"held by {hold.by}{note}")
    leases = await load_leases(group.log.store, scope, charter, now)
    for each in leases.running:
        need(each.lease.seq, each.lease.link, f"being read: {each.lease.by}")
    notes = (*holds.notes, *failovers.notes, *leases.notes)
    problems = (*holds.problems, *failovers.problems, *leases.problems)
    return Wanted(why, links, notes, problems, leases.ended)


async def time_of(group: Group, seq: int) -> int:
    """When a commit was stored, in µs by the store's clock; 0 if only its rollup is left."""
    info = await group.log.store.info(layout.commit(group.scope.group, seq))
    return 0 if info is None else _micro(info)


async def _numbered(store: ObjectStore, prefix: str) -> dict[int, Thing]:
    return {
        int(name): _thing(info) async for name, info in listed(store, prefix) if name.isdecimal()
    }


def _numbers(names: Sequence[str]) -> list[int]:
    return [int(name) for name in names] if all(name.isdecimal() for name in names) else []


def _thing(info: ObjectInfo) -> Thing:
    return Thing(info.size, _micro(info))


def _micro(info: ObjectInfo) -> int:
    return round(info.modified * 1e6)
