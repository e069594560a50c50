"""A group being captured: gate, gap, scans, cooling and marks, from attaching to a clean stop.

Everything that opens a gap does so at once (``doubts``) and wakes the task that brings the group
back to normal (``keeping``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import numpy as np
import trio

from stages.capture.activity.codec import DiskSpan
from stages.capture.activity.log import ActivityLog
from stages.capture.examiner import Examiners
from stages.capture.group.attach import DiskChange
from stages.capture.group.comparing import Comparing
from stages.capture.group.cooling import Cooling
from stages.capture.group.doubts import Doubts
from stages.capture.group.gap import Gap
from stages.capture.group.keeping import Keeping, OpenJournal
from stages.capture.group.limits import Limits
from stages.capture.group.marks import Marks
from stages.capture.live.scrub import Host, Mismatch, Scrub
from stages.capture.live.windows import Windows
from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.gate import Gate
from stages.capture.splitter.source import LiveSource
from stages.errors import BackstayError
from stages.joint import Joint
from stages.model import BLOCK
from stages.ports import Machine
from stages.stream import Journal, Position


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
        self.nursery: trio.Nursery
        self._machine = machine
        self._closing = False
        self._scrubs = False
        # Each part is made of those before it.
        self.gate = self._gate(journal)
        self.marks = Marks(joint, self.gate, self.gap)
        self.doubts = self._doubts()
        self.comparing = self._comparing(examiners)
        self.keeping = self._keeping(open_journal)
        self._cooling = self._cooler()
        self.scrub: Scrub = Scrub(machine, self._scrubbed(), scrub_note, limits.scrub)
        joint.on_lost = self.doubts.lost

    def _gate(self, journal: Journal) -> Gate:
        return Gate(
            journal,
            self.activity,
            self._machine.clock,
            limit=self.limits.journal,
            throttle=self.limits.throttle,
            stall=self.limits.stall,
            on_track=self._tracking_begins,
        )

    def _doubts(self) -> Doubts:
        return Doubts(
            self.gate,
            self.gap,
            self.marks,
            self.activity,
            lambda: self.disks,
            begun=self._gap_begun,
            again=self._again,
        )

    def _comparing(self, examiners: Examiners) -> Comparing:
        return Comparing(
            self._machine,
            self.joint,
            self.gate,
            self.gap,
            self.activity,
            self.windows,
            examiners,
            journal_limit=self.limits.journal,
            disks=lambda: self.disks,
            steady=self._steady,
            corrected=self._corrected,
        )

    def _keeping(self, open_journal: OpenJournal) -> Keeping:
        return Keeping(
            self._machine,
            self.joint,
            self.gate,
            self.gap,
            self.marks,
            self.activity,
            self.doubts,
            self.comparing,
            open_journal,
            stall=self.limits.stall,
        )

    def _cooler(self) -> Cooling:
        return Cooling(
            self._machine,
            self.activity,
            self.gate,
            lambda: list(self.disks.values()),
            self.doubts.stuck.__contains__,
            seconds=self.limits.cool,
        )

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
            on_unread=self.doubts.unread,
            on_unsynced=self.doubts.unsynced,
            on_unsaid=self.doubts.unsaid,
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
            self.keeping.wake()
        await self._cooling.let_go()
        return gone

    def _take_disks(self, plan: DiskChange, sources: Mapping[int, LiveSource]) -> None:
        """In one step with the activity log. A gap begins before anything that it is about."""
        before = self.doubts.geometry()
        self.gap.drop({*plan.gone, *plan.fresh})
        self.comparing.full.difference_update(plan.gone)
        self.comparing.fresh = (self.comparing.fresh | set(plan.fresh)) - set(plan.gone)
        self.doubts.stuck.difference_update(plan.gone)
        kept, self.disks = self.disks, {}
        for span in plan.spans:
            if span.number in sources:
                self.add(span, sources[span.number])
            else:
                self.disks[span.number] = kept[span.number]
                self.disks[span.number].size = span.size
        if plan.reason:
            self.gate.stream.push(self.gate.gap_begin(plan.reason), 0)
        if self.doubts.geometry() != before:
            self.doubts.say_geometry()
        if plan.reason:
            self.doubts.gap_begins(plan.reason)

    def durable(self, position: Position) -> None:
        """The journal tells how far it is durable."""
        self.gap.durable(position)
        self.marks.durable(position)
        self.joint.publish(self.marks.readable(position))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Capture until cancelled. A failing journal or scan is tried again, for ever."""
        async with trio.open_nursery() as nursery:
            self.nursery = self.activity.nursery = nursery
            self.keeping.start(nursery)
            nursery.start_soon(self._cooling.run)
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
        clean = not self.doubts.stuck
        self.marks.close()
        for disk in self.disks.values():
            try:
                await self._machine.offload.run(disk.source.file.fdatasync)
            except OSError:
                clean = False
        clean = await self.keeping.close_journal() and clean
        try:
            if self.gate.tracking:
                await self.doubts.pend_hot()
            clean = clean and not self.activity.unlogged
            identities = {number: disk.source.identity() for number, disk in self.disks.items()}
            await self.activity.close(identities=identities, clean=clean, in_gap=self.gap.is_open)
        except BackstayError as error:  # as after a kill: the next start compares
            self.keeping.trouble = str(error)
            return False
        return clean

    def to_scan(self) -> tuple[int, int]:
        """Regions that a scan must still look at, and all regions."""
        left = sum(len(regions) for _, regions in self.gap.todo(list(self.disks.values())))
        return left, sum(len(pending) for pending in self.activity.pending.values())

    # what happens

    def _tracking_begins(self, reason: str) -> None:
        self.doubts.tracking_begins(reason)

    def _again(self) -> None:
        self.keeping.wake()

    def _corrected(self) -> None:
        self.scrub.corrected()

    def _gap_begun(self) -> None:
        self.comparing.cancel()
        self.keeping.wake()

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
                self.keeping.trouble = str(error)
        if self._closing:
            return  # what is pending is compared at the next start
        disk = self.disks[mismatch.disk]  # it cannot leave while this runs alone
        self.doubts.suspect(disk, np.array([mismatch.region], np.int64), f"scrub: {mismatch}")
