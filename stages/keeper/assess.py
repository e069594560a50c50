"""Looks at a group as it is under a floor: what is needed, what there is, what may go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.errors import UNREADABLE, BrokenChain, DamagedObject
from stages.keeper.history import History
from stages.keeper.live import Holders, live_frames, places_of, view
from stages.keeper.reach import Doomed, Inventory, Moves, Needs, Thing, unreachable, worth_moving
from stages.keeper.repack import Moved, Repack
from stages.keeper.retain import Columns
from stages.keeper.survey import read_inventory, whole_rollups
from stages.model import U64
from stages.ports import Machine
from stages.recover.checkpoints import parts_of
from stages.recover.checkpoints import read as read_manifest
from stages.recover.directory import NOTHING, Pages
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.vault import layout
from stages.vault.checkpoint import FRAMES
from stages.vault.floors import Floor, PackRef
from stages.vault.location import INLINE, PACKED
from stages.vault.rollup import SPAN


@dataclass(frozen=True, slots=True)
class Assessed:
    """What was found. ``frames``: those that the points up to the floor need, ascending."""

    group: Group
    floor: Floor
    there: Inventory
    needs: Needs
    frames: U64

    def doomed(self, before: int | None) -> list[Doomed]:
        """What nothing needs."""
        return list(unreachable(self.group.scope.group, self.there, self.needs, before))


async def assess(
    group: Group,
    floor: Floor,
    columns: Columns,
    machine: Machine,
    history: History,
    log: Mapping[int, Thing],
    *,
    needed_packs: bool = False,
) -> Assessed:
    """Read all that the points of ``floor`` lead to. Raises ``Damage`` if any of them could not
    be read under it: then nothing may go. ``needed_packs``: packs of which nothing is needed count
    as needed, too, as a floor that is in force names them. ``log``: the commits that are there.
    """
    seen = view(group, floor)
    await _check_never_deleted(seen)
    history = history.view(seen)
    seqs = [*(point.seq for point in floor.points), floor.seq]
    frames = (await live_frames(seen, machine.files, seqs, history)).numbers()
    holders = Holders()
    point = await PointMap.build(seen, machine.files, floor.seq)
    try:
        await places_of(point, frames, holders.add)
    finally:
        point.close()
    there = await read_inventory(seen, log, floor.seq)
    after = columns.objects[:, 0] >= np.uint64(floor.seq)
    named = {(e, n): size for _, e, n, size in columns.objects[after].tolist()}
    _check_there(seen, there, holders, named)
    tail = columns.row(seen.tail)
    tail_epoch = int(columns.epoch[tail])
    manifests, pages = await _checkpoints(seen, floor, there, int(columns.checkpoint[tail]))
    islands = tuple(_islands(floor))
    packs = {ref.number for ref in floor.packs} if needed_packs else set(holders.packs)
    needs = Needs(
        floor=floor.seq,
        tail=seen.tail,
        tail_epoch=tail_epoch,
        newest_base=int(columns.checkpoint[tail]),
        islands=islands,
        live_data=holders.data,
        live_tails=holders.tails,
        live_packs=holders.packs,
        named=named.keys(),
        settled=await _settled(seen, floor, tail_epoch),
        manifests=manifests,
        pages=pages,
        packs=packs,
        packed={ref.number: ref.size for ref in floor.packs},
        rolled=await whole_rollups(seen, _ends(islands, there, floor.seq), history),
    )
    return Assessed(seen, floor, there, needs, frames)


async def repack(
    assessed: Assessed, machine: Machine, mover: Repack, moves: Moves
) -> tuple[Moved, tuple[PackRef, ...]]:
    """Move frames; the packs that are in force then: what is still needed of the old, the new."""
    point = await PointMap.build(assessed.group, machine.files, assessed.floor.seq)
    try:
        moved = await mover.run(point, assessed.frames, moves)
    finally:
        point.close()
    kept = [ref for ref in assessed.floor.packs if ref.number in assessed.needs.live_packs]
    return moved, tuple(sorted([*kept, *moved.packs], key=lambda ref: ref.number))


def moves_of(assessed: Assessed, *, waste: float, most: int) -> Moves:
    """What to move."""
    return worth_moving(assessed.there, assessed.needs, waste=waste, most=most)


async def _check_never_deleted(group: Group) -> None:
    """The newest commit and the newest consistent point are never let go of (R16)."""
    consistent = await group.log.consistent_before(group.tail)
    header = (await group.log.signed(group.tail)).header
    newest = group.tail if header.consistent else header.last_consistent
    if group.tail < group.log.first or (newest and consistent != newest):
        raise BrokenChain(
            "the floor leaves out the newest consistent point: nothing is let go",
            operation="retention",
            subject=layout.commit(group.scope.group, newest),
        )


def _check_there(
    group: Group, there: Inventory, holders: Holders, named: dict[tuple[int, int], int]
) -> None:
    """What is needed has to be there before anything else goes: of the newest points too."""
    gid, first = group.scope.group, group.log.first
    missing = [layout.data(gid, *name) for name in holders.data if name not in there.data]
    for name, size in named.items():
        thing = there.data.get(name)
        if thing is None or thing.size != size:
            missing.append(layout.data(gid, *name))
    missing += [
        layout.commit(gid, seq) for seq in holders.tails if seq < first and seq not in there.log
    ]
    missing += [layout.pack(gid, number) for number in holders.packs if number not in there.packs]
    if missing:
        raise DamagedObject(
            "is missing, and a point that is offered needs it: nothing is let go",
            operation="retention",
            subject=missing[0],
            hint="'backstay verify' says which points are whole",
        )


def _islands(floor: Floor) -> list[tuple[int, int]]:
    """The commits before the floor that its points are read from, joined where they touch."""
    found: list[tuple[int, int]] = []
    for point in floor.points:
        first = min(point.base + 1, point.seq)
        last = point.seq
        while found and first <= found[-1][1] + 1:
            before = found.pop()
            first, last = min(before[0], first), max(before[1], last)
        found.append((first, last))
    return found


def _ends(islands: tuple[tuple[int, int], ...], there: Inventory, floor: int) -> list[int]:
    """Rollups that could stand in for commits of islands."""
    wanted: set[int] = set()
    for first, last in islands:
        wanted.update(range(-(-first // SPAN) * SPAN, -(-last // SPAN) * SPAN + 1, SPAN))
    return sorted(end for end in wanted if end < floor and end in there.rollups)


async def _checkpoints(
    group: Group, floor: Floor, there: Inventory, newest_base: int
) -> tuple[set[int], set[tuple[int, int]]]:
    """The checkpoints that are needed, and the parts that those refer to."""
    wanted = {point.base for point in floor.points if point.base}
    wanted |= {seq for seq in there.manifests if seq >= floor.seq}
    wanted |= {newest_base} - {0}
    pages: set[tuple[int, int]] = set()
    bases = {point.base for point in floor.points} | {floor.seq}
    for seq in sorted(wanted):
        try:
            manifest = await read_manifest(group, seq)
        except UNREADABLE:
            if seq in bases or seq >= newest_base:
                raise
            continue  # nobody can read it: those who would have take the floor's
        if manifest is None:
            raise DamagedObject(
                "a checkpoint that points are read from is missing: nothing is let go",
                operation="retention",
                subject=layout.manifest(group.scope.group, seq),
            )
        pages |= parts_of(manifest).keys()
    for seq, part in sorted(pages):
        if (seq, part) not in there.parts:
            raise DamagedObject(
                "a checkpoint's pages are missing: nothing is let go",
                operation="retention",
                subject=layout.checkpoint_part(group.scope.group, seq, part),
            )
    return wanted, pages


async def _settled(group: Group, floor: Floor, epoch: int) -> set[int]:
    """Data objects of the newest epoch that commits up to the floor have named: those of the
    places that the floor's checkpoint has. Others may still be on their way into a commit."""
    manifest = await read_manifest(group, floor.seq) if floor.seq > 1 else None
    tables = {pages.epoch: pages for pages in manifest.epochs} if manifest is not None else {}
    found: set[int] = set()
    if epoch in tables:
        pages = Pages(group)
        table = tables[epoch].table if tables[epoch].frames else NOTHING
        for page in range(len(table)):
            rows = await pages.get(FRAMES, epoch, page, table)
            held = rows[(rows[:, 1] != 0) & (rows[:, 0] & np.uint64(INLINE | PACKED) == 0), 0]
            found.update(np.unique(held).tolist())
    return found
