"""The task that brings a group back to normal, whatever happened, and those that move its journal.

While writes are tracked it waits until they can be journalled again; while a gap is open it scans
and closes it. What fails is tried again, for ever.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from stages.capture.activity.log import ActivityLog
from stages.capture.group.comparing import Comparing
from stages.capture.group.doubts import Doubts
from stages.capture.group.gap import Gap
from stages.capture.group.marks import Marks
from stages.capture.splitter.gate import Gate
from stages.errors import BackstayError
from stages.joint import Joint
from stages.ports import Machine
from stages.stream import Journal, JournalUnusable

RETRY_FIRST, RETRY_MOST = 1.0, 60.0  # seconds between attempts to scan or to open a journal
RESUME_SHARE = 0.25  # of the journal's limit: tracking ends when no more than this is retained
_LOOK = 0.2  # seconds between two looks at how much is retained

OpenJournal = Callable[[int], Awaitable[Journal]]
"""Opens the journal with a run after the one given; raises ``BackstayError`` or ``OSError``."""


class Keeping:
    """Of one group. ``run`` until it is cancelled, then ``close_journal``."""

    def __init__(
        self,
        machine: Machine,
        joint: Joint,
        gate: Gate,
        gap: Gap,
        marks: Marks,
        activity: ActivityLog,
        doubts: Doubts,
        comparing: Comparing,
        open_journal: OpenJournal,
        *,
        stall: float,
    ):
        self.trouble = ""  # why a scan or the journal is being tried again
        self.resting = ""  # why writes are to be tracked for now, whatever the journal could do
        self._machine = machine
        self._joint = joint
        self._gate = gate
        self._gap = gap
        self._marks = marks
        self._activity = activity
        self._doubts = doubts
        self._comparing = comparing
        self._open_journal = open_journal
        self._stall = stall
        self._nursery: trio.Nursery
        self._written = trio.Event()  # nothing writes to a journal that has failed any more
        self._attention = trio.Event()
        self._settled = trio.Event()
        self._retry = RETRY_FIRST
        joint.on_settled = lambda _: self._settled.set()

    def wake(self) -> None:
        """There is something to bring back to normal."""
        self._attention.set()

    def rest(self, reason: str) -> None:
        """Only track what is written, because nobody is going to ship it; with "" journal again,
        and compare what was touched meanwhile."""
        if reason == self.resting:
            return
        self.resting = reason
        if reason and not self._gate.tracking:
            self._gate.track(reason)
        self.wake()

    def start(self, nursery: trio.Nursery) -> None:
        """Run in ``nursery`` until it is cancelled."""
        self._nursery = nursery
        nursery.start_soon(self._run_journal, self._gate.stream)
        nursery.start_soon(self._trim_journal)
        nursery.start_soon(self._keep)

    async def close_journal(self) -> bool:
        """True if everything that was journalled is durable."""
        with trio.move_on_after(self._stall):
            try:
                await self._gate.stream.close()
            except JournalUnusable:
                return False
            return True
        return False

    async def _keep(self) -> None:
        while True:
            with trio.move_on_after(RETRY_MOST if self.resting else math.inf):
                await self._attention.wait()
            self._attention = trio.Event()
            try:
                await self._attempt()
            except (BackstayError, OSError) as error:
                self.trouble = str(error)
                await self._machine.clock.sleep(self._retry)
                self._retry = min(self._retry * 2, RETRY_MOST)
            else:
                if not self._gap.is_open:
                    self.trouble, self._retry = "", RETRY_FIRST
            if self._gap.is_open and not (self.resting and self._gate.tracking):
                self.wake()

    async def _attempt(self) -> None:
        if self._activity.unlogged:
            await self._activity.renew()
            self._activity.patience = self._stall
        if self._gate.tracking and not self.resting:
            await self._end_tracking()
        if self._gap.is_open and not self._gate.tracking:
            await self._comparing.close_gap()

    async def _end_tracking(self) -> None:
        """Wait for what is queued to be shipped, then journal again (R9)."""
        stream = self._gate.stream
        if stream.failed is None:
            await self._drained()
            if not self.resting:
                await self._gate.resume(self._gate.stream, self._tracked_until_now)
            return
        await self._written.wait()  # what hung may still arrive; it must not meet the recovery
        self._marks.failed(stream.durable, stream.failed.message)
        await self._doubts.pend_hot()
        journal = await self._open_journal(stream.head.run)
        self._written = trio.Event()
        self._nursery.start_soon(self._run_journal, journal)
        await self._gate.resume(journal, lambda: None)
        self._doubts.begin(self._gap.reason)
        if self.resting:
            self._gate.track(self.resting)

    def _tracked_until_now(self) -> None:
        """A write that was admitted before tracking began may stand behind GAP_BEGIN, older than a
        tracked write of the same block: no scan may go by what the vault has before that (R3)."""
        self._gap.position = self._gate.stream.head

    async def _drained(self) -> None:
        """Delivery has caught up with the stream, as far as the limit asks for."""
        gate = self._gate
        while gate.stream.retained > RESUME_SHARE * gate.limit:
            if self._joint.settled_at >= gate.stream.head:
                break  # what is retained is the rest of one file
            await self._machine.clock.sleep(_LOOK)
        if self._gap.position is not None:
            await self._joint.wait_committed(self._gap.position)

    async def _run_journal(self, journal: Journal) -> None:
        written = self._written
        await journal.run()
        written.set()
        if journal.failed is not None and journal is self._gate.stream:
            self._gate.failed(journal.failed)

    async def _trim_journal(self) -> None:
        while True:
            await self._settled.wait()
            self._settled = trio.Event()
            await self._gate.stream.trim(self._joint.settled_at)
            self._gate.room()
