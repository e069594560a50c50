"""Choosing a point: by time, by number, or the newest complete consistent one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from stages.errors import NotFound
from stages.recover.opened import Group
from stages.stage import crew
from stages.vault import layout
from stages.vault.commit import Header
from stages.vault.rollup import SPAN

_PARALLEL = 16
COMPLETE_WINDOW = 64  # newest commits whose data objects are looked for before one is chosen


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point as people see it."""

    seq: int
    stamp: int
    grade: str
    consistent: bool
    stored: int
    digest: bytes

    @property
    def time(self) -> datetime:
        """Its stamp in UTC."""
        return datetime.fromtimestamp(self.stamp / 1e6, UTC)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen point and what was passed over, newest first."""

    point: Point
    notes: tuple[str, ...]


def as_point(header: Header, digest: bytes) -> Point:
    """What a header says, without its workings."""
    stored = sum(ref.size for ref in header.objects)
    return Point(header.seq, header.stamp, header.grade, header.consistent, stored, digest)


async def newest(group: Group, count: int, *, all_points: bool = False) -> list[Point]:
    """The newest ``count`` points, newest first; consistent ones unless ``all_points``."""
    found: list[Point] = []
    high = group.tail
    while high and len(found) < count:
        low = max(1, (high - 1) // SPAN * SPAN + 1)
        commits = await group.log.stretch(low, high, None)
        for commit in reversed(commits):
            if (all_points or commit.header.consistent) and len(found) < count:
                found.append(as_point(commit.header, commit.link))
        high = low - 1
    return found


async def choose(group: Group, machine: str, at: int | str | None) -> Choice:
    """A point: ``at`` a commit number ("#12" or 12), a stamp in µs ("@..."), or None for newest.

    Raises ``NotFound`` with the neighbours.
    """
    if isinstance(at, int):
        return await _by_number(group, machine, at)
    if at is not None:
        stamp = int(at.removeprefix("@"))
        seq = await group.log.at_or_before(stamp, group.tail)
        return await _complete(group, machine, await group.log.consistent_before(seq), at)
    return await _complete(group, machine, await group.log.consistent_before(group.tail), at)


async def _by_number(group: Group, machine: str, seq: int) -> Choice:
    if not 1 <= seq <= group.tail:
        raise NotFound(
            f"there is no point #{seq}",
            operation="choose point",
            subject=machine,
            hint=f"points are #1 to #{group.tail}; 'backstay points' lists them",
        )
    commit = await group.log.signed(seq)
    notes: tuple[str, ...] = ()
    if not commit.header.consistent:
        why = (
            "its disk changed while it was read"
            if commit.header.grade == "fuzzy"
            else ("it lies inside a scan")
        )
        notes = (f"point #{seq} is not consistent: {why}",)
    return Choice(as_point(commit.header, commit.link), notes)


async def _complete(group: Group, machine: str, seq: int, at: str | None) -> Choice:
    """``seq`` or the newest consistent point before it whose data has all arrived.

    In a geo-replicated store a commit can arrive before its data; only the newest commits can be
    affected, so only those are looked at. A point needs the data of all commits before it.
    """
    if not seq:
        raise NotFound(
            "there is no consistent point" + (" at or before that time" if at else ""),
            operation="choose point",
            subject=machine,
            hint="'backstay points --all' lists the others; give one as --at '#NUMBER'"
            if group.tail
            else "nothing was shipped yet",
        )
    low = max(1, seq - COMPLETE_WINDOW + 1)
    commits = []
    while low <= seq:
        until = min(seq, (low - 1) // SPAN * SPAN + SPAN)
        commits += await group.log.stretch(low, until, None)
        low = until + 1
    incomplete = await _incomplete(group, [commit.header for commit in commits])
    notes: list[str] = []
    for commit in reversed(commits):
        header = commit.header
        if not header.consistent:
            continue
        if not any(bad <= header.seq for bad in incomplete):
            return Choice(as_point(header, commit.link), tuple(notes))
        notes.append(f"point #{header.seq} passed over: its data has not all arrived")
    # Older than the window: the hole is damage, not a delay, and restoring will say so.
    return Choice(as_point(commits[-1].header, commits[-1].link), tuple(notes))


async def _incomplete(group: Group, headers: list[Header]) -> set[int]:
    """Commits that name a data object which is missing or of another size."""
    bad: set[int] = set()
    limit = trio.CapacityLimiter(_PARALLEL)

    async def look(header: Header, number: int, size: int) -> None:
        key = layout.data(group.scope.group, header.epoch, number)
        async with limit:
            info = await group.log.store.info(key)
        if info is None or info.size != size:
            bad.add(header.seq)

    async with crew() as nursery:
        for header in headers:
            for ref in header.objects:
                nursery.start_soon(look, header, ref.number, ref.size)
    return bad
