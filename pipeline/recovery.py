"""What recovery commands do: open a vault with a key, choose a point, prove, restore, serve.

Nothing here reads a configuration or a state folder: the vault and the key are enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.assembly import vault_store
from stages.errors import DamagedObject, NotFound
from stages.model import BLOCK
from stages.ports import Machine
from stages.recover.opened import Group, OpenedVault, open_vault
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.points import Choice, Point, choose, newest
from stages.recover.restore import Report, Restore, Target
from stages.recover.sweep import Sweep
from stages.recover.verify import Verified, Verify
from stages.vault.charter import Pin
from stages.vault.keyfile import PrivateKey

_DRILL_BLOCKS = 4096
_PATIENCE = 2.0  # seconds of blips; a person is waiting, and may have mistyped the place


@dataclass(frozen=True, slots=True)
class Access:
    """How a command reaches a vault."""

    ports: Machine
    url: str
    key: PrivateKey
    pins: tuple[Pin, ...]

    @asynccontextmanager
    async def vault(self) -> AsyncIterator[OpenedVault]:
        """The opened vault."""
        store = vault_store(self.ports, self.url, patience=_PATIENCE)
        try:
            yield await open_vault(store, self.key, self.pins)
        finally:
            await store.aclose()


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
                record = await group.machine_at(group.tail)
                choice = await choose(group, record.name, None)
                point, note = choice.point, "; ".join(choice.notes)
            except NotFound as error:
                point, note = None, error.message
            except DamagedObject as error:
                vault.problems.append(str(error))
                continue
            disks = tuple((disk.name, disk.size) for disk in record.disks)
            found.append(RescueEntry(record.name, group.scope.group.hex(), disks, point, note))
        return found, vault.problems


async def verify_point(
    access: Access,
    machine: str,
    at: int | str | None,
    watch: Callable[[str, int], Callable[[int], None]],
) -> tuple[Choice, Verified]:
    """Prove a point; ``watch`` gets a title and a total and returns what to call on progress."""
    async with access.vault() as vault:
        group = await vault.find(machine)
        choice = await choose(group, machine, at)
        record = await group.machine_at(choice.point.seq)
        total = sum(disk.blocks * BLOCK for disk in record.disks)
        advance = watch(f"verify {machine} #{choice.point.seq}", total)
        found = await Verify(group, access.ports, choice.point.seq).run(advance)
        return choice, found


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What to restore: all disks of a machine into a folder, or some onto devices."""

    machine: str
    at: int | str | None
    folder: str | None
    devices: tuple[tuple[str, str], ...]
    salvage: bool
    expect: tuple[int, bytes] | None


async def plan_restore(
    group: Group, order: RestoreOrder, ports: Machine
) -> tuple[Choice, PointMap, list[Target]]:
    """Choose the point, read its map, name the targets."""
    choice = await choose(group, order.machine, order.at)
    if order.expect is not None:
        await _check_expected(group, order.expect)
    point = await PointMap.build(group, ports.files, choice.point.seq)
    targets = [Target(point.disk(name), path, device=True) for name, path in order.devices]
    if order.folder is not None:
        taken = {target.disk.name for target in targets}
        for disk in point.machine.disks:
            if disk.name not in taken:
                path = f"{order.folder}/{point.machine.name}-{disk.name}.img"
                targets.append(Target(disk, path, device=False))
    return choice, point, targets


async def restore_point(
    access: Access,
    order: RestoreOrder,
    confirm: Callable[[Choice, list[Target]], None],
    watch: Callable[[str, int], Callable[[int], None]],
) -> tuple[Choice, Report]:
    """Restore; ``confirm`` sees what is about to happen and may raise."""
    async with access.vault() as vault:
        group = await vault.find(order.machine)
        choice, point, targets = await plan_restore(group, order, access.ports)
        restore = Restore(point, access.ports, salvage=order.salvage)
        try:
            restore.check(targets)
            confirm(choice, targets)
            total = sum(target.disk.size for target in targets)
            advance = watch(f"restore {order.machine} #{choice.point.seq}", total)
            report = await restore.run(targets, advance)
        finally:
            restore.close()
        return choice, report


async def drill_vault(
    ports: Machine, url: str, key: PrivateKey, pins: tuple[Pin, ...]
) -> dict[str, int]:
    """Open some content of every machine's newest point. Raises what a restore would raise."""
    drilled: dict[str, int] = {}
    async with Access(ports, url, key, pins).vault() as vault:
        for group in await vault.groups():
            if not group.tail:
                continue
            name = await group.name()
            choice = await choose(group, name, None)
            point = await PointMap.build(group, ports.files, choice.point.seq)
            sweep = Sweep(point, ports)
            try:
                for disk in point.machine.disks:
                    spread = int.from_bytes(ports.entropy.token(6), "little")
                    first = spread % max(1, disk.blocks - _DRILL_BLOCKS)
                    window = await sweep.locate(disk, first, _DRILL_BLOCKS)
                    await sweep.extract(window, _discard)
            finally:
                sweep.point.close()
            if sweep.damage:
                bad = sweep.damage[0]
                raise DamagedObject(bad.reason, operation="drill", subject=bad.key)
            drilled.setdefault(name, choice.point.seq)
        if vault.problems:
            raise DamagedObject(vault.problems[0], operation="drill", subject=url)
    return drilled


def _discard(need: FrameNeed, content: bytes) -> None:
    """Opening it was the point."""


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
