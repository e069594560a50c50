"""The rolling scrub (R6): everything is compared with the vault again, slowly, region by region.

What differs has changed without a write (``scrub_region`` says how that is told): something wrote
past the splitter, or the disk, or memory, is damaged. All points since an unknown time are wrong
there. It is told, the region becomes pending, durably, and a gap begins, so that no point calls
itself consistent until a scan has corrected it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.capture.live.scrub_note import Note, NoteFile
from stages.capture.live.scrub_region import Host, Judge, Mismatch, Scrubbed
from stages.errors import BackstayError
from stages.ports import Machine
from stages.stream import REGION, REGION_BLOCKS, DeliveryGone

__all__ = ["MISMATCH", "Host", "Mismatch", "Scrub", "ScrubStatus"]

MISMATCH = "scrub-mismatch"  # the code of the reason

_LOOK = 2.0  # seconds between two looks whether it may go on
_SLICE = 60.0  # seconds after which another pace is taken over
_SAVE = 60.0  # seconds between two notes of the place
_QUIET = 0.05  # seconds without a guest's write are waited for ...
_QUIET_LOOKS = 20  # ... so many times at most


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """Bytes of the present pass, times in µs since 1970 (0: never), counts of blocks.

    ``uncorrected``: found, and no scan has corrected it yet. ``doubted``: found since the last pass
    that found nothing; points from ``clean_us`` (0: an unknown time) to ``last_us`` may be wrong.
    """

    seconds: float
    done: int
    total: int
    passes: int
    completed_us: int
    clean_us: int
    mismatches: int
    uncorrected: int
    doubted: int
    unproven: int
    last: str
    last_us: int
    trouble: str


class Scrub:
    """Compares all of a group's disks in ``seconds``, again and again; 0: it is off.

    ``on_mismatch`` hears of each, before anything else is done about it.
    """

    def __init__(self, machine: Machine, host: Host, path: str, seconds: float):
        self.seconds = seconds
        self.on_mismatch: Callable[[Mismatch], None] = lambda _: None
        self.note = Note()
        self.trouble = ""
        self._uncorrected = 0
        self._machine = machine
        self._host = host
        self._judge = Judge(machine, host)
        self._file = NoteFile(machine, path)
        self._saved = 0.0

    def status(self) -> ScrubStatus:
        """An immutable snapshot."""
        note, disks = self.note, self._host.disks()
        return ScrubStatus(
            seconds=self.seconds,
            done=sum(
                min(disk.size, max(0, self._before(number)) * REGION)
                for number, disk in disks.items()
            ),
            total=sum(disk.size for disk in disks.values()),
            passes=note.passes,
            completed_us=note.completed_us,
            clean_us=note.clean_us,
            mismatches=note.mismatches,
            uncorrected=self._uncorrected,
            doubted=note.doubted,
            unproven=note.unproven,
            last=note.last,
            last_us=note.last_us,
            trouble=self.trouble,
        )

    async def run(self) -> None:
        """For ever, or until it is turned off; its owner cancels it."""
        self.note = await self._file.load()
        last = self._machine.clock.monotonic()
        while self.seconds:
            last = await self._pace(last)
            await self._calm()
            try:
                await self._step()
                await self._save()
            except DeliveryGone:
                continue
            except (BackstayError, OSError) as error:
                self.trouble = str(error)

    def corrected(self) -> None:
        """A scan has ended a gap: what was found until now is right again."""
        self._uncorrected = 0

    async def _pace(self, last: float) -> float:
        """Wait until a region is due after the one of ``last``; returns when this one was. What was
        missed is made up for, at twice the pace and not faster."""
        clock = self._machine.clock
        while self.seconds:
            pause = self.seconds / max(1, sum(map(_regions, self._host.disks().values())))
            left = max(last + pause - clock.monotonic(), 0)
            if not left:
                return max(last + pause, clock.monotonic() - pause / 2)
            await clock.sleep(min(left, _SLICE))
        return last

    async def _calm(self) -> None:
        """Wait until there is something to compare, and guests leave room for it."""
        host, clock = self._host, self._machine.clock
        while not host.steady() or not host.disks():
            await clock.sleep(_LOOK)
        await host.downstream.wait_present()
        await host.yielding()
        for _ in range(_QUIET_LOOKS):
            head = host.head()
            await clock.sleep(_QUIET)
            if host.head() == head:
                break

    async def _step(self) -> None:
        """Look at the next region; it stays the next if that could not be done now."""
        place = self._next()
        if place is None:
            self.note.pass_ends(self._machine.clock.wall_us())
            self._saved = 0.0
            return
        disk, region = place
        self.note.began_us = self.note.began_us or self._machine.clock.wall_us()
        try:
            found = await self._host.hold(lambda: self._look(disk, region))
        except DeliveryGone:
            raise
        except BackstayError as error:  # it cannot be read: told, and the next one is looked at
            self.trouble = str(error)
            found = True
        else:
            self.trouble = "" if found else self.trouble
        if found:
            self.note.disk, self.note.region = disk, region + 1

    def _next(self) -> tuple[int, int] | None:
        """The first region not looked at in this pass; disks' numbers are never used again."""
        for number, disk in sorted(self._host.disks().items()):
            first = self._before(number)
            if first < _regions(disk):
                return number, first
        return None

    def _before(self, number: int) -> int:
        """Regions of a disk that were looked at in this pass."""
        if number < self.note.disk:
            return 1 << 62
        return self.note.region if number == self.note.disk else 0

    async def _look(self, disk: int, region: int) -> Mismatch | bool:
        """Compare a region. False: not now."""
        target = self._host.disks().get(disk)
        if target is None or not self._host.steady():
            return False
        found = await self._judge.compare(disk, region, target)
        if found is None:
            return False
        differs, unproven = found
        self.note.unproven += unproven
        if not differs.any():
            return True
        blocks = np.flatnonzero(differs) + region * REGION_BLOCKS
        mismatch = Mismatch(disk, target.name, region, tuple(blocks.tolist()))
        self._count(mismatch)
        self.on_mismatch(mismatch)
        await self._host.diverged(mismatch)
        self._uncorrected += len(blocks)
        return mismatch

    def _count(self, mismatch: Mismatch) -> None:
        count = len(mismatch.blocks)
        self.note.mismatches += count
        self.note.found_now += count
        self.note.last = str(mismatch)
        self.note.last_us = self._machine.clock.wall_us()
        self._saved = 0.0

    async def _save(self) -> None:
        now = self._machine.clock.monotonic()
        if self._saved and now - self._saved < _SAVE:
            return
        await self._file.save(self.note)
        self._saved = now


def _regions(disk: Scrubbed) -> int:
    return -(-disk.size // REGION)
