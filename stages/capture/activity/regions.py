"""What is hot and what is pending, in memory: the truth of a run, without any file (R1, R6, R9)."""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping

import numpy as np

from stages.capture.activity.codec import Changes, DiskFound, DiskSpan, Found
from stages.model import Bools
from stages.stream import REGION


class Regions:
    """``written``: by disk, for each region the generation of its last write, 0 if it is cold;
    whoever writes to a hot region sets it to ``generation``. ``pending``: by disk, what is to be
    scanned."""

    def __init__(self, run: int, max_hot: int, stretch: int):
        self.generation = 1
        self.written: dict[int, array[int]] = {}
        self.pending: dict[int, Bools] = {}
        self.in_gap = False
        self._run = run
        self._max_hot = max_hot
        self._stretch = stretch
        self._spans: dict[int, DiskSpan] = {}
        self._next_disk = 0
        self._hot = 0

    @property
    def next_disk(self) -> int:
        """The number that a new disk will get."""
        return self._next_disk

    @property
    def spans(self) -> tuple[DiskSpan, ...]:
        """The disks."""
        return tuple(self._spans.values())

    @property
    def hot(self) -> int:
        """Regions that would be compared after a crash now."""
        return self._hot

    def start_cycle(self) -> int:
        """Later writes carry the next generation; returns the one that ends."""
        ended = self.generation
        self.generation += 1
        return ended

    def candidates(self, ended: int, idle: int) -> dict[int, list[int]]:
        """Hot regions whose last write was ``idle`` generations before ``ended``, or earlier."""
        found = {}
        for disk, written in self.written.items():
            seen = np.asarray(written)
            regions = np.flatnonzero((seen > 0) & (seen.astype(np.int64) <= ended - idle))
            if len(regions):
                found[disk] = regions.tolist()
        return found

    def _around(self, written: array[int], cold: set[int]) -> set[int]:
        """Cold neighbours that are likely to be written next, unless there is little room."""
        stretch = self._stretch
        starts = {region - region % stretch for region in cold}
        if self._hot + len(starts) * stretch > self._max_hot // 4:
            return set()
        return {
            region
            for start in starts
            for region in range(start, min(start + stretch, len(written)))
            if not written[region]
        }

    def _take(self, changes: Changes) -> None:
        for disk, regions in changes.hot.items():
            if disk in self.written:
                written = self.written[disk]
                for region in regions:
                    self._hot += not written[region]
                    written[region] = self.generation
        for disk, regions in changes.pending.items():
            if disk in self.pending:
                self.pending[disk][list(regions)] = True

    def _clear(self) -> None:
        """Nothing is hot any more."""
        for written in self.written.values():
            written[:] = array("I", bytes(4 * len(written)))
        self._hot = 0

    def _planned(
        self, spans: Mapping[int, DiskSpan], next_disk: int, fresh: Container[int]
    ) -> Found:
        """As it will be with these disks."""
        disks = []
        for number, span in spans.items():
            kept = self._kept(number, fresh)
            hot, pending = np.zeros(span.regions, np.bool_), np.ones(span.regions, np.bool_)
            hot[:kept] = np.asarray(self.written[number])[:kept] > 0 if kept else False
            pending[:kept] = self.pending[number][:kept] if kept else True
            self._grown(number, span, kept, pending)
            disks.append(DiskFound(span, None, hot, pending))
        return Found(True, "", False, self._run, self.in_gap, next_disk, tuple(disks))

    def _kept(self, number: int, fresh: Container[int]) -> int:
        """Regions of which the log goes on to say what it said."""
        return 0 if number in fresh or number not in self.written else len(self.written[number])

    def _grown(self, number: int, span: DiskSpan, kept: int, pending: Bools) -> None:
        """The region in which a disk ended before it grew is pending too."""
        if kept and self._spans[number].size < span.size:
            pending[self._spans[number].size // REGION :] = True

    def _take_disks(
        self, spans: Mapping[int, DiskSpan], next_disk: int, fresh: Container[int]
    ) -> None:
        written: dict[int, array[int]] = {}
        pending: dict[int, Bools] = {}
        for number, span in spans.items():
            kept = self._kept(number, fresh)
            marks, todo = array("I", bytes(4 * span.regions)), np.ones(span.regions, np.bool_)
            if kept:
                marks[:kept], todo[:kept] = self.written[number], self.pending[number]
            self._grown(number, span, kept, todo)
            written[number], pending[number] = marks, todo
        self.written, self.pending = written, pending
        self._spans, self._next_disk = dict(spans), next_disk
        self._hot = sum(int(np.count_nonzero(np.asarray(w))) for w in written.values())

    def _found(
        self, *, clean: bool, identities: Mapping[int, Mapping[str, int]] | None = None
    ) -> Found:
        disks = tuple(
            DiskFound(
                span,
                (identities or {}).get(number),
                np.asarray(self.written[number]) > 0,
                self.pending[number].copy(),
            )
            for number, span in self._spans.items()
        )
        return Found(True, "", clean, self._run, self.in_gap, self._next_disk, disks)

    def _found_with(self, changes: Changes) -> Found:
        """As it will be once ``changes`` are in memory too."""
        found = self._found(clean=False)
        for disk in found.disks:
            disk.hot[list(changes.hot.get(disk.span.number, ()))] = True
            disk.pending[list(changes.pending.get(disk.span.number, ()))] = True
        return found
