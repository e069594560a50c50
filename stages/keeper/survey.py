"""What a group holds: commits since the floor, objects of every kind, who needs which point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from stages.errors import UNREADABLE, BrokenChain, DamagedObject, ObjectMissing
from stages.keeper.reach import Inventory, Thing
from stages.keeper.retain import Columns
from stages.model import U64, Ints
from stages.recover.opened import Group
from stages.store.port import ObjectInfo, ObjectStore
from stages.vault import layout, rollup
from stages.vault.commit import read_header
from stages.vault.container import Kind, parse
from stages.vault.failover_log import load_failovers
from stages.vault.floor_log import load_holds
from stages.vault.log import Commit, Log
from stages.vault.rollup import SPAN

MOST_OBJECTS = 50_000_000
# A folder is read anew for each page: with small pages of a long log that would be all it does.
_LISTED = 16_384


async def listed(
    store: ObjectStore, prefix: str, after: str = "", until: str = ""
) -> AsyncIterator[tuple[str, ObjectInfo]]:
    """Objects under ``prefix`` between two keys: what follows the prefix, and info."""
    for _ in range(MOST_OBJECTS):
        found = await store.page(prefix, after, _LISTED)
        for info in found:
            if until and info.key >= until:
                return
            yield info.key.removeprefix(prefix), info
        if not found:
            return
        after = found[-1].key


async def read_columns(group: Group) -> Columns:
    """The headers from the log's beginning to its tail, chain and all. Raises ``Damage``."""
    rows: list[Ints] = []  # arrays: a collector of garbage goes through tuples again and again
    objects: list[U64] = []
    links: list[bytes] = []
    at, link = group.log.first - 1, None
    while at < group.tail:
        until = min(group.tail, (at // SPAN + 1) * SPAN)
        commits = await group.log.stretch(at + 1, until, link)
        heads = [commit.header for commit in commits]
        if not links:
            _check_floor(group, commits[0])
        each = [(h.seq, h.epoch, h.stamp, h.checkpoint, h.consistent) for h in heads]
        rows.append(np.array(each, np.int64))
        named = [(h.seq, h.epoch, ref.number, ref.size) for h in heads for ref in h.objects]
        objects.append(np.array(named, np.uint64).reshape(-1, 4))
        # Each head names the digest of the commit before it: that has been checked.
        link = commits[-1].link
        links.append(b"".join([*(h.previous for h in heads[1:]), link]))
        at = until
    table = np.concatenate(rows) if rows else np.zeros((0, 5), np.int64)
    return Columns(
        table[:, 0].astype(np.uint64),
        table[:, 1].astype(np.uint64),
        table[:, 2].copy(),
        table[:, 3].astype(np.uint64),
        table[:, 4].astype(np.bool_),
        np.frombuffer(b"".join(links), np.uint8).reshape(-1, 32),
        np.concatenate(objects) if objects else np.zeros((0, 4), np.uint64),
    )


def _check_floor(group: Group, first: Commit) -> None:
    floor = group.log.floor
    if floor is not None and first.link != floor.link:
        raise BrokenChain(
            "is not the commit that the floor names",
            subject=layout.commit(group.scope.group, floor.seq),
        )


async def read_times(group: Group) -> dict[int, int]:
    """When the commits of the log were stored, in µs by the store's clock."""
    prefix = layout.log_prefix(group.scope.group)
    found: dict[int, int] = {}
    after = f"{prefix}{group.log.first - 1:015d}"
    async for name, info in listed(group.log.store, prefix, after):
        if name.isdecimal() and int(name) <= group.tail:
            found[int(name)] = _micro(info)
    return found


async def read_manifests(group: Group) -> U64:
    """Commits that have a checkpoint, ascending."""
    prefix = layout.checkpoints_prefix(group.scope.group)
    found = [
        int(name.partition("/")[0])
        async for name, _ in listed(group.log.store, prefix)
        if name.endswith("/manifest") and name.partition("/")[0].isdecimal()
    ]
    return np.array(sorted(seq for seq in found if seq <= group.tail), np.uint64)


async def read_inventory(group: Group, floor: int) -> Inventory:
    """All objects that retention has to do with; of the log those before ``floor``."""
    gid, store = group.scope.group, group.log.store
    data: dict[tuple[int, int], Thing] = {}
    async for name, info in listed(store, layout.data_prefix(gid)):
        numbers = _numbers(name.split("/"))
        if len(numbers) == 2 and layout.data(gid, *numbers) == info.key:
            data[numbers[0], numbers[1]] = _thing(info)
    until = layout.commit(gid, floor)
    log = await _numbered(store, layout.log_prefix(gid), until)
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
        log,
        await _numbered(store, layout.rollups_prefix(gid)),
        manifests,
        parts,
        await _numbered(store, layout.packs_prefix(gid)),
    )


async def whole_rollups(group: Group, ends: Sequence[int]) -> frozenset[int]:
    """Which rollups hold all their commits as they were signed, so that they can stand in."""
    found = set()
    for end in ends:
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

    ``problems``: why that is not sure.
    """

    why: dict[int, str]
    links: dict[int, bytes]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


async def read_wanted(group: Group, others: Sequence[Group]) -> Wanted:
    """Held points, points that branches begin at, points that a failover shows."""
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
    notes = (*holds.notes, *failovers.notes)
    return Wanted(why, links, notes, (*holds.problems, *failovers.problems))


async def time_of(group: Group, seq: int) -> int:
    """When a commit was stored, in µs by the store's clock; 0 if only its rollup is left."""
    info = await group.log.store.info(layout.commit(group.scope.group, seq))
    return 0 if info is None else _micro(info)


async def _numbered(store: ObjectStore, prefix: str, until: str = "") -> dict[int, Thing]:
    return {
        int(name): _thing(info)
        async for name, info in listed(store, prefix, "", until)
        if name.isdecimal()
    }


def _numbers(names: Sequence[str]) -> list[int]:
    return [int(name) for name in names] if all(name.isdecimal() for name in names) else []


def _thing(info: ObjectInfo) -> Thing:
    return Thing(info.size, _micro(info))


def _micro(info: ObjectInfo) -> int:
    return round(info.modified * 1e6)
