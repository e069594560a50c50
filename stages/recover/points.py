"""Choosing a point: by time, by number, or the newest complete consistent one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import trio

from stages.errors import UNREADABLE, Damage, Expired, MissingData, NotFound, UnknownVersion
from stages.recover.again import TRIES, floors, moved_on
from stages.recover.arrived import Arrived
from stages.recover.opened import Group
from stages.stage import crew
from stages.vault import layout
from stages.vault.commit import Header
from stages.vault.commits import Commit
from stages.vault.floors import MAX_POINTS
from stages.vault.rollup import SPAN

_PARALLEL = 32
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
    """The chosen point, and what a person should know about the choice."""

    point: Point
    notes: tuple[str, ...]
    doubtful: bool = False  # data was missing: of this point, or of newer ones


def as_point(header: Header, digest: bytes) -> Point:
    """What a header says, without its workings."""
    stored = sum(ref.size for ref in header.objects)
    return Point(header.seq, header.stamp, header.grade, header.consistent, stored, digest)


async def newest(group: Group, count: int, *, all_points: bool = False) -> list[Point]:
    """The newest ``count`` points, newest first; consistent ones unless ``all_points``.

    Damaged commits are passed over and noted in the log's ``ignored``.
    """
    found: list[Point] = []
    high, first = group.tail, group.log.first
    while high >= first and len(found) < count:
        low = max(first, (high - 1) // SPAN * SPAN + 1)
        for commit in reversed(await _readable(group, low, high)):
            if (all_points or commit.header.consistent) and len(found) < count:
                found.append(as_point(commit.header, commit.link))
        high = low - 1
    kept = reversed(await _kept(group, count - len(found)))
    found.extend(as_point(commit.header, commit.link) for commit in kept)
    return found


async def _kept(group: Group, count: int) -> list[Commit]:
    """The newest points that retention has kept before the floor, oldest first."""
    floor = group.log.floor
    seqs = [point.seq for point in floor.points] if floor is not None else []
    return await _these(group, seqs[-count:] if count > 0 else [])


async def choose(
    group: Group, machine: str, at: int | str | None, *, salvage: bool = False
) -> Choice:
    """A point: ``at`` a commit's number, a stamp in µs ("@..."), or None for the newest.

    By number any point is given; else the newest consistent one (at or before the stamp) whose
    data has all arrived; ``salvage`` does not mind missing data. Raises ``NotFound`` with the
    neighbours, ``Expired``, ``Damage`` with what to try.
    """
    for _ in range(TRIES):
        since = floors(group)
        known = len(group.log.ignored)
        try:
            choice = await _choose(group, machine, at, salvage=salvage)
        except (*UNREADABLE, Expired):
            if not await moved_on(group, at if isinstance(at, int) else None, since):
                raise
        else:
            if not choice.doubtful or not await moved_on(group, choice.point.seq, since):
                return choice
        del group.log.ignored[known:]  # retention has gone on this moment
    return await _choose(group, machine, at, salvage=salvage)


async def _choose(group: Group, machine: str, at: int | str | None, *, salvage: bool) -> Choice:
    if isinstance(at, int):
        return await _by_number(group, machine, at)
    try:
        last = group.tail
        if at is not None:
            last = await group.log.at_or_before(int(at.removeprefix("@")), group.tail)
        seq = await group.log.consistent_before(last)
    except (Damage, UnknownVersion) as error:
        error.hint = error.hint or (
            "'backstay points --all' lists what is whole; give one as --at '#NUMBER'"
        )
        raise
    if not seq:
        raise await _no_point(group, machine, at, last)
    choice = await _complete(group, seq, salvage=salvage)
    if at is None:
        return choice
    following = await _consistent_after(group, last)
    beside = f"the next consistent point is {_named(following)}" if following else "it is the last"
    note = f"{_named(choice.point)} is the last consistent point at or before that time; {beside}"
    return replace(choice, notes=(*choice.notes, note))


async def _by_number(group: Group, machine: str, seq: int) -> Choice:
    if not 1 <= seq <= group.tail:
        raise NotFound(
            f"there is no point #{seq}",
            operation="choose point",
            subject=machine,
            hint=f"points are #{group.log.first} to #{group.tail}; 'backstay points' lists them",
        )
    group.log.check_offered(seq)
    commit = await group.log.signed(seq)
    notes: tuple[str, ...] = ()
    if not commit.header.consistent:
        why = "it lies inside a scan"
        if commit.header.grade == "fuzzy":
            why = "its disk changed while it was read"
        notes = (f"point #{seq} is not consistent: {why}",)
    return Choice(as_point(commit.header, commit.link), notes)


async def _complete(group: Group, seq: int, *, salvage: bool) -> Choice:
    """``seq`` or the newest consistent point before it whose data has all arrived.

    In a geo-replicated store a commit can arrive before its data, or before the commit that it
    follows; only the newest commits of the log can be affected, so only those are looked at. A
    point needs the data of all before it, and the commits since the checkpoint it is read from.
    """
    low = max(group.log.first, group.tail - COMPLETE_WINDOW + 1)
    chosen: Commit | None = None
    try:
        chosen = await group.log.signed(seq)
    except MissingData:
        if salvage or seq < low:
            raise
    if salvage and chosen is not None:
        return Choice(as_point(chosen.header, chosen.link), ())
    commits = await _readable(group, low, seq) if low <= seq else []
    arrived = await Arrived.of(group, range(low, seq + 1), commits)
    notes = []
    if seq in arrived.holes:
        what = layout.commit(group.scope.group, seq)
        notes.append(f"point #{seq} passed over: {what} has not all arrived")
    for commit in reversed(commits):
        if not commit.header.consistent or commit.header.seq in arrived.holes:
            continue
        what = await arrived.lacking(commit)
        if not what:
            doubtful = bool(arrived.late or arrived.holes)
            return Choice(as_point(commit.header, commit.link), tuple(notes), doubtful)
        notes.append(f"point #{commit.header.seq} passed over: {what} has not all arrived")
    doubtful = bool(arrived.late or arrived.holes)
    if chosen is None:
        raise MissingData(
            "a commit is missing, and no consistent point before it is complete",
            operation="choose point",
            subject=layout.commit(group.scope.group, seq),
        )
    # What is missing is older than the window: that is damage, no delay. Restoring will say so.
    return Choice(as_point(chosen.header, chosen.link), (), doubtful)


async def _no_point(group: Group, machine: str, at: str | None, last: int) -> NotFound:
    """The error that names what there is instead."""
    hint = "nothing was shipped yet"
    if group.tail:
        hint = "'backstay points --all' lists the others; give one as --at '#NUMBER'"
    following = await _consistent_after(group, last) if at is not None else None
    if following:
        hint = f"the first consistent point is {_named(following)}"
    parent = group.record.parent
    if at is not None and parent is not None:
        hint += (
            f"; what was before it began is in group {parent.group.hex()}: give that for the name"
        )
    what = "there is no consistent point" + (" at or before that time" if at is not None else "")
    return NotFound(what, operation="choose point", subject=machine, hint=hint)


async def _consistent_after(group: Group, seq: int) -> Point | None:
    """The first consistent point after ``seq``, if one lies within a few spans."""
    floor = group.log.floor
    if floor is not None and seq < floor.seq:
        later = [point.seq for point in floor.points if point.seq > seq]
        if later:
            commit = await group.log.signed(later[0])
            return as_point(commit.header, commit.link)
        seq = floor.seq - 1
    for low, high in _spans(seq + 1, min(group.tail, seq + 4 * SPAN)):
        for commit in await _readable(group, low, high):
            if commit.header.consistent:
                return as_point(commit.header, commit.link)
    return None


async def _readable(group: Group, first: int, last: int) -> list[Commit]:
    """The commits of a range that verify; what is damaged is noted in the log's ``ignored``."""
    found: list[Commit] = []
    for low, high in _spans(first, last):
        try:
            found += await group.log.stretch(low, high, None)
        except UNREADABLE:
            found += await _one_by_one(group, low, high)
    return found


async def _one_by_one(group: Group, first: int, last: int) -> list[Commit]:
    return await _these(group, range(first, last + 1))


async def _these(group: Group, seqs: Sequence[int]) -> list[Commit]:
    found: dict[int, Commit] = {}
    failed: dict[int, str] = {}
    limit = trio.CapacityLimiter(_PARALLEL)

    async def fetch(seq: int) -> None:
        async with limit:
            try:
                found[seq] = await group.log.signed(seq)
            except UNREADABLE as error:
                failed[seq] = str(error)

    async with crew() as nursery:
        for seq in seqs:
            nursery.start_soon(fetch, seq)
    for seq in sorted(failed):
        group.log.note(failed[seq])
    return [found[seq] for seq in sorted(found)]


def _spans(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of commits cut where rollups end."""
    while first <= last:
        until = min(last, (first - 1) // SPAN * SPAN + SPAN)
        yield first, until
        first = until + 1


def _named(point: Point) -> str:
    return f"#{point.seq} of {point.time:%Y-%m-%d %H:%M:%S.%f} UTC"


@dataclass(frozen=True, slots=True)
class Lost:
    """What a log holds after a point: commits, µs between the stamps, bytes stored by the first
    ``counted`` of those commits."""

    commits: int
    span: int
    stored: int
    counted: int


async def lost_after(group: Group, point: Point) -> Lost:
    """What choosing ``point`` leaves behind. At most a few spans of commits are added up.

    What is damaged is not added up: it does not keep a point from being chosen.
    """
    if point.seq >= group.tail:
        return Lost(0, 0, 0, 0)
    first = max(point.seq + 1, group.log.first)
    last = min(group.tail, first + 4 * SPAN)
    commits = await _readable(group, first, last)
    stored = sum(
        commit.container.tail_size + sum(ref.size for ref in commit.header.objects)
        for commit in commits
    )
    try:
        until = (await group.log.signed(group.tail)).header.stamp
    except UNREADABLE:
        until = commits[-1].header.stamp if commits else point.stamp
    span = max(0, until - point.stamp)
    return Lost(group.tail - point.seq, span, stored, len(commits))


async def newest_graded(group: Group, machine: str, grades: frozenset[str]) -> Choice:
    """The newest complete consistent point of one of ``grades``. Raises ``NotFound``."""
    notes: list[str] = []
    floor = group.log.floor
    spans: list[tuple[int, int] | None] = [*_spans(group.log.first, group.tail)]
    if floor is not None and floor.points:
        spans.insert(0, None)
    low = max(group.log.first, group.tail - COMPLETE_WINDOW + 1)
    window = await _readable(group, low, group.tail) if low <= group.tail else []
    arrived = await Arrived.of(group, range(low, group.tail + 1), window)
    for span in reversed(spans):
        commits = await (_readable(group, *span) if span else _kept(group, MAX_POINTS))
        for commit in reversed(commits):
            header = commit.header
            if not header.consistent or header.grade not in grades or header.seq in arrived.holes:
                continue
            what = await arrived.lacking(commit)
            if not what:
                return Choice(as_point(header, commit.link), tuple(notes))
            notes.append(f"point #{header.seq} passed over: {what} has not all arrived")
    raise NotFound(
        "there is no application-consistent point",
        operation="choose point",
        subject=machine,
        hint="'backstay points' lists what there is; 'latest' takes the newest consistent one",
    )
