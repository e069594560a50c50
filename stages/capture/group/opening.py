"""Attaching a group: its sources, and the journal and activity log of an earlier life (R6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stages.capture.activity.codec import DiskFound, Found, SourceId
from stages.capture.activity.log import ActivityLog, look
from stages.capture.activity.witness import Witness, beside
from stages.capture.examiner import Examiners
from stages.capture.group.attach import Attached, DiskNow, attach
from stages.capture.group.group import Group
from stages.capture.group.limits import Limits
from stages.capture.splitter.source import LiveSource, open_live
from stages.errors import SourceShrunk
from stages.joint import Joint
from stages.ports import Files, Machine
from stages.stream import Journal, Position

ACTIVITY = "activity"
SCRUB = "scrub"


@dataclass(frozen=True, slots=True)
class NamedDisk:
    """A disk of the configuration. ``vouched``: nobody has written to it since the last stop, says
    the operator."""

    name: str
    path: str
    vouched: bool = False


@dataclass(frozen=True, slots=True)
class JournalFound:
    """A journal opened for a new run: what is wrong with what an earlier life left, if anything.

    ``empty``: no earlier life left anything. ``torn``: its end was cut off, as after a crash.
    """

    journal: Journal
    damaged: str
    empty: bool
    torn: bool = False


Opener = Callable[[int, Callable[[Position], None]], Awaitable[JournalFound]]
"""Opens the journal with a run after the one given; the callback hears what is durable."""


async def open_group(
    machine: Machine,
    folder: str,
    disks: Sequence[NamedDisk],
    joint: Joint,
    opener: Opener,
    examiners: Examiners,
    limits: Limits,
    *,
    witnesses: Sequence[str] = (),
) -> tuple[Group, tuple[str, ...]]:
    """The group with its disks open and its first records in the stream; and what will be compared,
    and why. ``witnesses``: where one may stand besides the disks' own folders. Raises
    ``SourceError``s, ``StateError``, ``NoSpace``, ``OSError``."""
    files, offload = machine.files, machine.offload
    path = f"{folder}/{ACTIVITY}"
    witness = Witness(files, [*map(beside, _images(files, disks)), *witnesses], folder)
    unlogged = await offload.run(witness.look)
    found = await offload.run(lambda: look(files, path))
    sources: dict[str, LiveSource] = {}
    group: Group | None = None

    def durable(position: Position) -> None:
        if group is not None:
            group.durable(position)

    try:
        for disk in disks:
            sources[disk.name] = await offload.run(lambda: open_live(files, disk.path))  # noqa: B023
        noted = {d.span.name: d for d in found.disks} if found and found.valid else {}
        now = [_as_found(disk, sources[disk.name], noted.get(disk.name)) for disk in disks]
        after = found.run if found is not None else 0
        opened = await opener(after, durable)
        plan = attach(
            found,
            now,
            journal_damaged=_damage(opened, found),
            journal_lost=opened.empty and after > 0,
            unlogged=unlogged,
        )
        run = opened.journal.head.run
        activity = await _begin(machine, path, run, plan, witness, limits.stretch)
        if unlogged:
            await offload.run(witness.remove)

        async def reopen(run: int) -> Journal:
            return (await opener(run, durable)).journal

        scrub = f"{folder}/{SCRUB}"
        group = Group(machine, joint, activity, opened.journal, reopen, examiners, limits, scrub)
        for span in plan.spans:
            group.add(span, sources[span.name])
        group.comparing.fresh = {span.number for span in plan.spans if span.name not in noted}
        group.doubts.begin("; ".join(plan.reasons) or "scan" if plan.in_gap else "")
    except BaseException:
        for source in sources.values():
            source.file.close()
        raise
    return group, plan.reasons


def _images(files: Files, disks: Sequence[NamedDisk]) -> list[str]:
    """The paths of those disks that are files; what is wrong with one is told when it is opened."""
    found = []
    for disk in disks:
        with suppress(OSError):
            stat = files.stat(disk.path)
            if stat is not None and stat.is_file:
                found.append(disk.path)
    return found


def _as_found(disk: NamedDisk, source: LiveSource, before: DiskFound | None) -> DiskNow:
    """A disk as it is now, against ``before``, what the log of an earlier life says of it.

    Blocks. Raises ``SourceShrunk``, ``OSError``.
    """
    check_size(disk.path, source.size, 0 if before is None else before.span.size)
    unchanged = source.unchanged_since(before.identity if before else None)
    return DiskNow(disk.name, source.size, unchanged, source_id(source, disk.path), disk.vouched)


def _damage(opened: JournalFound, found: Found | None) -> str:
    """What is wrong with the journal, if anything. After a clean end no tail can be torn."""
    if not opened.damaged and opened.torn and found is not None and found.clean:
        return "it ended whole, and does not any more"
    return opened.damaged


async def _begin(
    machine: Machine, path: str, run: int, plan: Attached, witness: Witness, stretch: int
) -> ActivityLog:
    return await ActivityLog.begin(
        machine,
        path,
        run=run,
        disks=plan.spans,
        pending=plan.pending,
        in_gap=plan.in_gap,
        next_disk=plan.next_disk,
        stretch=stretch,
        witness=witness,
    )


def source_id(source: LiveSource, path: str) -> SourceId:
    """Which file or device it is, as ``path`` names it. Blocks; ``OSError``."""
    stat = source.file.stat()
    return SourceId(path, stat.device, stat.inode, source.is_block)


def check_size(path: str, size: int, known: int) -> None:
    """A disk never shrinks. Raises ``SourceShrunk``."""
    if size >= known:
        return
    raise SourceShrunk(
        f"has {size} bytes, {known} are protected",
        operation="open disk",
        subject=path,
        hint="if it was made smaller on purpose, give it a new name in the config; else the path "
        "may name another disk",
    )
