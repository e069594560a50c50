"""A group being captured: gate, gap, scans, cooling and marks, from attaching to a clean stop.

``keep`` is the one task that brings the group back to normal whatever happened: while writes are
tracked it waits until they can be journalled again; while a gap is open it scans and closes it.
Everything that opens a gap does so at once, without an await, and wakes that task.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np
import trio

from stages.capture.activity.log import STRETCH, ActivityLog, DiskSpan
from stages.capture.examiner import Examiners
from stages.capture.group.attach import DiskChange
from stages.capture.group.comparing import Comparing
from stages.capture.group.cooling import CYCLE_SECONDS, Cooling
from stages.capture.group.gap import Gap
from stages.capture.group.marks import Marks
from stages.capture.live.scrub import Host, Mismatch, Scrub
from stages.capture.live.windows import Windows
from stages.capture.splitter.disk import LiveDisk, regions_of
from stages.capture.splitter.gate import STALL_SECONDS, Gate
from stages.capture.splitter.source import LiveSource
from stages.errors import BackstayError
from stages.joint import Joint
from stages.model import BLOCK, Ints
from stages.ports import Machine
from stages.stream import Journal, JournalUnusable, Kind, Position

RETRY_FIRST, RETRY_MOST = 1.0, 60.0  # seconds between attempts to scan or to open a journal
RESUME_SHARE = 0.25  # of the journal's limit: tracking ends when no more than this is retained

OpenJournal = Callable[[int], Awaitable[Journal]]
"""Opens the journal with a run after the one given; raises ``BackstayError`` or ``OSError``."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. ``journal``: retained at most before writes are tracked or wait.
    ``stretch``: regions that become hot together. ``scrub``: in which everything is compared again,
    0 for never."""

    journal: int
    throttle: bool = False
    stall: float = STALL_SECONDS
    cool: float = CYCLE_SECONDS
    stretch: int = STRETCH
    scrub: float = 0.0


class Group:
    """The disks of one machine. Made by ``opening.open_group``; ``run`` until it is cancelled, then
    ``close``."""

    def __init__(
        self,
        machine: Machine,
        joint: Joint,
        activity: ActivityLog,
        journal: Journal,
        open_journal: OpenJournal,
        examiners: Examiners,
        limits: Limits,
        scrub_note: str,
    ):
        self.joint = joint
        self.activity = activity
        self.limits = limits
        self.disks: dict[int, LiveDisk] = {}
        self.windows = Windows()
        self.gap = Gap(activity)
        self.gate = Gate(
            journal,
            activity,
            machine.clock,
            limit=limits.journal,
            throttle=limits.throttle,
            stall=limits.stall,
            on_track=self._tracking_begins,
        )
        self.marks = Marks(joint, self.gate, self.gap)
        self.trouble = ""  # why a scan or the journal is being tried again
        self.resting = ""  # why writes are to be tracked for now, whatever the journal could do
        self.nursery: trio.Nursery
        self.examiners = examiners
        self._machine = machine
        self._open_journal = open_journal
        self._written = trio.Event()  # nothing writes to a journal that has failed any more
        self._stuck: set[int] = set()  # disks whose source lost writes: they never cool
        self._attention = trio.Event()
        self._closing = False
        self._trim = trio.Event()
        self._retry = RETRY_FIRST
        self._cooling = Cooling(
            machine,
            activity,
            self.gate,
            lambda: list(self.disks.values()),
            self._stuck.__contains__,
            seconds=limits.cool,
        )
        self.comparing = Comparing(
            machine,
            joint,
            self.gate,
            self.gap,
            activity,
            self.windows,
            examiners,
            journal_limit=limits.journal,
            disks=lambda: self.disks,
            steady=self._steady,
            corrected=self._corrected,
        )
        self.scrub: Scrub = Scrub(machine, self._scrubbed(), scrub_note, limits.scrub)
        self._scrubs = False
        joint.on_settled = lambda _: self._trim.set()
        joint.on_lost = self._lost

    @property
    def journal(self) -> Journal:
        """The one that is written now."""
        return self.gate.stream

    def add(self, span: DiskSpan, source: LiveSource) -> LiveDisk:
        """Put a disk in its place; the activity log knows it already."""
        disk = self.disks[span.number] = LiveDisk(
            number=span.number,
            name=span.name,
            source=source,
            size=span.size,
            gate=self.gate,
            windows=self.windows,
            machine=self._machine,
            on_unread=self._unread,
            on_unsynced=self._unsynced,
            on_unsaid=self._unsaid,
        )
        return disk

    async def change(
        self, plan: DiskChange, sources: Mapping[int, LiveSource]
    ) -> tuple[LiveDisk, ...]:
        """Other disks from here on; ``sources`` are those of ``plan.fresh``.

        Nobody writes to the disks that go: they are returned, still open, and not used here any
        more. ``NoSpace``, ``StateError``: nothing has changed.
        """
        gone = tuple(self.disks[number] for number in plan.gone)
        self.comparing.changing = True
        self.comparing.cancel()
        try:
            async with self.comparing.lock, AsyncExitStack() as ends:
                for number in plan.grown:  # no write may have half seen the old size
                    disk = self.disks[number]
                    last = disk.size // BLOCK
                    await ends.enter_async_context(disk.locks.hold(last, last + 1))
                # First the log: whoever comes back to a disk that it has let go compares it all.
                await self.activity.change(plan.spans, fresh=plan.fresh)
                self._take_disks(plan, sources)
        finally:
            self.comparing.changing = False
            self._attention.set()
        await self._cooling.let_go()
        return gone

    def _take_disks(self, plan: DiskChange, sources: Mapping[int, LiveSource]) -> None:
        """In one step with the activity log. A gap begins before anything that it is about."""
        before = self._geometry()
        self.gap.drop({*plan.gone, *plan.fresh})
        self.comparing.full.difference_update(plan.gone)
        self.comparing.fresh = (self.comparing.fresh | set(plan.fresh)) - set(plan.gone)
        self._stuck.difference_update(plan.gone)
        kept, self.disks = self.disks, {}
        for span in plan.spans:
            if span.number in sources:
                self.add(span, sources[span.number])
            else:
                self.disks[span.number] = kept[span.number]
                self.disks[span.number].size = span.size
        if plan.reason:
            self.gate.stream.push(self.gate.gap_begin(plan.reason), 0)
        if self._geometry() != before:
            self.say_geometry()
        if plan.reason:
            self._gap_begins(plan.reason)

    def begin(self, reason: str) -> None:
        """The first records of a run: geometry, and a gap unless ``reason`` is empty."""
        self.say_geometry()
        if reason:
            self.open_gap(reason)

    def say_geometry(self) -> None:
        """The disks as they are from here on."""
        self.gate.stream.push(self.gate.control(Kind.GEOMETRY, {"disks": self._geometry()}), 0)

    def _geometry(self) -> list[list[int | str]]:
        return [[disk.number, disk.name, disk.size] for disk in self.disks.values()]

    def open_gap(self, reason: str) -> None:
        """From here on points are not consistent; whatever scans begins anew."""
        self.gate.stream.push(self.gate.gap_begin(reason), 0)
        self._gap_begins(reason)

    def rest(self, reason: str) -> None:
        """Only track what is written, because nobody is going to ship it; with "" journal again,
        and compare what was touched meanwhile."""
        if reason == self.resting:
            return
        self.resting = reason
        if reason and not self.gate.tracking:
            self.gate.track(reason)
        self._attention.set()

    async def resync(self, reason: str) -> None:
        """Compare everything again. Points are consistent when that is done."""
        for number in list(self.disks):
            if number in self.disks:
                regions = range(len(self.activity.pending[number]))
                await self.activity.heat(number, regions, track=True)
        self.gap.forget()
        if self.gate.tracking:
            return  # it is scanned when that ends
        if self.gap.is_open:
            self._gap_begins(reason)
        else:
            self.open_gap(reason)

    def durable(self, position: Position) -> None:
        """The journal tells how far it is durable."""
        self.gap.durable(position)
        self.marks.durable(position)
        self.joint.publish(self.marks.readable(position))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Capture until cancelled. A failing journal or scan is tried again, for ever."""
        async with trio.open_nursery() as nursery:
            self.nursery = self.activity.nursery = nursery
            nursery.start_soon(self._run_journal, self.journal)
            nursery.start_soon(self._cooling.run)
            nursery.start_soon(self._trim_journal)
            nursery.start_soon(self._keep)
            self.set_scrub(self.scrub.seconds)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self.activity.nursery = None

    def set_scrub(self, seconds: float) -> None:
        """Everything is compared again in so many seconds from now on; 0: never."""
        self.scrub.seconds = seconds
        if seconds and not self._scrubs:
            self._scrubs = True
            self.nursery.start_soon(self._scrub)

    async def close(self) -> bool:
        """Make everything durable; True if the next start need not compare anything that was not
        pending. No client is connected any more; what one left behind is finished first."""
        self._closing = True
        for disk in self.disks.values():
            disk.closed = True
            await disk.locks.passed()
        clean = not self._stuck
        self.marks.close()
        for disk in self.disks.values():
            try:
                await self._machine.offload.run(disk.source.file.fdatasync)
            except OSError:
                clean = False
        clean = await self._close_journal() and clean
        try:
            if self.gate.tracking:
                clean = clean and await self._pend_hot()
            clean = clean and not self.activity.unlogged
            identities = {number: disk.source.identity() for number, disk in self.disks.items()}
            await self.activity.close(identities=identities, clean=clean, in_gap=self.gap.is_open)
        except BackstayError as error:  # as after a kill: the next start compares
            self.trouble = str(error)
            return False
        return clean

    def to_scan(self) -> tuple[int, int]:
        """Regions that a scan must still look at, and all regions."""
        left = sum(len(regions) for _, regions in self.gap.todo(list(self.disks.values())))
        return left, sum(len(pending) for pending in self.activity.pending.values())

    # what happens

    def _tracking_begins(self, reason: str) -> None:
        if self.journal.failed is not None:
            self.marks.failed(self.journal.durable, reason)
        self._gap_begins(reason)

    def _gap_begins(self, reason: str) -> None:
        self.gap.begin(reason, self.gate.stream.head)
        self.marks.gap()
        self.comparing.cancel()
        self._attention.set()

    def _unread(self, disk: LiveDisk, first: int, stop: int, error: OSError) -> None:
        """Nobody knows what these blocks hold now (R4's suspect)."""
        regions = np.array(regions_of(first * BLOCK, (stop - first) * BLOCK), np.int64)
        self._suspect(disk, regions, f"{disk.name}: a write failed, and reading it back too")

    def _unsynced(self, disk: LiveDisk, error: OSError) -> None:
        """The source may have lost anything since its last good fsync (R5)."""
        if self.disks.get(disk.number) is not disk:
            return  # it is leaving, and its clients have left
        self._stuck.add(disk.number)
        hot = np.flatnonzero(np.asarray(self.activity.written[disk.number]))
        reason = f"{disk.name}: fsync failed ({error.strerror})"
        self._suspect(disk, hot, reason)

    def _unsaid(self, disk: LiveDisk, first: int, stop: int) -> None:
        """A scan that has dropped these blocks must look again (R8)."""
        if self.gap.is_open and self.disks.get(disk.number) is disk:
            regions = regions_of(first * BLOCK, (stop - first) * BLOCK)
            self.gap.again(disk.number, np.array(regions, np.int64))
            self._attention.set()

    def _suspect(self, disk: LiveDisk, regions: Ints, why: str) -> None:
        self.gap.again(disk.number, regions)
        if self.gate.tracking:
            return
        if self.gap.is_open:
            self._gap_begins(why)
        else:
            self.open_gap(why)

    async def _lost(self, reason: str) -> Position:
        """Delivery cannot read on from where it was: everything is compared (R3)."""
        for number in list(self.disks):
            if number in self.disks:
                regions = range(len(self.activity.pending[number]))
                await self.activity.heat(number, regions, track=True)
        position = self.gate.stream.head
        self.marks.skipped(reason)
        self.begin(reason)
        return position

    # bringing it back to normal

    async def _keep(self) -> None:
        while True:
            with trio.move_on_after(RETRY_MOST if self.resting else math.inf):
                await self._attention.wait()
            self._attention = trio.Event()
            try:
                if self.activity.unlogged:
                    await self.activity.renew()
                    self.activity.patience = self.limits.stall
                if self.gate.tracking and not self.resting:
                    await self._end_tracking()
                if self.gap.is_open and not self.gate.tracking:
                    await self.comparing.close_gap()
            except (BackstayError, OSError) as error:
                self.trouble = str(error)
                await self._machine.clock.sleep(self._retry)
                self._retry = min(self._retry * 2, RETRY_MOST)
            else:
                if not self.gap.is_open:
                    self.trouble, self._retry = "", RETRY_FIRST
            if self.gap.is_open and not (self.resting and self.gate.tracking):
                self._attention.set()

    async def _end_tracking(self) -> None:
        """Wait for what is queued to be shipped, then journal again (R9)."""
        if self.journal.failed is None:
            await self._drained()
            if not self.resting:
                await self.gate.resume(self.journal, self._tracked_until_now)
            return
        await self._written.wait()  # what hung may still arrive; it must not meet the recovery
        self.marks.failed(self.journal.durable, self.journal.failed.message)
        await self._pend_hot()
        journal = await self._open_journal(self.gate.stream.head.run)
        self._written = trio.Event()
        self.nursery.start_soon(self._run_journal, journal)
        await self.gate.resume(journal, lambda: None)
        self.begin(self.gap.reason)
        if self.resting:
            self.gate.track(self.resting)

    def _tracked_until_now(self) -> None:
        """A write that was admitted before tracking began may stand behind GAP_BEGIN, older than a
        tracked write of the same block: no scan may go by what the vault has before that (R3)."""
        self.gap.position = self.gate.stream.head

    async def _drained(self) -> None:
        """Delivery has caught up with the stream, as far as the limit asks for."""
        while self.gate.stream.retained > RESUME_SHARE * self.limits.journal:
            if self.joint.settled_at >= self.gate.stream.head:
                break  # what is retained is the rest of one file
            await self._machine.clock.sleep(0.2)
        if self.gap.position is not None:
            await self.joint.wait_committed(self.gap.position)

    async def _pend_hot(self) -> bool:
        """Every hot region is durably pending: the journal may have lost what was written there."""
        for number in list(self.disks):
            written = self.activity.written.get(number, ())
            hot = np.flatnonzero(np.asarray(written)).tolist()
            if hot:
                await self.activity.heat(number, hot, track=True)
        return True

    # the rolling scrub

    def _scrubbed(self) -> Host:
        return Host(
            steady=self._steady,
            disks=lambda: self.disks,
            file=lambda disk: self.disks[disk].source.file,
            hold=self.comparing.alone,
            head=lambda: self.gate.stream.head,
            yielding=self.comparing.yield_now,
            diverged=self._diverged,
            downstream=self.joint,
            windows=self.windows,
        )

    def _corrected(self) -> None:
        self.scrub.corrected()

    def _steady(self) -> bool:
        changes = self.comparing.changing or self._closing
        return not (self.gap.is_open or self.gate.tracking or changes)

    async def _scrub(self) -> None:
        try:
            await self.scrub.run()
        finally:
            self._scrubs = False

    async def _diverged(self, mismatch: Mismatch) -> None:
        """The source is not what was written to it. Durably pending first: a crash must not forget
        it."""
        with trio.CancelScope(shield=True):
            try:
                await self.activity.heat(mismatch.disk, [mismatch.region], track=True)
            except BackstayError as error:
                self.trouble = str(error)
        if self._closing:
            return  # what is pending is compared at the next start
        disk = self.disks[mismatch.disk]  # it cannot leave while this runs alone
        self._suspect(disk, np.array([mismatch.region], np.int64), f"scrub: {mismatch}")

    async def _run_journal(self, journal: Journal) -> None:
        written = self._written
        await journal.run()
        written.set()
        if journal.failed is not None and journal is self.gate.stream:
            self.gate.failed(journal.failed)

    async def _trim_journal(self) -> None:
        while True:
            await self._trim.wait()
            self._trim = trio.Event()
            await self.journal.trim(self.joint.settled_at)
            self.gate.room()

    async def _close_journal(self) -> bool:
        with trio.move_on_after(self.limits.stall):
            try:
                await self.journal.close()
            except JournalUnusable:
                return False
            return True
        return False
