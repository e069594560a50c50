"""Reads all bytes of a point with the program's own reader."""

from __future__ import annotations

from stages.model import BLOCK, Disk
from stages.recover.extract import DamagedExtent, each
from stages.recover.opened import Group, open_vault
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.sweep import Sweep, content_runs
from stages.store.port import ObjectStore
from stages.vault.keyfile import PrivateKey
from tests.vault.support import seeded_machine

MACHINE = seeded_machine("reading")


async def open_group(store: ObjectStore, key: PrivateKey) -> Group:
    """The only machine of the vaults of these tests."""
    return await (await open_vault(store, key)).find("web1")


async def read_point(
    group: Group, seq: int, *, checkpoints: bool = True
) -> tuple[dict[str, bytes], list[DamagedExtent]]:
    """Content of every disk, damaged extents as zeros; and those extents."""
    point = await PointMap.build(group, MACHINE.files, seq, checkpoints=checkpoints)
    sweep = Sweep(point, MACHINE)
    try:
        disks = {disk.name: await _disk(sweep, disk) for disk in point.machine.disks}
    finally:
        sweep.point.close()
    return disks, sweep.damage


async def _disk(sweep: Sweep, disk: Disk) -> bytes:
    content = bytearray(disk.blocks * BLOCK)

    def take(need: FrameNeed, blocks: memoryview) -> None:
        for slot, block, count in content_runs(need):
            there = slice(block * BLOCK, (block + count) * BLOCK)
            content[there] = blocks[slot * BLOCK : (slot + count) * BLOCK]

    for first in sweep.windows(disk):
        await sweep.extract(await sweep.locate(disk, first), each(take))
    assert not any(content[disk.size :])
    return bytes(content[: disk.size])
