"""Other disks for a running group: everything that may be refused is done before anything changes.

A disk is known by its name. One that has another source than before is compared in full, as it
would be at a start; one that has become larger is compared where it is new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.capture.group.attach import DiskChange, DiskNow, change
from stages.capture.group.group import Group
from stages.capture.group.opening import NamedDisk, check_size, source_id
from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.source import LiveSource, open_live
from stages.errors import SourceBusy, SourceIO
from stages.ports import Machine


@dataclass
class Prepared:
    """A change that can be made: its new sources are open and locked. ``apply`` or ``close`` it."""

    group: Group
    plan: DiskChange
    sources: Mapping[int, LiveSource]
    machine: Machine
    _applied: bool = field(default=False, init=False)

    @property
    def changes(self) -> bool:
        """Something is different."""
        return self.plan.spans != self.group.activity.spans or bool(self.plan.fresh)

    async def apply(self) -> list[str]:
        """Make it so; clients of what goes have left. Returns what went wrong with what goes.

        ``NoSpace``, ``StateError``: nothing has changed.
        """
        gone = [self.group.disks[number] for number in self.plan.gone]
        complaints = [said for disk in gone if (said := await self._synced(disk))]
        await self.group.change(self.plan, self.sources)
        self._applied = True
        for disk in gone:
            disk.source.file.close()
        return complaints

    def close(self) -> None:
        """Let go of what was not applied."""
        if not self._applied:
            for source in self.sources.values():
                source.file.close()

    async def _synced(self, disk: LiveDisk) -> str:
        try:
            await self.machine.offload.run(disk.source.file.fdatasync)
        except OSError as error:
            return f"{disk.name}: fsync failed when it was removed ({error.strerror})"
        return ""


async def prepare(machine: Machine, group: Group, disks: Sequence[NamedDisk]) -> Prepared:
    """Look at the disks that a running group is to have, and open those that are new to it.

    Raises ``SourceError``s: then nothing was touched.
    """
    ours = {disk.name: disk for disk in group.disks.values()}
    found: list[DiskNow] = []
    opened: dict[str, LiveSource] = {}
    try:
        for disk in disks:
            now, source = await machine.offload.run(
                lambda: _look(machine, disk, ours)  # noqa: B023
            )
            found.append(now)
            if source is not None:
                opened[disk.name] = source
        activity = group.activity
        plan = change(activity.spans, found, activity.next_disk)
    except BaseException:
        for source in opened.values():
            source.file.close()
        raise
    sources = {span.number: opened[span.name] for span in plan.spans if span.name in opened}
    return Prepared(group, plan, sources, machine)


def _look(
    machine: Machine, disk: NamedDisk, ours: Mapping[str, LiveDisk]
) -> tuple[DiskNow, LiveSource | None]:
    """A disk as it is, and its source, if that is not the one that is open. In a thread."""
    try:
        held = _holder(machine, disk, ours)
        if held is not None:
            size = held.source.size_now()
            check_size(disk.path, size, held.size)
            identity = source_id(held.source, disk.path)
            return DiskNow(disk.name, size, True, identity), None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceIO(reason, operation="look at disk", subject=disk.path) from error
    source = open_live(machine.files, disk.path)
    try:
        before = ours.get(disk.name)
        check_size(disk.path, source.size, 0 if before is None else before.size)
        return DiskNow(disk.name, source.size, False, source_id(source, disk.path)), source
    except BaseException:
        source.file.close()
        raise


def _holder(machine: Machine, disk: NamedDisk, ours: Mapping[str, LiveDisk]) -> LiveDisk | None:
    """The disk of this name, if its source is what the path names. Raises ``SourceBusy`` if that
    is the source of another one."""
    there = machine.files.stat(disk.path)
    for name, held in ours.items():
        if there is not None and held.source.is_at(there):
            if name == disk.name:
                return held
            raise SourceBusy(
                f"is served as {name} still",
                operation="open disk",
                subject=disk.path,
                hint=f"take {name} out of the config and reload, then add it under another name",
            )
    return None


async def look_for_growth(machine: Machine, group: Group) -> tuple[Prepared, str]:
    """The change to make if sources have grown; and what is wrong if one has shrunk."""
    shrunk: list[str] = []

    def look() -> list[DiskNow]:
        found = []
        for span in group.activity.spans:
            disk = group.disks[span.number]
            try:
                size = disk.source.size_now()
            except OSError:  # whoever reads it finds out, and says so
                size = disk.size
            if size < disk.size:
                shrunk.append(f"{disk.name}: its source has only {size} of {disk.size} bytes")
            found.append(DiskNow(disk.name, max(size, disk.size), True, span.source))
        return found

    found = await machine.offload.run(look)
    plan = change(group.activity.spans, found, group.activity.next_disk)
    return Prepared(group, plan, {}, machine), "; ".join(shrunk)
