"""Branches to be read: how they are restored, and records that lie."""

from __future__ import annotations

from pathlib import Path

from stages.model import BLOCK, Disk
from stages.recover.extract import DamagedExtent
from stages.recover.opened import Group, open_vault
from stages.recover.pointmap import PointMap
from stages.recover.restore import Restore
from stages.recover.target import Target
from stages.system import SystemFiles
from stages.vault import layout
from stages.vault.records import GroupRecord, Parent, group_object
from tests.branches.support import Branch, Forest
from tests.recover.past import PEOPLE, CountingStore, machine, noise

ROOT = 1
DISK = Disk(ROOT, "root", 60 * BLOCK + 512)


async def image(
    branch: Branch, seq: int, folder: Path, *, checkpoints: bool = True, salvage: bool = False
) -> tuple[dict[int, bytes], list[DamagedExtent]]:
    """All disks of a point, restored."""
    group = await branch.opened()
    point = await PointMap.build(
        group, SystemFiles(), seq, checkpoints=checkpoints, salvage=salvage
    )
    to = [Target(disk, f"{folder}/{disk.name}", device=False) for disk in point.machine.disks]
    work = Restore(point, machine(), salvage=salvage, window_blocks=37)
    try:
        report = await work.run(to)
    finally:
        work.close()
    files = SystemFiles()
    found = {target.disk.number: files.read(target.path, 1 << 30) for target in to}
    for target in to:
        files.unlink(target.path)
    return found, list(report.damage)


async def is_right(branch: Branch, folder: Path, *, checkpoints: bool = True) -> None:
    for seq, moment in branch.moments.items():
        found, _ = await image(branch, seq, folder, checkpoints=checkpoints)
        assert found == {disk.number: moment.image(disk.number) for disk in moment.disks}, seq


async def two(woods: Forest) -> tuple[Branch, Branch]:
    """A parent that went on after its branch began, and the branch."""
    parent = await woods.plant(DISK)
    await parent.write((ROOT, noise(0, 20)))
    await parent.write((ROOT, noise(30, 10)))
    branch = await woods.branch(parent, 2)
    await parent.write((ROOT, noise(0, 60, word="later")))
    await branch.write((ROOT, noise(10, 5, word="branch")))
    await branch.write(refs={ROOT: ((50, ROOT, 0), (51, ROOT, 12))})
    return parent, branch


async def forged(
    store: CountingStore, gid: bytes, parent: Parent | None, *, created: int = 1
) -> Group:
    """A group whose record says what it likes."""
    scope = PEOPLE.scope(gid)
    key = layout.group_record(gid)
    await store.delete(key)
    await store.put(key, group_object(scope, GroupRecord(created, parent), PEOPLE.daemon))
    return await (await open_vault(store, PEOPLE.operator)).group(gid)
