"""Intake of one machine: its group, its journal and the sockets its disks are written through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import trio

from stages.cache.journal.recover import open_journal
from stages.cache.journal.writer import JournalLimits
from stages.capture.examiner import Examiners, InlineExaminers
from stages.capture.group.group import Group, Limits
from stages.capture.group.opening import JournalFound, NamedDisk, open_group
from stages.capture.pool import ProcessExaminers
from stages.capture.splitter.handler import SplitHandler
from stages.errors import BackstayError
from stages.joint import Joint
from stages.nbd.listening import parse_address
from stages.nbd.server import NbdServer
from stages.nbd.session import Limits as NbdLimits
from stages.ports import Machine
from stages.stream import MarkedPoint, Position
from stages.system import SocketCalls

GIB = 1 << 30
_LARGE = 1 << 30  # disks above this are scanned with helper processes
FILE_BYTES = 64 << 20
_NBD = NbdLimits(buffers=4, stall_seconds=300.0)


@dataclass(frozen=True, slots=True)
class IntakeDisk:
    """A disk to capture; ``listen`` is an address of ``stages.nbd.listening``."""

    name: str
    path: str
    listen: str


@dataclass(frozen=True, slots=True)
class IntakeStatus:
    """A snapshot. Bytes and µs; ``percent`` of the scan; ``reason`` of the gap or the tracking;
    ``unlogged``: why the state folder cannot be written, while it cannot."""

    machine: str
    state: str
    reason: str
    trouble: str
    unlogged: str
    percent: float
    head: Position
    durable: Position
    committed: Position
    journal_bytes: int
    journal_limit: int
    hot_regions: int
    delivering: bool
    connections: int
    disks: dict[str, str]
    compared: tuple[str, ...]

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class MachineIntake:
    """One machine being captured. ``open`` it, then ``run`` until ``stop``."""

    def __init__(
        self, machine: Machine, name: str, group: Group, joint: Joint, disks: Sequence[IntakeDisk]
    ):
        self.name = name
        self.joint = joint
        self.group = group
        self._machine = machine
        self._disks = tuple(disks)
        self._servers: dict[str, NbdServer] = {}
        self._uris: dict[str, str] = {}
        self._stop = trio.Event()
        self.compared: tuple[str, ...] = ()

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

        named = [NamedDisk(disk.name, disk.path) for disk in disks]
        group, compared = await open_group(
            machine,
            folder,
            named,
            joint,
            opener,
            _examiners(machine, disks),
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

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.group.run)
            try:
                async with trio.open_nursery() as serving:
                    await self._serve(serving)
                    task_status.started()
                    await self._stop.wait()
                    for server in self._servers.values():
                        server.stop()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                    await self.group.close()
                nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Close the listeners, finish what is in flight, flush."""
        self._stop.set()

    async def mark(
        self,
        label: str,
        freeze: Callable[[], Awaitable[None]] | None = None,
        thaw: Callable[[], Awaitable[bool]] | None = None,
    ) -> MarkedPoint:
        """A recovery point now; see ``Marks.make``."""
        return await self.group.marks.make(label, freeze, thaw)

    def status(self) -> IntakeStatus:
        """An immutable snapshot."""
        group, stream = self.group, self.group.gate.stream
        tracking, reason = group.gate.tracking, group.gap.reason
        if tracking:
            state, reason = "tracking", tracking
        elif group.gap.is_open:
            state = "scanning" if group.scan is not None else "waiting to scan"
        else:
            state, reason = "replicating", ""
        pending, total = group.to_scan()
        return IntakeStatus(
            machine=self.name,
            state=state,
            reason=reason,
            trouble=group.trouble,
            unlogged=group.activity.unlogged,
            percent=100.0 * (1 - pending / total) if total else 100.0,
            head=stream.head,
            durable=stream.durable,
            committed=self.joint.committed_at,
            journal_bytes=stream.retained,
            journal_limit=group.limits.journal,
            hot_regions=group.activity.hot,
            delivering=self.joint.present,
            connections=sum(server.statistics().open for server in self._servers.values()),
            disks=dict(self._uris),
            compared=self.compared,
        )

    async def _serve(self, serving: trio.Nursery) -> None:
        by_address: dict[str, list[str]] = {}
        for disk in self._disks:
            by_address.setdefault(disk.listen, []).append(disk.name)
        handlers = {
            disk.name: SplitHandler(disk, self.group.nursery) for disk in self.group.disks.values()
        }
        for text, names in by_address.items():
            server = NbdServer([handlers[name] for name in names], limits=_NBD, quick=SocketCalls())
            self._servers[text] = server
            bound = await serving.start(partial(server.run, parse_address(text)))
            self._uris.update({name: bound.uri(name) for name in names})


def _examiners(machine: Machine, disks: Sequence[IntakeDisk]) -> Examiners:
    """Hashing holds the interpreter lock, which guests wait for: large disks get a process."""
    allocated = 0
    for disk in disks:
        try:
            stat = machine.files.stat(disk.path)
        except OSError:
            continue
        if stat is not None:
            allocated += stat.size if stat.is_block else stat.allocated
    if allocated < _LARGE:
        return InlineExaminers(machine.offload, batch=4 << 20, slots=2)
    return ProcessExaminers(1, batch=4 << 20)


def journal_limit(machine: Machine, folder: str, disks: Sequence[IntakeDisk]) -> int:
    """``auto``: at least 16 GiB and half of the disks, but at most 70% of what is free there."""
    sizes = 0
    for disk in disks:
        try:
            stat = machine.files.stat(disk.path)
        except OSError as error:
            raise BackstayError(error.strerror or str(error), subject=disk.path) from error
        sizes += stat.size if stat is not None else 0
    free = machine.files.free_bytes(folder)
    return max(64 << 20, min(max(16 * GIB, sizes // 2), free * 7 // 10))
