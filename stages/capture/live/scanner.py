"""The scan beside writes: read, compare, wait for credit, drop what was written meanwhile (R8).

Why a block may be skipped when its digest is the vault's: a scan begins once delivery has committed
everything up to the gap's GAP_BEGIN, so nothing that stands in the stream before that is still
ahead of the vault (R3). What stands behind it was written in this gap, by guests: of each such
block the last version in the stream is what the source holds. So if a block that nobody has written
since it was read is equal to what the vault holds, then either the stream has no version of it, or
its last one is this very content. Digests may be older than the moment of comparison for the same
reason. A failed write is read again under its lock and marked like any other.

Blocks are compared by digest, content is sent as it is: references (R17) would have to be held
against every write between the scan and the commit, and are left to scans at rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import trio

from stages.capture.examiner import Examined, Examiner, Examiners
from stages.capture.live.windows import Windows
from stages.digests import DigestKeys, same
from stages.model import (
    BLOCK,
    CHUNK,
    CHUNK_BLOCKS,
    U64,
    UNKNOWN,
    ZERO,
    Bools,
    Ints,
    Runs,
    blocks_of,
    chunks_of,
)
from stages.ports import Machine, OpenFile
from stages.scan_extra import ScanExtra, encode
from stages.stage import crew
from stages.stream import (
    HEAD_BYTES,
    REGION,
    REGION_BLOCKS,
    ROW,
    ZERO_ROW,
    Downstream,
    Entry,
    Kind,
    Position,
    Stream,
)

_CHUNKS = REGION // CHUNK
_ASK = 64  # regions whose chunk digests are asked for at a time
_EXTRA_BYTES = 64  # of a scan's extra beside its digests


@dataclass(frozen=True, slots=True)
class LiveTarget:
    """An open disk, ``size`` bytes long."""

    size: int
    file: OpenFile


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """Bytes of disk: of ``total``, ``scanned`` so far, ``read`` from it, ``sent`` as content."""

    total: int
    scanned: int
    read: int
    sent: int
    zero: int


@dataclass(frozen=True, slots=True)
class _Task:
    """A region to scan, and the chunk digests (c, 2) the vault is known to have."""

    disk: int
    index: int  # of the disk among the examiner's
    region: int
    length: int
    known: U64


class Scanner:
    """One scan over ``disks`` (by intake's numbers).

    ``locked(disk, first, count)``: which blocks a write in progress holds, None for none.
    ``yielding``: awaited before each region. ``on_scanned(disk, region, position)``: what was found
    of it stands in the stream before ``position``.
    """

    def __init__(
        self,
        disks: Mapping[int, LiveTarget],
        *,
        stream: Stream,
        downstream: Downstream,
        examiners: Examiners,
        machine: Machine,
        windows: Windows,
        locked: Callable[[int, int, int], Bools | None],
        yielding: Callable[[], Awaitable[None]],
        on_scanned: Callable[[int, int, Position], None],
    ):
        self._disks = dict(disks)
        self._numbers = list(self._disks)
        self._stream = stream
        self._downstream = downstream
        self._examiners = examiners
        self._machine = machine
        self._windows = windows
        self._locked = locked
        self._yielding = yielding
        self._on_scanned = on_scanned
        self._total = self._scanned = self._read = self._sent = self._zero = 0

    def progress(self) -> ScanProgress:
        """An immutable snapshot."""
        return ScanProgress(self._total, self._scanned, self._read, self._sent, self._zero)

    async def scan(self, plan: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Scan regions of disks in the order given. Raises ``SourceError``, ``JournalUnusable``,
        ``DeliveryGone``."""
        self._total = sum(len(regions) for _, regions in plan) * REGION
        keys = DigestKeys.derive(await self._downstream.key())
        files = [self._disks[number].file for number in self._numbers]
        async with self._examiners.open(files, keys) as examiner, crew() as nursery:
            places = trio.Semaphore(examiner.slots)
            for disk, regions in plan:
                for at in range(0, len(regions), _ASK):
                    for task in await self._tasks(disk, regions[at : at + _ASK]):
                        await places.acquire()
                        nursery.start_soon(self._one, examiner, task, places)

    async def _tasks(self, disk: int, regions: Sequence[int]) -> list[_Task]:
        """With one question for neighbours: from the first region to the last, if that is near."""
        size = self._disks[disk].size
        index = self._numbers.index(disk)
        first, last = regions[0], regions[-1]
        if last - first >= 4 * _ASK:
            halves = regions[: len(regions) // 2], regions[len(regions) // 2 :]
            return [task for half in halves for task in await self._tasks(disk, half)]
        chunks = min((last + 1) * _CHUNKS, chunks_of(size)) - first * _CHUNKS
        known = await self._downstream.chunks(disk, first * _CHUNKS, chunks)
        tasks = []
        for region in regions:
            at = (region - first) * _CHUNKS
            length = min(REGION, size - region * REGION)
            tasks.append(_Task(disk, index, region, length, known[at : at + chunks_of(length)]))
        return tasks

    async def _one(self, examiner: Examiner, task: _Task, places: trio.Semaphore) -> None:
        try:
            await self._yielding()
            self._windows.open(task.disk, task.region)
            try:
                offset = task.region * REGION
                found = await examiner.examine(task.index, offset, task.length, task.known)
                try:
                    await self._send(task, found)
                finally:
                    found.release()
            finally:
                self._windows.close(task.disk, task.region)
            self._scanned += REGION
        finally:
            places.release()

    async def _send(self, task: _Task, found: Examined) -> None:
        """Put what differs into the stream; closes the window in the same step."""
        self._read += found.read
        news = await self._news(task, found)
        credit = news.most_bytes
        if credit:
            await self._stream.reserve(credit)
        # No await from here to the push (R8).
        written = self._windows.close(task.disk, task.region)
        held = self._locked(task.disk, task.region * REGION_BLOCKS, REGION_BLOCKS)
        dropped = written if held is None else written | held
        if credit:
            entry = news.entry(task, dropped, self._machine.clock.wall_us())
            self._sent += entry.payload_bytes
            self._zero += news.zero_bytes
            self._stream.push(entry, credit)
        self._on_scanned(task.disk, task.region, self._stream.head)

    async def _news(self, task: _Task, found: Examined) -> _News:
        chunks = found.chunks
        if not found.changed:
            return _News.nothing()
        count = blocks_of(task.length)
        first = task.region * REGION_BLOCKS
        known = await self._downstream.blocks(task.disk, first, count)
        changed = np.repeat(~same(chunks, found.known), CHUNK_BLOCKS)[:count]
        changed[(count // CHUNK_BLOCKS) * CHUNK_BLOCKS :] = True
        zero = same(found.blocks, ZERO)
        news = changed & ~same(found.blocks, known)
        return _News(news & ~zero, news & zero, found, task.length)


@dataclass(frozen=True, slots=True)
class _News:
    """Blocks (n,) of a region that the vault does not have: with ``content``, or ``zero``."""

    content: Bools
    zero: Bools
    found: Examined | None
    length: int

    @staticmethod
    def nothing() -> _News:
        """All is as the vault has it."""
        none = np.zeros(0, np.bool_)
        return _News(none, none, None, 0)

    @property
    def most_bytes(self) -> int:
        """Bytes in the stream, at most."""
        if self.found is None:
            return 0
        content, zero = int(np.count_nonzero(self.content)), int(np.count_nonzero(self.zero))
        rows = ROW.size * (content + zero)
        digests = 16 * (content + chunks_of(self.length)) + _EXTRA_BYTES
        return HEAD_BYTES + rows + digests + content * BLOCK

    @property
    def zero_bytes(self) -> int:
        """Bytes that are zero now, and were not known to be."""
        return int(np.count_nonzero(self.zero)) * BLOCK

    def entry(self, task: _Task, dropped: Bools, wall_us: int) -> Entry:
        """The record, without what was ``dropped`` (blocks of the region). Copies content once."""
        assert self.found is not None  # noqa: S101
        dropped = dropped[: len(self.content)]
        base = task.region * REGION_BLOCKS
        content = np.flatnonzero(self.content & ~dropped)
        zero = np.flatnonzero(self.zero & ~dropped)
        payload = self.found.content[content].reshape(-1).data
        extra = ScanExtra(
            self.found.blocks[content],
            task.region * _CHUNKS,
            self._chunk_digests(dropped),
            self.length,
        )
        table = _table(content, zero, base)
        parts = (payload,) if len(content) else ()
        size = len(content) * BLOCK
        return Entry(Kind.SCAN, task.disk, wall_us, table, encode(extra), parts, size)

    def _chunk_digests(self, dropped: Bools) -> U64:
        """Of chunks of which nothing was written meanwhile; unknown for the others."""
        assert self.found is not None  # noqa: S101
        digests = self.found.chunks.copy()
        digests[np.flatnonzero(dropped) // CHUNK_BLOCKS] = UNKNOWN
        return digests


def _table(
    content: Ints,
    zero: Ints,
    base: int,
) -> bytes:
    """Rows in ascending order of blocks."""
    runs = Runs.of(content.astype(np.uint64))
    empty = Runs.of(zero.astype(np.uint64))
    before = (np.cumsum(runs.count) - runs.count) * np.uint64(BLOCK)
    rows = np.empty(len(runs.start) + len(empty.start), _ROWS)
    rows["block"] = np.concatenate((runs.start, empty.start)) + np.uint64(base)
    rows["count"] = np.concatenate((runs.count, empty.count))
    rows["at"] = np.concatenate((before, np.full(len(empty.start), ZERO_ROW, np.uint64)))
    rows.sort(order="block")
    return rows.tobytes()


_ROWS = np.dtype([("block", "<u8"), ("count", "<u4"), ("at", "<u4")])
