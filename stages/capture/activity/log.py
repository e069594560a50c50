"""The activity log at work: marks that are durable before what they are about (R1, R6, R9).

Memory is the truth of this run; the file is never behind it where that would matter: a region is
hot in memory only once it is in the file, and cold in the file only after it is in memory. What
makes a region cold or scanned rides with the next mark: losing it costs a comparison, nothing else.

A file that cannot be written, or takes too long, does not stop guests where a witness can be left
outside the state folder: the log is ``unlogged`` then, marks in memory only, until ``renew``.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import trio

from stages import durable
from stages.capture.activity.codec import (
    Changes,
    DiskFound,
    DiskSpan,
    Found,
    SourceId,
    area_size,
    frame,
    framed_size,
    pack_snapshot,
    read,
)
from stages.capture.activity.witness import Witness
from stages.errors import NoSpace, StateError
from stages.model import Bools
from stages.ports import Files, Machine, OpenFile
from stages.stage import Signal
from stages.stream import REGION

__all__ = ["ActivityLog", "DiskFound", "DiskSpan", "Found", "SourceId", "look"]

MAX_HOT = 4096  # regions: 16 GiB are compared after a crash at most
STRETCH = 16  # regions that become hot together, while there is much room: fewer writes wait
STALL_SECONDS = 5.0  # a mark that takes this long is treated as failed
_MAX_FILE = 1 << 30


def look(files: Files, path: str) -> Found | None:
    """How a log was left; None if there is none. Blocks."""
    if files.stat(path) is None:
        return None
    return read(files.read(path, _MAX_FILE))


class _Batch:
    """Changes that share an append, and what became of it."""

    __slots__ = ("begun", "changes", "done", "error")

    def __init__(self) -> None:
        self.changes = Changes()
        self.begun = False
        self.done = trio.Event()
        self.error: OSError | None = None


class ActivityLog:
    """See ``begin``. All state belongs to the event loop; only file calls go to threads.

    ``written``: by disk, for each region the generation of its last write, 0 if it is cold; whoever
    writes to a hot region sets it to ``generation``. ``pending``: by disk, what is to be scanned.
    ``unlogged``: why marks are kept in memory only, while they are. ``patience``: seconds for a
    mark. With a ``nursery`` the file is written by tasks in it, so that nobody waits for longer.
    """

    def __init__(
        self,
        machine: Machine,
        path: str,
        run: int,
        max_hot: int,
        stretch: int,
        witness: Witness | None,
    ):
        self.unlogged = ""
        self.patience = STALL_SECONDS
        self.nursery: trio.Nursery | None = None
        self.generation = 1
        self.written: dict[int, array[int]] = {}
        self.pending: dict[int, Bools] = {}
        self.in_gap = False
        self._machine = machine
        self._path = path
        self._run = run
        self._max_hot = max_hot
        self._stretch = stretch
        self._spans: dict[int, DiskSpan] = {}
        self._next_disk = 0
        self._hot = 0
        self._next = _Batch()
        self._lock = trio.Lock()
        self._crowded = Signal()
        self._room = trio.lowlevel.ParkingLot()
        self._short = 0  # who waits for room
        self._reliefs = 0
        self._file: OpenFile | None = None
        self._area = self._size = self._at = 0
        self._snapshots = 0
        self._failed: OSError | None = None
        self._witness = witness
        self._testifying = trio.Lock()

    @staticmethod
    async def begin(
        machine: Machine,
        path: str,
        *,
        run: int,
        disks: Sequence[DiskSpan],
        pending: Mapping[int, Bools],
        in_gap: bool,
        next_disk: int,
        max_hot: int = MAX_HOT,
        stretch: int = STRETCH,
        witness: Witness | None = None,
    ) -> ActivityLog:
        """A log for a new run: unclean from now on, nothing hot, ``pending`` as given; durable on
        return. Raises ``NoSpace`` or ``StateError``."""
        log = ActivityLog(machine, path, run, max_hot, stretch, witness)
        log.in_gap = in_gap
        log._take_disks({disk.number: disk for disk in disks}, next_disk, ())
        log.pending = {disk.number: pending[disk.number].copy() for disk in disks}
        found = log._found(clean=False)
        try:
            await machine.offload.run(lambda: log._replace_file(found))
        except OSError as error:
            raise _in_words(error, path) from error
        return log

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

    async def heat(self, disk: int, regions: Iterable[int], *, track: bool = False) -> None:
        """Regions become hot, and with ``track`` pending too; durable on return, or ``unlogged``.

        Waits for cooling where too many are hot (not with ``track``); ``relieve`` ends that, with
        nothing marked. ``StateError`` or ``NoSpace`` if the file cannot be written, and no witness
        left.
        """
        wanted = set(regions)
        while True:
            written, pending = self.written[disk], self.pending[disk]
            cold = {region for region in wanted if not written[region]}
            idle = {region for region in wanted if not pending[region]} if track else set[int]()
            if not cold and not idle:
                return
            if track or self._hot + len(cold) <= max(self._max_hot, len(cold)):
                break
            self._short += 1
            self._crowded.set()
            reliefs = self._reliefs
            try:
                await self._room.park()
            finally:
                self._short -= 1
            if self._reliefs != reliefs:
                return
        batch = self._next
        if cold and not track:
            cold |= self._around(written, cold)
        if cold:
            batch.changes.hot.setdefault(disk, set()).update(cold)
        if idle:
            batch.changes.pending.setdefault(disk, set()).update(idle)
        if self.unlogged:
            self._take(Changes(hot={disk: cold}, pending={disk: idle}))
            await trio.lowlevel.checkpoint()
        elif not await self._written(batch):
            self._take(Changes(hot={disk: cold}, pending={disk: idle}))

    def relieve(self) -> None:
        """Nothing cools from here on: who waits for room looks again at what to do."""
        self._reliefs += 1
        self._room.unpark_all()

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

    def scanned(self, disk: int, regions: Iterable[int]) -> None:
        """What a scan found of them is journal-durable: they are pending no more."""
        found = list(regions)
        if not found:
            return
        self.pending[disk][found] = False
        self._next.changes.scanned.setdefault(disk, set()).update(found)

    def pend(self, disk: int, regions: Iterable[int]) -> None:
        """They must be scanned (again); in the file no later than that they are cold."""
        found = list(regions)
        if not found:
            return
        self.pending[disk][found] = True
        changes = self._next.changes
        changes.scanned.get(disk, set()).difference_update(found)
        changes.pending.setdefault(disk, set()).update(found)

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

    def cool(self, regions: Mapping[int, Sequence[int]], ended: int) -> None:
        """R1 holds for these; but not for those that were written after generation ``ended``."""
        for disk, found in regions.items():
            if disk not in self.written:
                continue  # it has gone meanwhile
            written = self.written[disk]
            for region in found:
                if 0 < written[region] <= ended:
                    written[region] = 0
                    self._hot -= 1
                    self._next.changes.cold.setdefault(disk, set()).add(region)
        self._room.unpark_all()

    @property
    def is_crowded(self) -> bool:
        """Somebody waits for room."""
        return self._short > 0

    async def wait_crowded(self) -> None:
        """Return once somebody has begun to wait for room."""
        await self._crowded.wait()

    async def set_gap(self, in_gap: bool) -> None:
        """Durable on return, or ``unlogged``."""
        self.in_gap = in_gap
        batch = self._next
        batch.changes.in_gap = in_gap
        if not self.unlogged:
            await self._written(batch)

    async def renew(self) -> None:
        """End ``unlogged``: a new file has all marks. ``NoSpace`` or ``StateError`` if it cannot be
        written either."""
        async with self._lock:  # what hung has ended
            self._next = _Batch()  # takes what is marked from here on
            self._failed = None
            found = self._found(clean=False)
            try:
                await self._machine.offload.run(lambda: self._replace_file(found))
            except OSError as error:
                raise _in_words(error, self._path) from error
            self.unlogged = ""
        await self._written(self._next)
        async with self._testifying:
            if self._witness is not None and not self.unlogged:
                await self._machine.offload.run(self._witness.remove)

    async def change(self, disks: Sequence[DiskSpan], *, fresh: Container[int] = ()) -> None:
        """These disks from now on; durable on return.

        What stays keeps what is hot and pending. New disks, those in ``fresh`` and grown ranges are
        pending; sizes never shrink. Numbers that are not here any more are never given again.
        ``NoSpace`` or ``StateError``: nothing has changed, or the log has failed for good.
        """
        async with self._lock:
            if self._failed is not None:
                raise _in_words(self._failed, self._path)
            spans = {disk.number: disk for disk in disks}
            next_disk = max([self._next_disk, *(number + 1 for number in spans)])
            planned = self._planned(spans, next_disk, fresh)
            try:
                with trio.CancelScope(shield=True):
                    await self._machine.offload.run(lambda: self._replace_file(planned))
            except OSError as error:
                raise _in_words(error, self._path) from error
            self._take_disks(spans, next_disk, fresh)

    async def close(
        self, *, identities: Mapping[int, Mapping[str, int]], clean: bool, in_gap: bool
    ) -> None:
        """The end of a run. ``clean``: nothing is hot any more, and ``identities`` of the sources
        will tell whether they were left alone; durable on return. ``NoSpace``, ``StateError``."""
        self.in_gap = in_gap
        try:
            if clean:
                async with self._lock:
                    for written in self.written.values():
                        written[:] = array("I", bytes(4 * len(written)))
                    self._hot = 0
                    found = self._found(clean=True, identities=identities)
                    with trio.CancelScope(shield=True):
                        await self._guarded(lambda: self._switch(pack_snapshot(found)))
        except OSError as error:
            raise _in_words(error, self._path) from error
        finally:
            with suppress(OSError):
                self._open_file.close()

    # the file

    async def _written(self, batch: _Batch) -> bool:
        """Wait until ``batch`` is durable; False if a witness is left instead."""
        if not batch.begun:
            batch.begun = True
            if self.nursery is None:
                await self._write(batch)
            else:
                self.nursery.start_soon(self._write, batch)
        with trio.move_on_after(self.patience):
            await batch.done.wait()
        if batch.done.is_set() and batch.error is None:
            return True
        error = batch.error or OSError(errno.ETIMEDOUT, "does not answer")
        if await self._testified(error):
            return False
        await batch.done.wait()
        if batch.error is not None:
            raise _in_words(batch.error, self._path)
        return True

    async def _write(self, batch: _Batch) -> None:
        """Append what came together until now; not cut off."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                if batch is self._next:
                    self._next = _Batch()
                try:
                    await self._guarded(lambda: self._append(batch.changes))
                except OSError as error:
                    batch.error = error
                else:
                    self._take(batch.changes)
                finally:
                    batch.done.set()

    async def _testified(self, error: OSError) -> bool:
        """Leave a witness, and go on without the file."""
        reason = error.strerror or str(error)
        witness = self._witness
        async with self._testifying:
            if self.unlogged or witness is None:
                return bool(self.unlogged)
            why = f"{self._path}: {reason}; what was written since is not in it."
            with trio.CancelScope(shield=True):
                try:
                    await self._machine.offload.run(lambda: witness.leave(why))
                except OSError:
                    return False
            self.unlogged = reason
            self._failed = error
            return True

    async def _guarded(self, call: Callable[[], None]) -> None:
        """A file call; after a failure nobody knows what is in the file, so it is the last."""
        if self._failed is not None:
            raise self._failed
        try:
            await self._machine.offload.run(call)
        except OSError as error:
            self._failed = error
            raise

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

    def _append(self, changes: Changes) -> None:
        """In a thread. What does not fit goes into a snapshot in the other area."""
        payload = changes.pack()
        if self._at + framed_size(payload) + 256 > self._size:
            self._switch(pack_snapshot(self._found_with(changes)))
            return
        record = frame(payload, self._snapshots, self._at)
        self._open_file.pwrite(self._area * self._size + self._at, record)
        self._open_file.fdatasync()
        self._at += len(record)

    def _switch(self, snapshot: bytes) -> None:
        """In a thread: the other area takes over, and this one says so."""
        moved = frame(Changes(moved=True).pack(), self._snapshots, self._at)
        old = self._area * self._size + self._at
        room = self._at + len(moved) <= self._size
        self._snapshots += 1
        self._area = 1 - self._area
        record = frame(snapshot, self._snapshots, 0)
        self._open_file.pwrite(self._area * self._size, record)
        self._open_file.fdatasync()
        if room:
            self._open_file.pwrite(old, moved)
        self._at = len(record)

    def _replace_file(self, found: Found) -> None:
        """In a thread: a new file with room for these disks in the old one's place. If that fails,
        the old one goes on, unless nobody can tell which of them is there now."""
        files = self._machine.files
        size = area_size([disk.span for disk in found.disks])
        record = frame(pack_snapshot(found), self._snapshots + 1, 0)
        data = record + bytes(2 * size - len(record))
        token = self._machine.entropy.token(8).hex()
        try:
            durable.replace(files, self._path, data, token=token)
            file = files.open_write(self._path)
        except OSError as error:
            if self._file is None or not self._is_there():
                self._failed = error
            raise
        old, self._file = self._file, file
        self._size = size
        self._snapshots += 1
        self._area, self._at = 0, len(record)
        if old is not None:
            with suppress(OSError):  # nothing depends on it any more
                old.close()

    def _is_there(self) -> bool:
        """The open file is the one that has its name."""
        try:
            there = self._machine.files.stat(self._path)
            ours = self._open_file.stat()
        except OSError:
            return False
        return there is not None and (there.device, there.inode) == (ours.device, ours.inode)

    @property
    def _open_file(self) -> OpenFile:
        assert self._file is not None  # noqa: S101
        return self._file

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
        # What is told with the next mark is about the disks of before: a region that was scanned
        # may be pending again. The new file says it all, or more.
        self._next.changes.keep([number for number in spans if number not in fresh])
        self._next.changes.scanned.clear()
        self._next.changes.cold.clear()
        self._hot = sum(int(np.count_nonzero(np.asarray(w))) for w in written.values())
        self._room.unpark_all()

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


def _in_words(error: OSError, path: str) -> StateError | NoSpace:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(reason, operation="activity log", subject=path, hint="make room there")
    return StateError(
        reason,
        operation="activity log",
        subject=path,
        hint="check the state folder's disk, then restart intake: writes to regions that are not "
        "marked are refused until then",
    )
