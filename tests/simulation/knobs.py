"""What kind of story a seed tells."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Knobs:
    """Rates are chances, 0 to 1; times are seconds of virtual time.

    ``writes``: mutations in the whole story. ``lives``: how many at most end by a fault; ``ends``:
    how they end. ``disks`` of the machine. Of a guest's requests ``flush``, ``fua``, ``trim``,
    ``zero`` and ``odd`` (not whole blocks) have these shares; ``pace``: pauses between batches.
    ``disk_faults``: windows per life in which the state folder's disk is full, fails or hangs.
    ``source_faults``: of one operation of a source. ``store_faults``: of one call of the vault.
    ``patience``: how long a delivery lives before it is killed. ``leave``: a guest's connection
    breaks in the middle of a batch. ``stretch``: regions that become hot together. ``clone``: a
    second daemon with a copy of the state. ``scrub``: seconds in which everything is compared again
    while it is written, 0 for never; ``rot``: how often a life's disk changes without a write.
    ``orders``: of a life in which a supervisor has capture rest, holds scans and wants everything
    compared. ``failovers``: of a life in which an operator fails the machine over, tests, changes
    the point, cancels or commits, at any moment.
    """

    writes: int = 500
    lives: int = 5
    ends: tuple[str, ...] = ("kill", "power", "power", "stop", "stop+power", "cancel")
    disks: int = 1
    hot: int = 24
    flush: float = 0.08
    fua: float = 0.08
    trim: float = 0.1
    zero: float = 0.1
    odd: float = 0.15
    pace: tuple[float, ...] = (0, 0, 0, 0.01, 0.2, 2)
    slow: float = 0.15
    journal: int = 64 << 20
    memory: int = 1 << 20
    sync_seconds: float = 0.3
    cool: float = 2.0
    stall: float = 3.0
    stretch: int = 1
    seal_after: float = 1.0
    disk_faults: float = 1.0
    source_faults: float = 0.002
    store_faults: float = 0.05
    patience: tuple[float, ...] = (2, 10, 1000)
    pauses: tuple[float, ...] = (0, 1, 20)
    marks: float = 0.3
    leave: float = 0.05
    clone: float = 0.0
    scrub: float = 0.0
    rot: float = 0.0
    orders: float = 0.0
    failovers: float = 0.0


CALM = Knobs(disk_faults=0, source_faults=0, store_faults=0, leave=0, marks=0)


def draw(seed: int, writes: int = 500) -> Knobs:
    """Mixed stories."""
    dice = random.Random(f"knobs {seed}")
    one = dice.choice
    return replace(
        Knobs(writes=writes),
        disks=one([1, 1, 2]),
        hot=one([6, 24, 24, 60]),
        flush=one([0.01, 0.08, 0.2]),
        fua=one([0, 0.08]),
        odd=one([0.05, 0.15, 0.5]),
        pace=one([(0, 0, 0, 0.01, 0.2, 2), (0, 0, 0.01), (0, 0.2, 3, 8)]),
        slow=one([0.02, 0.15, 0.4]),
        journal=one([300_000, 1_000_000, 64 << 20]),
        memory=one([60_000, 1 << 20]),
        sync_seconds=one([0.1, 0.3, 3.0]),
        seal_after=one([0.2, 1.0, 5.0]),
        disk_faults=one([0, 0.7, 2.0]),
        source_faults=one([0, 0, 0.004]),
        store_faults=one([0, 0.03, 0.15]),
        patience=one([(2, 10, 1000), (0.1, 0.5, 3), (1000,)]),
        marks=one([0, 0.3]),
        leave=one([0, 0.05]),
        clone=one([0, 0, 0, 0, 0, 0.3]),
        stretch=one([1, 1, 16]),
        scrub=one([0, 2.0, 20.0]),
        rot=one([0, 0, 0.5]),
    )
