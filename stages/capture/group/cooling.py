"""Cooling (R1): a region leaves the activity log once nothing can be lost of it.

After its last write completed, an fdatasync of the source that was started later has succeeded, and
the journal is durable past that write. Idle regions cool after some cycles; when the log is crowded
all that are not being written do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from stages.capture.activity.log import ActivityLog
from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.gate import Gate
from stages.ports import Machine

CYCLE_SECONDS = 10.0
IDLE_CYCLES = 2


class Cooling:
    """Runs cycles for a group. ``stuck(disk)``: its source has lost writes, it never cools."""

    def __init__(
        self,
        machine: Machine,
        activity: ActivityLog,
        gate: Gate,
        disks: Callable[[], Sequence[LiveDisk]],
        stuck: Callable[[int], bool],
        *,
        seconds: float = CYCLE_SECONDS,
    ):
        self._machine = machine
        self._activity = activity
        self._gate = gate
        self._disks = disks
        self._stuck = stuck
        self._seconds = seconds
        self._cycling = trio.Lock()

    async def run(self) -> None:
        """For ever; its owner cancels it."""
        while True:
            with trio.move_on_after(self._seconds):
                await self._activity.wait_crowded()
            if not self._gate.tracking:
                async with self._cycling:
                    await self.cycle()

    async def let_go(self) -> None:
        """Return when disks that are not in the group any more are not being synced either."""
        async with self._cycling:
            pass

    async def cycle(self) -> None:
        """One cycle; without candidates no disk is touched."""
        crowded = self._activity.is_crowded
        ended = self._activity.start_cycle()
        found = self._activity.candidates(ended, 0 if crowded else IDLE_CYCLES)
        disks = [d for d in self._disks() if found.get(d.number) and not self._stuck(d.number)]
        if not disks:
            return
        head = self._gate.stream.head
        synced = [disk for disk in disks if await self._sync(disk)]
        await self._gate.sync(head)
        if self._gate.tracking:
            return  # the journal may not hold what was written
        cool = {
            disk.number: [r for r in found[disk.number] if not disk.region_busy(r)]
            for disk in synced
            if not self._stuck(disk.number) and any(disk is one for one in self._disks())
        }
        self._activity.cool(cool, ended)

    async def _sync(self, disk: LiveDisk) -> bool:
        try:
            await self._machine.offload.run(disk.source.file.fdatasync)
        except OSError as error:
            disk.on_unsynced(disk, error)
            return False
        return True
