"""The gap of a group, and the scan that closes it (R3, R8, R9).

A gap is open from GAP_BEGIN to GAP_END. Meanwhile regions are *pending* until a scan's record of
them is journal-durable; GAP_END follows when every pending region has been scanned. A scan begins
only after delivery has committed everything up to GAP_BEGIN: from then on what the vault holds and
what the stream adds to it are what the source has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.capture.activity.log import ActivityLog
from stages.capture.splitter.disk import LiveDisk
from stages.model import Bools, Ints
from stages.stream import Position


@dataclass
class Gap:
    """What is known of the present gap. ``position``: behind its GAP_BEGIN, once that is pushed.

    ``done``: regions scanned in this gap, by disk; ``undurable``: of those, what is not yet
    journal-durable, in stream order.
    """

    activity: ActivityLog
    is_open: bool = False
    position: Position | None = None
    reason: str = ""
    done: dict[int, Bools] = field(default_factory=dict)
    undurable: deque[tuple[Position, int, int]] = field(default_factory=deque)

    def begin(self, reason: str, position: Position) -> None:
        """GAP_BEGIN was pushed; ``position`` lies behind it."""
        self.is_open = True
        self.reason = self.reason or reason
        self.position = position
        self.forget()

    def end(self) -> None:
        """GAP_END was pushed; what is not yet durable of the scan stays pending until it is."""
        self.is_open, self.position, self.reason = False, None, ""
        self.done.clear()

    def forget(self) -> None:
        """What was scanned and is not durable counts as pending again."""
        self.done.clear()
        self.undurable.clear()

    def drop(self, disks: Container[int]) -> None:
        """These disks are not there any more."""
        self.done = {disk: flags for disk, flags in self.done.items() if disk not in disks}
        self.undurable = deque(one for one in self.undurable if one[1] not in disks)

    def again(self, disk: int, regions: Ints) -> None:
        """These regions must be scanned (again): what a scan has seen of them no longer holds."""
        self.activity.pend(disk, regions.tolist())
        if disk in self.done:
            self.done[disk][regions] = False
        gone = {(disk, int(region)) for region in regions}
        self.undurable = deque(one for one in self.undurable if one[1:] not in gone)

    def scanned(self, disk: int, region: int, position: Position) -> None:
        """A scan has pushed what it found of a region."""
        done = self.done.setdefault(disk, np.zeros(len(self.activity.pending[disk]), np.bool_))
        done[region] = True
        self.undurable.append((position, disk, region))

    def durable(self, position: Position) -> None:
        """The journal is durable up to there: those regions are pending no more."""
        cleared: dict[int, list[int]] = {}
        while self.undurable and self.undurable[0][0] <= position:
            _, disk, region = self.undurable.popleft()
            cleared.setdefault(disk, []).append(region)
        for disk, regions in cleared.items():
            if disk in self.activity.pending:
                self.activity.scanned(disk, regions)

    def todo(self, disks: Sequence[LiveDisk]) -> list[tuple[int, list[int]]]:
        """Pending regions not scanned yet in this gap, by disk, ascending."""
        plan = []
        for disk in disks:
            pending = self.activity.pending[disk.number].copy()
            done = self.done.get(disk.number)
            if done is not None:
                pending[: len(done)] &= ~done[: len(pending)]
            if pending.any():
                plan.append((disk.number, np.flatnonzero(pending).tolist()))
        return plan
