"""Intake of one machine: its group, its journal and the sockets its disks are written through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import trio

from pipeline.exports import Exports
from pipeline.intake_disks import IntakeDisk, examiners_for
from pipeline.intake_status import IntakeStatus
from stages.cache.journal.recover import open_journal
from stages.cache.journal.writer import JournalLimits
from stages.capture.group.changing import Prepared, look_for_growth, prepare
from stages.capture.group.group import Group
from stages.capture.group.limits import Limits
from stages.capture.group.opening import JournalFound, NamedDisk, open_group
from stages.errors import IllegalOperation, SourceBusy
from stages.joint import Joint
from stages.ports import Machine
from stages.stream import REGION, MarkedPoint, Position

FILE_BYTES = 64 << 20


class MachineIntake:
    """One machine being captured. ``open`` it, then ``run`` until ``stop``."""

    def __init__(
        self, machine: Machine, name: str, group: Group, joint: Joint, disks: Sequence[IntakeDisk]
    ):
        self.name = name
        self.joint = joint
        self.group = group
        self._machine = machine
        self.disks = tuple(disks)
        self.ended = trio.Event()
        self.compared: tuple[str, ...] = ()
        self.closed = ""  # why no client may come; set before ``run``, or by ``close_listeners``
        self.at_end: Callable[[], None] = lambda: None  # everything of it was let go of
        self._exports = Exports()
        self._opening = trio.Lock()  # of the listeners: one who opens or closes at a time
        self._stop = trio.Event()
        self._shrunk = ""

    @staticmethod
    async def open(
        machine: Machine,
        folder: str,
        name: str,
        disks: Sequence[IntakeDisk],
        limits: Limits,
        *,
        journal: JournalLimits | None = None,
        witnesses: Sequence[str] = (),
    ) -> MachineIntake:
        """Recover what an earlier life left, and attach the disks; ``witnesses`` as ``open_group``
        takes them. Raises ``SourceError``s, ``StateError``, ``NoSpace``, ``OSError``."""
        joint = Joint()
        # Whole files are trimmed: several of them must fit below the limit.
        file_bytes = min(FILE_BYTES, max(1 << 20, limits.journal // 16))
        journal = journal or JournalLimits(file=file_bytes)

        async def opener(run: int, durable: Callable[[Position], None]) -> JournalFound:
            writer, found = await open_journal(
                machine, f"{folder}/journal", after_run=run, limits=journal, on_durable=durable
            )
            return JournalFound(writer, found.damaged, found.empty, found.torn > 0)

        named = [NamedDisk(disk.name, disk.path, disk.vouched) for disk in disks]
        group, compared = await open_group(
            machine,
            folder,
            named,
            joint,
            opener,
            examiners_for(machine, disks),
            limits,
            witnesses=witnesses,
        )
        intake = MachineIntake(machine, name, group, joint, disks)
        intake.compared = compared
        return intake

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the disks until ``stop``; then flush everything and say so in the activity log."""
        try:
            await self._run(task_status)
        finally:
            for disk in self.group.disks.values():
                disk.source.file.close()
            self.at_end()
            self.ended.set()

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.group.run)
            try:
                async with self._exports.serving():
                    await self._exports.listen([disk.listen for disk in self.disks])
                    await self._offer_all()
                    task_status.started()
                    await self._stop.wait()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                    await self.group.close()
                nursery.cancel_scope.cancel()

    async def prepare(self, disks: Sequence[IntakeDisk]) -> DisksToCome:
        """Look whether these can be the disks from now on, and hold what that takes. ``apply`` or
        ``close`` what is returned; one at a time. Raises ``SourceError``s, ``UsageError``."""
        named = [NamedDisk(disk.name, disk.path) for disk in disks]
        prepared = await prepare(self._machine, self.group, named)
        try:
            await self._exports.listen([disk.listen for disk in disks])
        except BaseException:
            prepared.close()
            raise
        return DisksToCome(self, prepared, tuple(disks))

    async def look(self) -> list[str]:
        """Take disks that have grown as they are now; returns what is new, for people."""
        prepared, self._shrunk = await look_for_growth(self._machine, self.group)
        if not prepared.changes:
            return []
        return await DisksToCome(self, prepared, self.disks).apply()

    async def close_listeners(self, reason: str, *, hang_up: bool = False) -> None:
        """Let no client in any more: what was written until then is all there will be. Raises
        ``SourceBusy`` if there are clients now, unless ``hang_up``. The journal goes on."""
        async with self._opening:
            clients = self._exports.connections
            if clients and not hang_up:
                raise SourceBusy(
                    f"{clients} connections to its disks are open",
                    operation="close listeners",
                    subject=self.name,
                    hint="stop the guest first",
                )
            self.closed = reason
            for name in list(self._exports.uris):
                await self._exports.withdraw(name)

    async def open_listeners(self) -> None:
        """Let clients in again. Raises ``UsageError`` if an address cannot be had."""
        async with self._opening:
            if self.closed:
                await self._exports.listen([disk.listen for disk in self.disks])
                self.closed = ""
                await self._offer_all()

    def stop(self) -> None:
        """Close the listeners, finish what is in flight, flush."""
        self._stop.set()

    def ready(self) -> bool:
        """No gap is open: a mark would become a point."""
        return not (self.group.gap.is_open or self.group.gate.tracking)

    async def mark(
        self,
        label: str,
        freeze: Callable[[], Awaitable[None]] | None = None,
        thaw: Callable[[], Awaitable[bool]] | None = None,
    ) -> MarkedPoint:
        """A recovery point now; see ``Marks.make``."""
        return await self.group.marks.make(label, freeze, thaw)

    async def mark_last(self, label: str) -> MarkedPoint:
        """The point behind the last write. ``IllegalOperation`` unless the listeners are closed."""
        if not self.closed or self._exports.connections:
            raise IllegalOperation(
                "its listeners are open: there may be more writes",
                operation="mark",
                subject=self.name,
            )
        return await self.group.marks.make(label, grade="planned")

    def arrange(self, *, rest: str, held: bool) -> None:
        """``rest``: why its writes are only tracked, "" to journal them. ``held``: scans wait."""
        self.group.keeping.rest(rest)
        self.group.comparing.hold(held=held)

    async def resync(self, reason: str) -> None:
        """Compare all of its disks again."""
        await self.group.doubts.resync(reason)

    def status(self) -> IntakeStatus:
        """An immutable snapshot."""
        group, stream = self.group, self.group.gate.stream
        state, reason = _state(group)
        # Without a gap there is nothing to scan: hundreds of machines are asked each second.
        total = sum(len(pending) for pending in group.activity.pending.values())
        pending = group.to_scan()[0] if group.gap.is_open else 0
        return IntakeStatus(
            machine=self.name,
            state=state,
            reason=reason,
            trouble=group.keeping.trouble or self._shrunk,
            unlogged=group.activity.unlogged,
            percent=100.0 * (1 - pending / total) if total else 100.0,
            head=stream.head,
            durable=stream.durable,
            committed=self.joint.committed_at,
            journal_bytes=stream.retained,
            journal_limit=group.limits.journal,
            hot_regions=group.activity.hot,
            delivering=self.joint.present,
            connections=self._exports.connections,
            disks=dict(self._exports.uris),
            compared=self.compared,
            scrub=group.scrub.status(),
            resting=bool(group.keeping.resting),
            held=group.comparing.held,
            closed=self.closed,
            scan_done=(total - pending) * REGION,
            scan_total=total * REGION,
            sizes={disk.name: disk.size for disk in group.disks.values()},
        )

    async def _offer_all(self) -> None:
        await self._offer({disk.name for disk in self.disks})

    async def _offer(self, names: Collection[str]) -> None:
        """Serve the disks of these names where they are to be served, if clients may come."""
        if self.closed:
            return
        disks = {disk.name: disk for disk in self.group.disks.values()}
        for disk in self.disks:
            if disk.name in names:
                await self._exports.offer(disks[disk.name], disk.listen)

    async def _change(self, prepared: Prepared, disks: tuple[IntakeDisk, ...]) -> list[str]:
        """See ``DisksToCome.apply``."""
        group, plan = self.group, prepared.plan
        before = {disk.name: disk for disk in self.disks}
        goes = {group.disks[number].name for number in plan.gone}
        known = {disk.number: (disk.name, disk.size) for disk in group.disks.values()}
        moves = {
            disk.name
            for disk in disks
            if disk.name in before and disk.listen != before[disk.name].listen
        }
        for name in (goes | moves) & set(self._exports.uris):
            await self._exports.withdraw(name)
        said: list[str] = []
        back = goes | moves
        try:
            if prepared.changes:
                group.comparing.examiners = examiners_for(self._machine, disks)
                said += await prepared.apply()
            self.disks = disks
            back = {disk.name for disk in disks} - set(self._exports.uris)
        finally:  # if it failed, what was served before is served again
            await self._offer(back)
        for number in plan.grown:
            if not self.closed:
                self._exports.renew(group.disks[number])
            name, size = known[number]
            said.append(
                f"{name}: has grown from {size} to {group.disks[number].size} bytes; "
                "connections made from now on see it"
            )
        kept = {disk.name for disk in disks}
        said += [f"{name}: not protected any more" for name in sorted(goes - kept)]
        said += [
            f"{name}: {self._exports.uris[name]}"
            for name in sorted(back)
            if name in self._exports.uris
        ]
        await self._exports.close_unused()
        return said


def _state(group: Group) -> tuple[str, str]:
    """What it does now, and why it does not just replicate."""
    if group.gate.tracking:
        return "tracking", group.gate.tracking
    if not group.gap.is_open:
        return "replicating", ""
    waiting, reason = group.comparing.waiting, group.gap.reason
    if waiting:
        return "waiting to scan", f"{reason}; {waiting}"
    return "waiting to scan" if group.comparing.scan is None else "scanning", reason


@dataclass
class DisksToCome:
    """Other disks for a machine, ready to be taken. Made by ``MachineIntake.prepare``."""

    intake: MachineIntake
    prepared: Prepared
    disks: tuple[IntakeDisk, ...]

    async def apply(self) -> list[str]:
        """Take them; returns what is new, for people. Clients of disks that go, or are served
        elsewhere from now on, are disconnected; others notice nothing. ``NoSpace``, ``StateError``:
        the disks are what they were."""
        return await self.intake._change(self.prepared, self.disks)

    async def close(self) -> None:
        """Let go of what was not taken."""
        self.prepared.close()
        await self.intake._exports.close_unused()
