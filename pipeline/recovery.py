"""What recovery commands do: open a vault with a key, choose a point, prove, restore, serve.

Nothing here reads a configuration or a state folder: the vault and the key are enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from pipeline.assembly import vault_store
from pipeline.leasing import Reader, leased
from stages.errors import Damage, DamagedObject, NotAdmitted, NotFound, UnknownVersion
from stages.model import BLOCK
from stages.ports import Machine
from stages.recover.ahead import clock_note
from stages.recover.opened import Group, OpenedVault, open_vault
from stages.recover.pointmap import PointMap
from stages.recover.points import Choice, Point, choose, newest
from stages.recover.restore import Report, Restore, identity
from stages.recover.target import Target, is_named, refused
from stages.vault.charter import Pin
from stages.vault.keyfile import PrivateKey

if TYPE_CHECKING:
    from stages.recover.verify import Verified

_OPENING = 2.0  # seconds of blips; a person is waiting, and may have mistyped the place
_WORKING = 15.0  # where hours of work are at stake
_AROUND = (
    "points before it do not need it ('backstay points'); --salvage, if it can go on without, "
    "restores the rest and lists what may be older"
)
_LONG = 600.0  # seconds of restoring after which the point is held
SERVING = 60.0  # where a guest waits, for whom an error is worse

Watch: TypeAlias = Callable[[str, int], Callable[[int], None]]  # title, total; then: how much more


@dataclass(frozen=True, slots=True)
class Access:
    """How a command reaches a vault. ``workers`` open frames side by side."""

    ports: Machine
    url: str
    key: PrivateKey
    pins: tuple[Pin, ...]
    workers: int = 2

    @asynccontextmanager
    async def vault(self, *, patience: float = _OPENING) -> AsyncIterator[OpenedVault]:
        """The opened vault; once it is, blips of up to ``patience`` seconds are got over."""
        async with AsyncExitStack() as stack:
            store = vault_store(self.ports, self.url, patience=_OPENING)
            stack.push_async_callback(store.aclose)
            vault = await open_vault(store, self.key, self.pins)
            if patience > _OPENING:
                vault.store = vault_store(self.ports, self.url, patience=patience)
                stack.push_async_callback(vault.store.aclose)
            yield vault


@dataclass(frozen=True, slots=True)
class Listing:
    """A machine's points, newest first."""

    machine: str
    group: str
    tail: int
    points: tuple[Point, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RescueEntry:
    """A machine in a vault, as someone without anything else sees it."""

    machine: str
    group: str
    disks: tuple[tuple[str, int], ...]
    point: Point | None
    note: str


async def list_points(access: Access, machine: str, count: int, all_points: bool) -> Listing:
    """The newest points of a machine."""
    async with access.vault() as vault:
        group = await vault.find(machine)
        points = await newest(group, count, all_points=all_points)
        notes = (*vault.problems, *group.log.ignored)
        if points and (told := _clock(access, points[0])):
            notes = (*notes, told)
        return Listing(
            await group.name(), group.scope.group.hex(), group.tail, tuple(points), notes
        )


async def rescue_entries(access: Access) -> tuple[list[RescueEntry], list[str]]:
    """Every machine of a vault with its newest consistent point."""
    async with access.vault() as vault:
        found = []
        for group in await vault.groups():
            if not group.tail:
                continue
            try:
                entry = await _rescue_entry(group)
                told = _clock(access, entry.point)
                found.append(replace(entry, note="; ".join(filter(None, (entry.note, told)))))
            except (Damage, NotAdmitted, UnknownVersion) as error:
                vault.problems.append(f"group {group.scope.group.hex()}: {error}")
        return found, vault.problems


def _clock(access: Access, point: Point | None) -> str:
    now = access.ports.clock.wall_us()
    return "" if point is None else clock_note(point.seq, point.stamp, now)


async def _rescue_entry(group: Group) -> RescueEntry:
    record = await group.machine_at(group.tail)
    try:
        choice = await choose(group, record.name, None)
        point, note = choice.point, "; ".join(choice.notes)
        record = await group.machine_at(choice.point.seq)
    except NotFound as error:
        point, note = None, error.message
    from stages.vault.failover_log import load_failovers, notice_of

    with suppress(UnknownVersion):  # it is restored all the same
        log = await load_failovers(group.log.store, group.scope, group.ring.charter)
        notice = notice_of(log, group.scope.group)
        found = (note, notice.described if notice else "", *log.problems)
        note = "; ".join(filter(None, found))
    disks = tuple((disk.name, disk.size) for disk in record.disks)
    return RescueEntry(record.name, group.scope.group.hex(), disks, point, note)


async def verify_point(
    access: Access,
    machine: str,
    at: int | str | None,
    watch: Watch,
) -> tuple[Choice, Verified]:
    """Prove a point; ``watch`` gets a title and a total and returns what to call on progress."""
    from stages.recover.verify import Verify

    async with access.vault(patience=_WORKING) as vault:
        group = await vault.find(machine)
        choice = await choose(group, machine, at)
        seq = choice.point.seq
        record = await group.machine_at(seq)
        total = sum(disk.blocks * BLOCK for disk in record.disks)
        advance = watch(f"verify {machine} #{seq}", total)
        found = await Verify(group, access.ports, seq, workers=access.workers).run(advance)
        return choice, found


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What to restore: all disks of a machine into a folder, or some onto devices.

    ``onto``: disks whose path holds something alike, of which only differences are written; one
    that is missing is restored as a new file. ``resize``: such a file gets the disk's size.
    ``by``: who reads, for the lease that holds the point if it takes long; without it none does.
    """

    machine: str
    at: int | str | None
    folder: str | None
    devices: tuple[tuple[str, str], ...]
    salvage: bool
    expect: tuple[int, bytes] | None
    onto: tuple[tuple[str, str], ...] = ()
    resize: bool = False
    by: str = ""


async def plan_restore(
    group: Group, order: RestoreOrder, ports: Machine
) -> tuple[Choice, PointMap, list[Target]]:
    """Choose the point, read its map, name the targets."""
    choice = await choose(group, order.machine, order.at, salvage=order.salvage)
    if order.expect is not None:
        await _check_expected(group, order.expect)
    try:
        point = await PointMap.build(group, ports.files, choice.point.seq, salvage=order.salvage)
    except Damage as error:
        error.hint = error.hint or _AROUND
        raise
    targets = [Target(point.disk(name), path, device=True) for name, path in order.devices]
    targets += [_onto(point, order, ports, name, path) for name, path in order.onto]
    if order.folder is not None:
        taken = {target.disk.name for target in targets}
        for disk in point.machine.disks:
            if disk.name not in taken:
                path = f"{order.folder}/{point.machine.name}-{disk.name}.img"
                targets.append(Target(disk, path, device=False))
    return choice, point, targets


def _onto(point: PointMap, order: RestoreOrder, ports: Machine, name: str, path: str) -> Target:
    """A disk or image to bring up to the point; if there is none, or half of one, a new file."""
    disk = point.disk(name)
    fresh = Target(disk, path, device=False)
    try:
        found = ports.files.stat(path)
        if found is None or is_named(ports.files, fresh, identity(point, disk)):
            return fresh
    except OSError as error:
        raise refused(fresh, error.strerror or str(error), "give another path") from None
    return Target(disk, path, device=found.is_block, onto=True, resize=order.resize)


async def restore_point(
    access: Access,
    order: RestoreOrder,
    confirm: Callable[[Choice, list[Target]], None],
    watch: Watch,
) -> tuple[Choice, Report]:
    """Restore; ``confirm`` sees what is about to happen and may raise."""
    async with access.vault(patience=_WORKING) as vault:
        group = await vault.find(order.machine)
        choice, point, targets = await plan_restore(group, order, access.ports)
        choice = with_problems(choice, vault, group)
        restore = Restore(point, access.ports, salvage=order.salvage, workers=access.workers)
        try:
            restore.check(targets)
            confirm(choice, targets)
            total = sum(target.disk.size for target in targets)
            advance = watch(f"restore {order.machine} #{choice.point.seq}", total)
            reader = Reader(
                *(access.ports, access.key, group, choice.point.seq, choice.point.digest, order.by),
                after=_LONG,
            )
            async with leased(vault.store, reader, vault.problems.append):
                report = await restore.run(targets, advance)
        finally:
            restore.close()
        return with_problems(choice, vault, group), report


def with_problems(choice: Choice, vault: OpenedVault, group: Group) -> Choice:
    """Note what reading has gone round, so that nobody takes the vault for undamaged."""
    notes = (*choice.notes, *vault.problems, *group.log.ignored)
    return replace(choice, notes=tuple(dict.fromkeys(notes)))


async def _check_expected(group: Group, expect: tuple[int, bytes]) -> None:
    """Freshness: the log must contain the commit that a person remembers (R15)."""
    seq, digest = expect
    if seq > group.tail:
        raise DamagedObject(
            f"the vault ends at commit {group.tail}, commit {seq} was expected",
            operation="restore",
            subject=group.log.store.url,
            hint="newer commits were removed, or this is an older copy of the vault",
        )
    commit = await group.log.signed(seq)
    if not commit.link.startswith(digest):
        raise DamagedObject(
            f"commit {seq} is not the expected one",
            operation="restore",
            subject=commit.container.key,
            hint="this is another history than the one you remember",
        )
