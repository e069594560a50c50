"""The cache's reading side as a stage: durable journal in, segments out.

A segment is sealed when it is large enough; when it is old enough and nothing sealed before it is
still on its way, so that a delivery that lags folds neighbours together instead of queueing small
ones; and at every gap record, mark and change of disks, none of which is ever folded across.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import trio

from stages.cache.fold.open_segment import OpenSegment
from stages.cache.journal.reader import JournalReader, fields_of
from stages.cache.journal.record import Record
from stages.cache.passthrough import split_batch
from stages.channel import Channel
from stages.digests import DigestKeys
from stages.model import Batch, Segment
from stages.ports import Machine
from stages.stage import Meter, Signal, StageStatistics, crew
from stages.stream import Kind, Position, Upstream

PIECE_BLOCKS = 1024  # of content that travels together; a multiple of a frame's
_READ = 4 << 20
_BLOCKS = (Kind.WRITE, Kind.SCAN)


@dataclass(frozen=True, slots=True)
class NewGeometry:
    """The stream's disks from ``position`` on: (intake's number, name, bytes)."""

    disks: tuple[tuple[int, str, int], ...]
    position: Position


class Pace:
    """How many sealed segments are not committed yet: what folding goes by."""

    def __init__(self) -> None:
        self.changed = Signal()
        self.on_the_way = 0

    def sealed(self) -> None:
        """One more."""
        self.on_the_way += 1

    def committed(self, count: int) -> None:
        """That many fewer."""
        self.on_the_way -= count
        self.changed.set()


class Fold:
    """One leg of delivery: from ``start`` until the disks change (``ended``) or it is cancelled.

    ``numbers``: from the stream's disk numbers to the vault's; ``disks``: as GEOMETRY said last.
    ``heartbeat``: seconds after which a segment is sent although nothing was written (R19); the
    first one at once (R12).
    """

    name = "cache"

    def __init__(
        self,
        reader: JournalReader,
        upstream: Upstream,
        sink: Channel[Segment],
        *,
        machine: Machine,
        start: Position,
        in_gap: bool,
        geometry: int,
        numbers: Mapping[int, int],
        disks: tuple[tuple[int, str, int], ...],
        keys: DigestKeys,
        pace: Pace,
        seal_after: float,
        seal_bytes: int,
        heartbeat: float = 600.0,
    ):
        self.ended: NewGeometry | None = None
        self.position = self._said = start  # read up to here
        self._reader = reader
        self._upstream = upstream
        self._sink = sink
        self._machine = machine
        self._in_gap = in_gap
        self._geometry = geometry
        self._numbers = numbers
        self._disks = disks
        self._keys = keys
        self._pace = pace
        self._seal_after = seal_after
        self._seal_bytes = seal_bytes
        self._heartbeat = heartbeat
        self._open = OpenSegment(numbers, seal_bytes)
        self._since = 0.0  # monotonic, when the open segment got its first record
        self._sealed_at = 0.0
        self._hurry = False
        self._meter = Meter(self.name)

    async def run(self) -> None:
        """See the class."""
        with self._sink, self._meter.running():
            async with crew() as nursery:
                nursery.start_soon(self._watch)
                if self._geometry:
                    await self._seal()
                while self.ended is None:
                    await self._turn()
                nursery.cancel_scope.cancel()

    def statistics(self) -> StageStatistics:
        """Counters of this stage."""
        return self._meter.snapshot()

    def hurry(self) -> None:
        """Seal what there is without waiting for its age."""
        self._hurry = True
        self._pace.changed.set()

    def nothing_before(self, position: Position) -> bool:
        """All before ``position`` was read, and nothing of it is on its way to the vault."""
        idle = not self._open.records and not self._pace.on_the_way
        return idle and self.position >= position

    async def _watch(self) -> None:
        seen = self.position
        while True:
            seen = await self._upstream.wait_durable(seen)
            self._pace.changed.set()

    async def _turn(self) -> None:
        """Read on if there is more; else seal what is due, or wait for one of both."""
        durable = self._upstream.durable
        if self.position < durable:
            start = self.position
            records = await self._machine.offload.run(
                lambda: self._reader.read(start, durable, _READ)
            )
            if records:
                await self._take(records)
                if self._is_due():
                    await self._seal()
                return
        if self._is_due():
            await self._seal()
            return
        await self._say_empty()
        with self._meter.hungry(), trio.move_on_after(self._patience()):
            await self._pace.changed.wait()

    async def _say_empty(self) -> None:
        """What was read behind the last commit has nothing that the vault could lack, like the
        verdict on a mark: intake need not wait for the next commit to know that all is there."""
        if self.position > self._said and self.nothing_before(self.position):
            self._said = self.position
            await self._upstream.committed(self.position)

    def _is_due(self) -> bool:
        now = self._machine.clock.monotonic()
        if self._pace.on_the_way:
            return False
        if self._open.records:
            return self._hurry or now - self._since >= self._seal_after
        return bool(self._geometry) and now - self._sealed_at >= self._heartbeat

    def _patience(self) -> float:
        """Seconds until something may be due by itself."""
        if self._pace.on_the_way:
            return self._heartbeat
        now = self._machine.clock.monotonic()
        if self._open.records:
            return max(self._since + self._seal_after - now, 0.001)
        return max(self._sealed_at + self._heartbeat - now, 0.001)

    async def _take(self, records: list[Record]) -> None:
        at = 0
        while at < len(records):
            end = at
            while end < len(records) and records[end].kind in _BLOCKS:
                end += 1
            if end > at:
                await self._collect(records[at:end])
            if end < len(records):
                await self._control(records[end])
                if self.ended is not None:
                    return
            at = end + 1

    async def _collect(self, records: list[Record]) -> None:
        if not self._open.records:
            self._since = self._machine.clock.monotonic()
        self._meter.items += len(records)
        self._meter.bytes_in += sum(len(record.payload) for record in records)
        await self._machine.offload.run(lambda: self._open.add(records))
        self.position = records[-1].end
        if await self._machine.offload.run(lambda: self._open.full):
            await self._seal()

    async def _control(self, record: Record) -> None:
        fields = fields_of(record)
        geometry = _geometry(record, fields) if record.kind is Kind.GEOMETRY else None
        if record.kind is Kind.VERDICT:
            self.position = record.end
            return
        if self._open.records:
            await self._seal()  # a geometry begins a run: no segment's place is in another's
        if geometry and geometry.disks == self._disks:
            self.position = record.end
            return
        self.position = record.end
        if record.kind is Kind.GAP_BEGIN:
            self._in_gap = True
            await self._seal(stamp=record.wall_us)
        elif record.kind is Kind.GAP_END:
            self._in_gap = False
            await self._seal(grade=str(fields["grade"]), stamp=record.wall_us)
        elif record.kind is Kind.MARK:
            await self._mark(record, fields)
        else:
            self.ended = geometry

    async def _mark(self, record: Record, fields: dict[str, object]) -> None:
        mark = int(str(fields["id"]))
        durable = self._upstream.durable
        valid = await self._machine.offload.run(
            lambda: self._reader.find_verdict(mark, record.end, durable)
        )
        good = bool(valid) and not self._in_gap
        grade = str(fields["grade"]) if good else "crash"
        await self._seal(grade=grade, stamp=record.wall_us, mark=mark if good else -mark)

    async def _seal(self, *, grade: str = "crash", stamp: int = 0, mark: int = 0) -> None:
        """Send what is open, even if that is nothing; another one begins."""
        opened, self._open = self._open, OpenSegment(self._numbers, self._seal_bytes)
        self._pace.sealed()  # before the first await, or ``nothing_before`` would miss it
        batches = await self._machine.offload.run(lambda: opened.batches(self._keys))
        self._sealed_at = self._machine.clock.monotonic()
        whole = Segment(
            batches,
            self._in_gap,
            grade,
            self._geometry,
            position=(self.position.run, self.position.offset),
            stamp=stamp or opened.stamp,
            mark=mark,
        )
        self._meter.bytes_out += whole.payload_bytes
        for piece in pieces_of(whole):
            with self._meter.blocked():
                await self._sink.send(piece, max(1, piece.payload_bytes))


def pieces_of(segment: Segment) -> list[Segment]:
    """The segment in pieces of whole frames, but for the last."""
    found: list[list[Batch]] = [[]]
    room = PIECE_BLOCKS
    for batch in segment.batches:
        rest = batch
        while len(rest.data) > room:
            head, rest = split_batch(rest, room)
            found[-1].append(head)
            found.append([])
            room = PIECE_BLOCKS
        found[-1].append(rest)
        room -= len(rest.data)
    last = len(found) - 1
    return [
        replace(segment, batches=tuple(part), final=at == last) for at, part in enumerate(found)
    ]


def _geometry(record: Record, fields: dict[str, object]) -> NewGeometry:
    disks = fields["disks"]
    assert isinstance(disks, list)  # noqa: S101
    return NewGeometry(
        tuple((int(number), str(name), int(size)) for number, name, size in disks), record.end
    )
