"""Bringing a window of a disk's file to a point: all of it, or the blocks that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from stages.errors import DamagedObject
from stages.model import BLOCK, Bools, Disk
from stages.ports import Machine
from stages.recover.extract import Laid
from stages.recover.onto import Onto
from stages.recover.sweep import Sweep, Window, stretches
from stages.recover.target import Target
from stages.replica.record import path_of
from stages.replica.trouble import translated
from stages.vault.location import ZERO

_LEFT_ALONE = np.uint64(ZERO + 1)  # any location that is neither unset nor zero


async def open_disk(ports: Machine, folder: str, disk: Disk) -> Onto:
    """A disk's file, made if it is missing, locked. Raises ``TargetError`` if it is in use."""
    target = Target(disk, path_of(folder, disk.number), device=False, onto=True, resize=True)

    def take() -> Onto:
        ports.files.open_write(target.path, create=True).close()
        return Onto.open(ports.files, target, ports.offload.lock())

    with translated(target.path):
        return await ports.offload.run(take)


async def write_window(
    ports: Machine, sweep: Sweep, onto: Onto, window: Window, mask: Bools | None
) -> None:
    """Write what differs: of ``mask`` (n,) only those blocks. Raises ``Damage``, ``NoSpace``."""
    content = zeros = window
    if mask is not None:
        content = replace(window, locations=np.where(mask, window.locations, np.uint64(0)))
        zeros = replace(window, locations=np.where(mask, window.locations, _LEFT_ALONE))
    size = window.disk.size

    def write(room: memoryview, laid: Sequence[Laid]) -> None:
        for slot, block, count in stretches(laid):
            offset = block * BLOCK
            length = min(count * BLOCK, size - offset)
            onto.write(offset, room[slot * BLOCK : slot * BLOCK + length])

    with translated(onto.target.path):
        await ports.offload.run(partial(onto.clear, zeros))
        damage = await sweep.extract(content, write)
    if damage:
        raise DamagedObject(
            f"{damage[0].key}: {damage[0].reason}",
            operation="follow",
            subject=onto.target.path,
            hint="'backstay verify' lists what is damaged; the replica stays on its way",
        )
