"""One run of the keeper over one group: delete, then say what goes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import trio

from stages.crypto.sign import Signer
from stages.errors import UNREADABLE, BrokenChain
from stages.keeper.assess import Assessed, assess, moves_of, repack
from stages.keeper.history import History
from stages.keeper.live import view
from stages.keeper.reach import Doomed, Moves, Thing, missing_rollups
from stages.keeper.repack import Repack
from stages.keeper.report import GroupReport
from stages.keeper.retain import Chosen, Columns, Offered, Retention, bases, choose_points
from stages.keeper.roll import make_rollups
from stages.keeper.rules import CLOCKS_APART, MOST_ROLLED, Rules
from stages.keeper.survey import (
    Wanted,
    read_columns,
    read_log,
    read_manifests,
    read_wanted,
    time_of,
)
from stages.model import U64
from stages.ports import Machine
from stages.recover.opened import Group, OpenedVault
from stages.stage import crew
from stages.vault import layout
from stages.vault.floor_log import append_floor, load_floor
from stages.vault.floors import Floor, KeptPoint

_PARALLEL = 16
_FLOOR_TRIES = 4


class GroupPass:
    """One run over one group."""

    def __init__(
        self,
        parts: tuple[Machine, Signer, Rules],
        group: Group,
        groups: Sequence[Group],
        report: GroupReport,
        now: int,
        *,
        dry_run: bool,
    ):
        self._machine, self._signer, self._rules = parts
        self._group = group
        self._groups = groups
        self._report = report
        self._now = now
        self._dry_run = dry_run
        self._last = 0  # number of the newest floor
        self._history = History(group)
        self._columns: Columns
        self._manifests: U64
        self._log: dict[int, Thing]

    async def run(self) -> None:
        """Sweep under the floor in force if it is of age, then plan the next."""
        group, report = self._group, self._report
        report.machine = await group.name()
        retention = self._rules.policy(report.machine)
        if retention is None:
            report.notes.append("no retention is set for this machine: left alone")
            return
        floor, ripe = await self._floor()
        wanted = await read_wanted(group, self._groups, self._now)
        report.wanted = dict(sorted(wanted.why.items()))
        report.notes += wanted.notes
        if wanted.problems:
            report.problems += [f"{each}; nothing is let go here" for each in wanted.problems]
            return
        ended = [Doomed(info.key, info.size, "leases") for info in wanted.ended]
        await self._delete(ended, trio.CapacityLimiter(_PARALLEL))
        self._columns = await read_columns(group, self._history)
        self._manifests = await read_manifests(group)
        self._log = await read_log(group)
        missed = await self._missed(floor, wanted)
        if missed:
            await self._put(_with_points(floor, missed))
            return
        if not ripe:
            return
        await self._sweep(floor)
        await self._next(floor, retention, wanted)

    async def _floor(self) -> tuple[Floor, bool]:
        """The floor in force, or the log's beginning; and whether its grace is over."""
        group, report = self._group, self._report
        found = await load_floor(group.log.store, group.scope, group.ring.charter)
        if found.damaged:
            raise BrokenChain("; ".join(found.passed), subject=group.scope.group.hex())
        self._last = found.last
        if found.floor is None:
            first = await group.log.signed(1)
            return Floor(1, 1, first.link, first.header.stamp), True
        if found.floor != group.log.floor:
            raise BrokenChain(
                "another keeper has put a floor this moment: give it another run",
                subject=layout.floor(group.scope.group, found.floor.number),
            )
        report.floor, report.floor_number = found.floor.seq, found.floor.number
        info = await group.log.store.info(layout.floor(group.scope.group, found.floor.number))
        age = self._now - round(info.modified * 1e6) if info is not None else 0
        report.waiting_us = max(0, round(self._rules.grace * 1e6) - age)
        return found.floor, not report.waiting_us

    async def _missed(self, floor: Floor, wanted: Wanted) -> list[KeptPoint]:
        """Points that somebody came to need while the floor that leaves them out was made."""
        found = []
        for seq, why in sorted(wanted.why.items()):
            if floor.offers(seq) or seq > self._group.tail:
                continue
            base = int(bases(np.array([seq], np.uint64), self._manifests, 1)[0])
            point = KeptPoint(seq, base, 0, self._now, wanted.links[seq])
            try:
                seen = view(self._group, _with_points(floor, [point]))
                stamp = (await seen.log.signed(seq)).header.stamp
                time = await time_of(self._group, seq) or self._now
            except UNREADABLE as error:
                self._report.problems.append(f"point #{seq}, {why}, has gone: {error}")
                continue
            point = replace(point, stamp=stamp, time=time)
            self._log = await read_log(self._group)  # what is needed has to be there still
            if await self._is_whole(_with_points(floor, [point]), seq, why):
                found.append(point)
        return found

    async def _is_whole(self, floor: Floor, seq: int, why: str) -> bool:
        try:
            await self._assess(floor)
        except UNREADABLE as error:
            self._report.problems.append(f"point #{seq}, {why}, cannot be kept: {error}")
            return False
        return True

    async def _assess(self, floor: Floor, *, needed_packs: bool = False) -> Assessed:
        given = (self._columns, self._machine, self._history, self._log)
        return await assess(self._group, floor, *given, needed_packs=needed_packs)

    async def _sweep(self, floor: Floor) -> None:
        """Delete what the floor in force does not lead to."""
        found = await self._assess(floor, needed_packs=True)
        before = self._now - round(self._rules.grace * 1e6)
        doomed = found.doomed(before)
        limit = trio.CapacityLimiter(_PARALLEL)
        for kind in dict.fromkeys(each.kind for each in doomed):
            manifests = [each for each in doomed if each.kind == kind and _is_manifest(each)]
            others = [each for each in doomed if each.kind == kind and not _is_manifest(each)]
            for batch in (manifests, others):
                await self._delete(batch, limit)

    async def _delete(self, batch: list[Doomed], limit: trio.CapacityLimiter) -> None:
        store, report = self._group.log.store, self._report

        async def one(each: Doomed) -> None:
            async with limit:
                if not self._dry_run:
                    await store.delete(each.key)
                    if each.kind == "log":
                        self._log.pop(int(each.key.rpartition("/")[2]), None)
                report.deleted[each.kind] += each.size
                report.objects += 1

        for at in range(0, len(batch), 1000):
            async with crew() as nursery:
                for each in batch[at : at + 1000]:
                    nursery.start_soon(one, each)

    async def _next(self, floor: Floor, retention: Retention, wanted: Wanted) -> None:
        """The next floor, with the packs of what is worth moving."""
        chosen, offered, details = await self._choose(floor, retention, wanted)
        following = self._following(floor, chosen, offered, details)
        report = self._report
        report.next_floor, report.gone = following.seq, chosen.gone
        report.points = len(following.points)
        found = await self._assess(following)
        moves = moves_of(found, waste=self._rules.waste, most=self._rules.most_moved)
        self._foresee(found, moves)
        await self._roll(found)
        changes = (following.seq, following.points) != (floor.seq, floor.points)
        if self._dry_run or not (changes or moves.live or moves.freed):
            report.moved = moves.live
            return
        mover = Repack(found.group, self._signer, max([0, *found.there.packs]) + 1)
        moved, packs = await repack(found, self._machine, mover, moves)
        report.moved = moved.bytes
        report.problems += moved.problems
        if changes or packs != floor.packs:
            await self._put(replace(following, packs=packs))

    async def _roll(self, found: Assessed) -> None:
        """Make the rollups that are missing; those of the last hour are left to the writer."""
        settled = self._now - round(CLOCKS_APART * 1e6)
        newest = max((seq for seq, thing in self._log.items() if thing.time <= settled), default=0)
        newest = min(newest, self._group.tail)
        ends = missing_rollups(found.there, found.needs, newest, MOST_ROLLED)
        if self._dry_run or not ends:
            self._report.rolled = len(ends)
            return
        rolled = await make_rollups(found.group, ends)
        self._report.rolled = rolled.count
        self._report.notes += rolled.notes

    def _foresee(self, found: Assessed, moves: Moves) -> None:
        """What goes once the next floor is of age; what frames are moved out of, too."""
        sizes = [(each.kind, each.size) for each in found.doomed(None)]
        sizes += [("data", found.there.data[name].size) for name in moves.data]
        sizes += [("log", found.there.log[seq].size) for seq in moves.tails]
        sizes += [("packs", found.there.packs[number].size) for number in moves.packs]
        for kind, size in sizes:
            self._report.to_go[kind] += size
            self._report.to_go_objects += 1

    async def _choose(
        self, floor: Floor, retention: Retention, wanted: Wanted
    ) -> tuple[Chosen, Offered, Mapping[int, KeptPoint]]:
        columns = self._columns
        kept = {point.seq: point for point in floor.points}
        now = Thing(0, self._now)
        log = [self._log.get(seq, now).time for seq in columns.seq.tolist()]
        old = np.array([(p.seq, p.time, p.base) for p in floor.points], np.int64).reshape(-1, 3)
        offered = Offered(
            np.concatenate((old[:, 0].astype(np.uint64), columns.seq)),
            np.concatenate((old[:, 1], np.array(log, np.int64))),
            np.concatenate((np.ones(len(old), np.bool_), columns.consistent)),
            np.concatenate(
                (old[:, 2].astype(np.uint64), bases(columns.seq, self._manifests, floor.seq))
            ),
        )
        chosen = choose_points(
            offered,
            self._manifests,
            retention,
            self._now,
            begins=floor.seq,
            newest_base=int(columns.checkpoint[-1]),
            must=frozenset(wanted.why),
        )
        return chosen, offered, kept

    def _following(
        self, floor: Floor, chosen: Chosen, offered: Offered, old: Mapping[int, KeptPoint]
    ) -> Floor:
        points = []
        for row in chosen.kept.tolist():
            seq = int(offered.seq[row])
            points.append(
                old.get(seq)
                or KeptPoint(
                    seq,
                    int(offered.base[row]),
                    int(self._columns.stamp[self._columns.row(seq)]),
                    int(offered.time[row]),
                    self._link(seq),
                )
            )
        link = self._link(chosen.floor)
        return replace(floor, seq=chosen.floor, link=link, points=tuple(points))

    def _link(self, seq: int) -> bytes:
        return bytes(self._columns.links[self._columns.row(seq)])

    async def _put(self, floor: Floor) -> None:
        """Put the next floor; afterwards look whether somebody has come to need what it lets go."""
        if self._dry_run:
            return
        group = self._group
        for _ in range(_FLOOR_TRIES):
            made = replace(floor, number=self._last + 1, stamp=self._machine.clock.wall_us())
            if not await append_floor(group.log.store, group.scope, made, self._signer):
                self._report.notes.append("another keeper was faster: its floor counts")
                return
            self._last = self._report.written = made.number
            self._report.waiting_us = round(self._rules.grace * 1e6)
            wanted = await read_wanted(group, await self._branches(), self._now)
            missed = await self._missed(made, wanted)
            if not missed:
                return
            floor = _with_points(made, missed)

    async def _branches(self) -> Sequence[Group]:
        """The groups of the vault, as they are now."""
        vault = OpenedVault(
            self._group.log.store,
            self._group.ring.charter,
            self._group.ring.box,
            uses=self._group.ring.uses,
        )
        return await vault.groups()


def _is_manifest(each: Doomed) -> bool:
    return each.key.endswith("/manifest")


def _with_points(floor: Floor, more: list[KeptPoint]) -> Floor:
    points = sorted([*floor.points, *more], key=lambda point: point.seq)
    return replace(floor, points=tuple(points))
