"""What nothing needs any more, and what is worth moving: pure.

Everything here is a proof from what is needed: an object goes only if nothing that is offered
leads to it. What leads to it is told by ``Needs``; what there is by ``Inventory``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from stages.vault import layout
from stages.vault.rollup import SPAN

Name = tuple[int, int]
SMALL = 4 << 20  # bytes of frames: packs below it are joined
MANY = 16  # once there are that many
LEAST = 0.05  # bytes that a move frees, of those it moves: below, it is not worth its puts


@dataclass(frozen=True, slots=True)
class Thing:
    """An object: bytes, and when it was stored by the store's clock in µs."""

    size: int
    time: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a group has: data objects by epoch and number, commits before the floor by number,
    rollups by their last commit, manifests by commit, parts by commit and part, packs."""

    data: Mapping[Name, Thing] = field(default_factory=dict)
    log: Mapping[int, Thing] = field(default_factory=dict)
    rollups: Mapping[int, Thing] = field(default_factory=dict)
    manifests: Mapping[int, Thing] = field(default_factory=dict)
    parts: Mapping[Name, Thing] = field(default_factory=dict)
    packs: Mapping[int, Thing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the offered points lead to.

    ``floor``: the log from there on. ``islands``: ranges of commits before it. ``live_*``: bytes
    of frames that are needed, by what holds them. ``named``: data objects of commits after the
    floor. ``settled``: data objects of the newest commit's epoch that a commit up to the floor
    has named. ``tail``, ``tail_epoch``: of the newest commit. ``pages``: parts that a needed
    checkpoint refers to. ``packs``: those that are in force, ``packed``: bytes of frames in each.
    ``rolled``: rollups that have proved to be whole.
    """

    floor: int
    tail: int
    tail_epoch: int
    newest_base: int
    islands: tuple[Name, ...] = ()
    live_data: Mapping[Name, int] = field(default_factory=dict)
    live_tails: Mapping[int, int] = field(default_factory=dict)
    live_packs: Mapping[int, int] = field(default_factory=dict)
    named: Set[Name] = frozenset()
    settled: Set[int] = frozenset()
    manifests: Set[int] = frozenset()
    pages: Set[Name] = frozenset()
    packs: Set[int] = frozenset()
    packed: Mapping[int, int] = field(default_factory=dict)
    rolled: Set[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that nothing needs: its key and size, and what it is."""

    key: str
    size: int
    kind: str


def unreachable(
    group: bytes, there: Inventory, needs: Needs, before: int | None
) -> Iterator[Doomed]:
    """What may go, in the order in which it goes: a manifest before its pages.

    ``before``: data, parts and packs stored later (µs) stay, as they may belong to something that
    is being made; None for no such limit.
    """

    def old(thing: Thing) -> bool:
        return before is None or thing.time <= before

    for (epoch, number), thing in there.data.items():
        if _data_goes(epoch, number, needs) and old(thing):
            yield Doomed(layout.data(group, epoch, number), thing.size, "data")
    for seq, thing in there.log.items():
        if seq < needs.floor and not needs.live_tails.get(seq) and not _log_needed(seq, needs):
            yield Doomed(layout.commit(group, seq), thing.size, "log")
    for end, thing in there.rollups.items():
        if end < needs.floor and not _rollup_needed(end, needs):
            yield Doomed(layout.rollup(group, end), thing.size, "rollups")
    for seq, thing in there.manifests.items():
        if seq < needs.floor and seq not in needs.manifests:
            yield Doomed(layout.manifest(group, seq), thing.size, "checkpoints")
    for (seq, part), thing in there.parts.items():
        if seq < needs.newest_base and (seq, part) not in needs.pages and old(thing):
            yield Doomed(layout.checkpoint_part(group, seq, part), thing.size, "checkpoints")
    for number, thing in there.packs.items():
        if number not in needs.packs and old(thing):
            yield Doomed(layout.pack(group, number), thing.size, "packs")


def _data_goes(epoch: int, number: int, needs: Needs) -> bool:
    """Nothing needs it, and nothing ever will: no later commit can name it (R16)."""
    if (epoch, number) in needs.live_data or (epoch, number) in needs.named:
        return False
    if epoch < needs.tail_epoch:
        return True
    return epoch == needs.tail_epoch and number in needs.settled


def _log_needed(seq: int, needs: Needs) -> bool:
    """Must a commit before the floor be there, or does its rollup stand in for it?"""
    end = -(-seq // SPAN) * SPAN
    if end in needs.rolled and end < needs.floor:
        return False
    return _meets(needs.islands, seq, seq)


def _rollup_needed(end: int, needs: Needs) -> bool:
    return _meets(needs.islands, end - SPAN + 1, end)


def _meets(islands: tuple[Name, ...], first: int, last: int) -> bool:
    """Does a range have a commit in common with one of ``islands``, ascending and apart?"""
    at = bisect_right(islands, (last, 1 << 63))
    return at > 0 and islands[at - 1][1] >= first


def missing_rollups(there: Inventory, needs: Needs, newest: int, most: int) -> list[int]:
    """Ends of rollups that are not there though all their commits are, the newest first, up to
    ``most`` of them: of the log from the floor on, and of what points before it are read from.

    ``newest``: commits after it may have theirs on the way.
    """
    ends = set(range(-(-needs.floor // SPAN) * SPAN, newest + 1, SPAN))
    for first, last in needs.islands:
        ends.update(range(-(-first // SPAN) * SPAN, last + SPAN, SPAN))
    found: list[int] = []
    for end in sorted(ends - there.rollups.keys(), reverse=True):
        before = range(max(1, end - SPAN + 1), min(end + 1, needs.floor))
        if end <= newest and all(seq in there.log for seq in before):
            found.append(end)
    return found[:most]


@dataclass(frozen=True, slots=True)
class Moves:
    """What to move frames out of: data objects, commits' tails, packs; bytes that are needed in
    them and bytes that go with them."""

    data: frozenset[Name] = frozenset()
    tails: frozenset[int] = frozenset()
    packs: frozenset[int] = frozenset()
    live: int = 0
    freed: int = 0


def worth_moving(there: Inventory, needs: Needs, *, waste: float, most: int) -> Moves:
    """What to move so that of what stays no more than ``waste``, as a share of what is needed, is
    needed by nobody: first where most is freed for a byte moved, and no more than it takes. Nothing
    is moved that frees less than ``LEAST`` of its bytes, and never more than ``most`` bytes.

    What came after the floor stays where it is: the points of its time need all of it.
    """
    found: list[tuple[float, int, int, str, Name | int]] = []
    small = [number for number in needs.live_packs if needs.packed.get(number, 0) < SMALL]
    joined = set(small) if len(small) >= MANY else set()
    spare = needed = 0
    for kind, name, live, size in _movable(there, needs):
        needed += live
        if kind == "packs" and name in joined:
            found.append((-1.0, live, size, kind, name))  # whatever it frees
        elif size - live >= LEAST * live:
            found.append((live / size, live, size, kind, name))
            spare += size - live
    spare -= int(waste * needed)  # that much has to go
    picked: dict[str, list[Name | int]] = {"data": [], "tails": [], "packs": []}
    moved = freed = 0
    for full, live, size, kind, name in sorted(found, key=lambda each: each[:3]):
        if moved + live > most or (full >= 0 and spare <= 0):
            break
        picked[kind].append(name)
        moved += live
        freed += size - live
        spare -= size - live if full >= 0 else 0
    return Moves(
        frozenset(picked["data"]),  # type: ignore[arg-type]
        frozenset(picked["tails"]),  # type: ignore[arg-type]
        frozenset(picked["packs"]),  # type: ignore[arg-type]
        moved,
        freed,
    )


def _movable(there: Inventory, needs: Needs) -> Iterator[tuple[str, Name | int, int, int]]:
    """What frames can be moved out of: its kind and name, bytes needed in it, its size."""
    for key, live in needs.live_data.items():
        if key not in needs.named and key in there.data:
            yield "data", key, live, there.data[key].size
    for seq, live in needs.live_tails.items():
        if seq < needs.floor and seq in there.log and not _log_needed(seq, needs):
            yield "tails", seq, live, there.log[seq].size
    for number, live in needs.live_packs.items():
        yield "packs", number, live, max(live, needs.packed.get(number, 0))
