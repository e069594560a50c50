"""The segment that is being collected: records in, batches out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages import scan_extra
from stages.cache.fold.disk import DiskFold
from stages.cache.journal.record import Record
from stages.digests import DigestKeys
from stages.errors import StateDamaged
from stages.model import BLOCK, Batch, Ints, Runs
from stages.stream import ORIGIN, ZERO_ROW, Kind

RECORD_BYTES = 4096  # what a record counts at least, so that their number is bounded too


class OpenSegment:
    """Collects WRITE and SCAN records. ``numbers``: from intake's disk numbers to the vault's."""

    def __init__(self, numbers: Mapping[int, int], seal_bytes: int):
        self.position = ORIGIN  # behind the newest record
        self.stamp = 0  # µs, of the newest record
        self.records = 0
        self._numbers = numbers
        self._seal_bytes = seal_bytes
        self._disks: dict[int, DiskFold] = {}
        self._raw = 0  # bytes of content collected since the last compaction
        self._folded = 0  # bytes of content after it
        self._floor = 0  # what records without content count

    @property
    def full(self) -> bool:
        """It has as much as a segment should."""
        return self._folded + self._raw + self._floor >= self._seal_bytes and not self._shrinks()

    def add(self, records: Sequence[Record]) -> None:
        """Take records that follow in the stream."""
        writes: list[Record] = []
        for record in records:
            if record.kind is Kind.WRITE and not (record.rows["at"] == ZERO_ROW).any():
                writes.append(record)
                continue
            self._add_writes(writes)
            writes = []
            if record.kind is Kind.SCAN:
                self._add_scan(record)
            else:
                self._add_mixed(record)
        self._add_writes(writes)
        self.records += len(records)
        self.position = records[-1].end
        self.stamp = max([self.stamp, *(record.wall_us for record in records)])
        self._floor += RECORD_BYTES * sum(not len(record.payload) for record in records)

    def batches(self, keys: DigestKeys) -> tuple[Batch, ...]:
        """The last version of every block, disk by disk."""
        found = [fold.fold(keys) for _, fold in sorted(self._disks.items())]
        return tuple(batch for batch in found if batch is not None)

    def _shrinks(self) -> bool:
        """Fold what has been collected, if that may make it smaller."""
        if not self._raw:
            return False
        for fold in self._disks.values():
            fold.compact()
        self._raw = 0
        self._folded = sum(fold.blocks for fold in self._disks.values()) * BLOCK
        return self._folded + self._floor < self._seal_bytes

    def _add_writes(self, records: Sequence[Record]) -> None:
        """Neighbouring records of one disk out of one piece go together."""
        at = 0
        while at < len(records):
            first = records[at]
            end = at + 1
            while (
                end < len(records)
                and records[end].disk == first.disk
                and records[end].piece is first.piece
            ):
                end += 1
            self._add_rows(records[at:end])
            at = end

    def _add_rows(self, records: Sequence[Record]) -> None:
        rows = np.concatenate([record.rows for record in records])
        bases = [record.at for record in records]
        base = np.repeat(np.array(bases, np.int64), [len(record.rows) for record in records])
        blocks = Runs(rows["block"], rows["count"].astype(np.uint64)).blocks()
        places = _places(rows["at"].astype(np.int64) + base, rows["count"])
        self._raw += len(blocks) * BLOCK
        self._fold_of(records[0]).write(blocks, records[0].piece, places)

    def _add_mixed(self, record: Record) -> None:
        """Zero runs and content in the order of the rows."""
        fold = self._fold_of(record)
        for row in record.rows:
            runs = Runs(np.array([row["block"]], np.uint64), np.array([row["count"]], np.uint64))
            if int(row["at"]) == ZERO_ROW:
                fold.clear(runs, scan=False)
            else:
                start = np.array([int(row["at"]) + record.at], np.int64)
                places = _places(start, row["count"].reshape(1))
                fold.write(runs.blocks(), record.piece, places)
                self._raw += runs.total * BLOCK

    def _add_scan(self, record: Record) -> None:
        fold = self._fold_of(record)
        empty = record.rows["at"] == ZERO_ROW
        rows, zero = record.rows[~empty], record.rows[empty]
        blocks = Runs(rows["block"], rows["count"].astype(np.uint64)).blocks()
        extra = scan_extra.decode(record.extra, len(blocks))
        if len(blocks):
            places = _places(rows["at"].astype(np.int64) + record.at, rows["count"])
            fold.scan(blocks, record.piece, places, extra.digests)
            self._raw += len(blocks) * BLOCK
        if len(zero):
            runs = Runs(zero["block"].astype(np.uint64), zero["count"].astype(np.uint64))
            fold.clear(runs, scan=True)
        if len(extra.chunk_digests):
            fold.saw_chunks(extra.chunk_first, extra.chunk_digests, extra.scanned)

    def _fold_of(self, record: Record) -> DiskFold:
        number = self._numbers.get(record.disk)
        if number is None:
            raise StateDamaged(
                f"a record of disk {record.disk}, which no geometry names",
                operation="read journal",
                subject=f"{record.start.run}:{record.start.offset}",
                hint="restart intake: the disks are compared again",
            )
        if number not in self._disks:
            self._disks[number] = DiskFold(number)
        return self._disks[number]


def _places(starts: Ints, counts: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Ints:
    """Where each block of rows lies, in bytes: row by row, block by block."""
    if (counts == 1).all():
        return starts
    wide = counts.astype(np.int64)
    inside = np.arange(int(wide.sum()), dtype=np.int64)
    inside -= np.repeat(np.cumsum(wide) - wide, wide)
    return np.repeat(starts, wide) + inside * BLOCK
