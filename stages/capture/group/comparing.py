"""The scans that close a gap: what is pending is compared, then the gap is over (R3, R8).

What is little is scanned at once. A disk that has to be read in full may have to wait for its time,
if there is a ``permit`` to be asked; and scans can be held altogether.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio

from stages.capture.activity.log import ActivityLog
from stages.capture.examiner import Examiners
from stages.capture.group.gap import Gap
from stages.capture.live.scanner import LiveTarget, Scanner
from stages.capture.live.windows import Windows
from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.gate import Gate
from stages.joint import Joint
from stages.ports import Machine
from stages.stream import DeliveryGone, JournalUnusable, Kind

FULL_REGIONS = 256  # 1 GiB: what is less is compared at once, whatever a policy says
ASK_SECONDS = 20.0  # between two questions whether a full scan may go on
SCAN_SHARE = 0.5  # of the journal's limit: scans stop there (R8)

Found = TypeVar("Found")
Todo = list[tuple[int, list[int]]]  # regions by disk
Permit = Callable[[bool], Awaitable[str]]
"""May a disk be scanned in full now? What it waits for, or "". True: the vault never saw it."""


class Comparing:
    """Of one group. ``disks``: by number, as they are now. ``steady``: nothing is to be scanned,
    and nothing changes. ``corrected`` is called when a gap is over."""

    def __init__(
        self,
        machine: Machine,
        joint: Joint,
        gate: Gate,
        gap: Gap,
        activity: ActivityLog,
        windows: Windows,
        examiners: Examiners,
        *,
        journal_limit: int,
        disks: Callable[[], Mapping[int, LiveDisk]],
        steady: Callable[[], bool],
        corrected: Callable[[], None],
    ):
        self.scan: Scanner | None = None
        self.permit: Permit | None = None
        self.fresh: set[int] = set()  # disks that the vault has never seen
        self.waiting = ""  # what a full scan waits for
        self.full: set[int] = set()  # disks most of which is compared in this gap
        self.changing = False  # the group's disks: scans make way
        self.scope: trio.CancelScope | None = None  # of the scan under way
        self.lock = trio.Lock()
        self._released = trio.Event()  # scans may go on
        self._released.set()
        self._machine = machine
        self._joint = joint
        self._gate = gate
        self._gap = gap
        self._activity = activity
        self._windows = windows
        self.examiners = examiners
        self._journal_limit = journal_limit
        self._disks = disks
        self._steady = steady
        self._corrected = corrected

    def cancel(self) -> None:
        """What is being scanned now begins anew."""
        if self.scope is not None:
            self.scope.cancel()

    @property
    def held(self) -> bool:
        """Scans wait until they are released."""
        return not self._released.is_set()

    def hold(self, *, held: bool) -> None:
        """Keep scans from going on; what is being scanned now is scanned again later."""
        if held == self.held:
            return
        if not held:
            self._released.set()
            return
        self._released = trio.Event()
        self.cancel()

    async def close_gap(self) -> None:
        """Scan what is pending, then say that the gap is over."""
        async with self.lock:
            if not self.changing:
                await self._scan_and_end()

    async def alone(self, call: Callable[[], Awaitable[Found]]) -> Found | None:
        """Neither a scan nor a change of disks beside it: either cancels it. None: it was."""
        async with self.lock:
            if not self._steady():
                return None
            self.scope = trio.CancelScope()
            try:
                with self.scope:
                    return await call()
            finally:
                self.scope = None
        return None

    async def _scan_and_end(self) -> None:
        self.scope = trio.CancelScope()
        with self.scope:
            try:
                await self._scan_pending()
            except DeliveryGone:
                return
            except JournalUnusable as error:
                self._gate.failed(error)
            finally:
                self.scope = None
                self.scan = None
                self.waiting = ""
        if not self._gap.is_open:
            head = self._gate.stream.head
            await self._gate.sync(head)
            if not self._gap.is_open:
                await self._activity.set_gap(False)

    async def _scan_pending(self) -> None:
        if self._gap.position is None:
            return
        await self._joint.wait_committed(self._gap.position)
        await self._joint.wait_present()
        await self._released.wait()
        while todo := await self._todo():
            todo = await self._allowed(todo)
            if not todo:
                continue
            targets = {
                number: LiveTarget(disk.size, disk.source.file)
                for number, disk in self._disks().items()
            }
            self.scan = Scanner(
                targets,
                stream=self._gate.stream,
                downstream=self._joint,
                examiners=self.examiners,
                machine=self._machine,
                windows=self._windows,
                locked=lambda disk, first, count: self._disks()[disk].locked(first, count),
                yielding=self._yield_in_full if self._are_full(todo) else self.yield_now,
                on_scanned=self._gap.scanned,
            )
            await self.scan.scan(todo)
        # No await since the last look: nothing is left, unless the gap has begun anew in it.
        if self.scope is not None and not self.scope.cancel_called:
            self._end_gap()

    async def _allowed(self, todo: Todo) -> Todo:
        """What of it may be scanned now: what is little first. Waits a while if nothing may."""
        for number, regions in todo:
            if len(regions) > max(FULL_REGIONS, len(self._activity.pending[number]) // 2):
                self.full.add(number)
        little = [one for one in todo if one[0] not in self.full]
        if little or self.permit is None:
            return little or todo
        new = [one for one in todo if one[0] in self.fresh]
        for some, fresh in ((new, True), (todo, False)):
            if some and not await self._permitted(fresh=fresh):
                return some
        await self._machine.clock.sleep(ASK_SECONDS)
        return []

    def _are_full(self, todo: Todo) -> bool:
        return self.permit is not None and any(number in self.full for number, _ in todo)

    async def _permitted(self, *, fresh: bool) -> str:
        """What full scans wait for, or ""."""
        self.waiting = "" if self.permit is None else await self.permit(fresh)
        return self.waiting

    async def yield_now(self) -> None:
        """Scans leave half of the journal to guests (R8), and go to the end of the queue."""
        await trio.lowlevel.checkpoint()
        while self._gate.stream.retained > SCAN_SHARE * self._journal_limit:
            await self._machine.clock.sleep(0.1)

    async def _yield_in_full(self) -> None:
        """A scan that takes long stops when its time is over."""
        await self.yield_now()
        while await self._permitted(fresh=self.full <= self.fresh):
            await self._machine.clock.sleep(ASK_SECONDS)

    async def _todo(self) -> Todo:
        """What is still to be scanned. No await between the last look and the return.

        A block that was locked when its region was scanned is left to whoever holds it, and its
        record has to stand before GAP_END too (R8).
        """
        disks = list(self._disks().values())
        todo = self._gap.todo(disks)
        if not todo and any(disk.locks.busy for disk in disks):
            for disk in disks:
                await disk.locks.passed()
            todo = self._gap.todo(list(self._disks().values()))
        return todo

    def _end_gap(self) -> None:
        self._gate.stream.push(self._gate.control(Kind.GAP_END, {"grade": "crash"}), 0)
        self._gap.end()
        self._corrected()
        self.fresh.clear()
        self.full.clear()
