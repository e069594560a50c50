"""The activity log at work: marks that are durable before what they are about (R1, R6, R9).

Memory is the truth of this run; the file is never behind it where that would matter: a region is
hot in memory only once it is in the file, and cold in the file only after it is in memory. What
makes a region cold or scanned rides with the next mark: losing it costs a comparison, nothing else.

A file that cannot be written, or takes too long, does not stop guests where a witness can be left
outside the state folder: the log is ``unlogged`` then, marks in memory only, until ``renew``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

import trio

from stages.capture.activity.codec import Changes, DiskSpan, Found, read
from stages.capture.activity.filed import Batch, FiledRegions, in_words
from stages.capture.activity.witness import Witness
from stages.model import Bools
from stages.ports import Files, Machine
from stages.stage import Signal

MAX_HOT = 4096  # regions: 16 GiB are compared after a crash at most
STRETCH = 16  # regions that become hot together, while there is much room: fewer writes wait
_MAX_FILE = 1 << 30


def look(files: Files, path: str) -> Found | None:
    """How a log was left; None if there is none. Blocks."""
    if files.stat(path) is None:
        return None
    return read(files.read(path, _MAX_FILE))


class ActivityLog(FiledRegions):
    """See ``begin``. All state belongs to the event loop; only file calls go to threads.

    See ``FiledRegions`` for ``unlogged``, ``patience`` and ``nursery``.
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
        super().__init__(machine, path, run, max_hot, stretch, witness)
        self._crowded = Signal()
        self._room = trio.lowlevel.ParkingLot()
        self._short = 0  # who waits for room
        self._reliefs = 0

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
        await log._replace(log._found(clean=False))
        return log

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
            self._next = Batch()  # takes what is marked from here on
            self._failed = None
            await self._replace(self._found(clean=False))
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
                raise in_words(self._failed, self._path)
            spans = {disk.number: disk for disk in disks}
            next_disk = max([self._next_disk, *(number + 1 for number in spans)])
            await self._replace(self._planned(spans, next_disk, fresh))
            self._take_disks(spans, next_disk, fresh)
            # What is told with the next mark is about the disks of before: a region that was
            # scanned may be pending again. The new file says it all, or more.
            self._next.changes.keep([number for number in spans if number not in fresh])
            self._next.changes.scanned.clear()
            self._next.changes.cold.clear()
            self._room.unpark_all()

    async def close(
        self, *, identities: Mapping[int, Mapping[str, int]], clean: bool, in_gap: bool
    ) -> None:
        """The end of a run. ``clean``: nothing is hot any more, and ``identities`` of the sources
        will tell whether they were left alone; durable on return. ``NoSpace``, ``StateError``."""
        self.in_gap = in_gap
        try:
            if clean:
                async with self._lock:
                    self._clear()
                    found = self._found(clean=True, identities=identities)
                    with trio.CancelScope(shield=True):
                        await self._guarded(lambda: self._file.switch(found))
        except OSError as error:
            raise in_words(error, self._path) from error
        finally:
            self._file.close()
