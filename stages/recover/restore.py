"""Restore a point's disks to sparse files or devices: resumable, never half-done under a name.

The files of all disks get their names together, at the end: a machine comes back whole or not at
all. Until then they are ``NAME.partial``, and the same command goes on where an interrupted one
stopped. So it is with damage too: without ``salvage`` what can be had is fetched, the damaged
extents are listed, and no file gets its name; the same command with ``salvage`` then finishes
the partial files with zeros in the damaged places, and one without it tries those places again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import trio

from stages.errors import FULL, BackstayError, DamagedObject, NoSpace, TargetError
from stages.model import BLOCK, Disk
from stages.ports import Machine
from stages.recover.extract import DamagedExtent, Laid
from stages.recover.onto import Onto
from stages.recover.pointmap import PointMap
from stages.recover.refusing import check_targets
from stages.recover.sweep import WINDOW_BLOCKS, Sweep, Window, stretches
from stages.recover.target import Landing, Target
from stages.stage import crew
from stages.vault.location import ZERO

T = TypeVar("T")

_LISTED = 50
_WRITING = 2  # more than are at work: they wait for the disk
_SYNC_STEP = 16 << 20  # stored bytes fetched between two syncs: disks are kept busy meanwhile


@dataclass(frozen=True, slots=True)
class Restored:
    """One disk, restored to ``path``; ``content`` bytes were written, the rest is zeros.

    ``resumed_at``: bytes of disk that an earlier, interrupted restore had done. ``compared`` and
    ``written``: bytes of a disk that was there already, and how many of them differed.
    """

    disk: str
    path: str
    size: int
    content: int
    resumed_at: int
    compared: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a restore did. ``damage`` is only ever non-empty with salvage."""

    disks: tuple[Restored, ...]
    damage: tuple[DamagedExtent, ...]
    stored_bytes: int


class Restore:
    """One restore of one point. Raises ``TargetError``, ``Damage``, ``NoSpace`` or store errors.

    ``workers`` open frames at a time, and ``_WRITING`` more write them; progress is kept every
    ``window_blocks`` of disk.
    """

    def __init__(
        self,
        point: PointMap,
        machine: Machine,
        *,
        salvage: bool = False,
        workers: int = 2,
        window_blocks: int = WINDOW_BLOCKS,
    ):
        self._sweep = Sweep(point, machine, workers=workers + _WRITING, window_blocks=window_blocks)
        self._point = point
        self._machine = machine
        self._salvage = salvage
        self._holed: set[int] = set()  # disks with damage

    def check(self, targets: list[Target]) -> None:
        """Refuse, before anything is written, what would destroy something."""
        identities = [self._identity(target) for target in targets]
        try:
            check_targets(self._machine.files, targets, identities)
        except OSError as error:
            raise _failed(error.filename or targets[0].path, error) from None

    async def run(
        self, targets: list[Target], advance: Callable[[int], None] | None = None
    ) -> Report:
        """Restore all targets; ``advance`` hears of disk bytes done."""
        self.check(targets)
        with ExitStack() as stack:
            landings: list[Landing | Onto] = []
            for target in targets:
                landings.append(await self._files(target, partial(self._open, target)))
                stack.callback(landings[-1].close)
            done = [await self._fill(landing, advance or _nobody) for landing in landings]
            if self._sweep.lost and not self._salvage:
                raise self._damaged(targets)
            for landing in landings:
                damaged = landing.target.disk.number in self._holed
                name = partial(landing.name, damaged=damaged)
                await self._files(landing.target, name)
            for landing in landings:
                await self._files(landing.target, landing.settle)
        return Report(tuple(done), tuple(self._sweep.damage), self._sweep.stored_bytes)

    def close(self) -> None:
        """Release the point's scratch files."""
        self._point.close()

    def _open(self, target: Target) -> Landing | Onto:
        if target.onto:
            return Onto.open(self._machine.files, target, self._machine.offload.lock())
        return Landing.open(self._machine.files, target, self._identity(target))

    async def _fill(self, landing: Landing | Onto, advance: Callable[[int], None]) -> Restored:
        target = landing.target
        disk = target.disk
        resumed = min(landing.start * BLOCK, disk.size)
        advance(resumed)
        content = 0
        keeper = _Keeper(landing, self._machine)
        try:
            async with crew() as nursery:
                nursery.start_soon(keeper.run)
                for first in self._sweep.windows(disk, landing.start):
                    window = await self._sweep.locate(disk, first)
                    content += await self._window(landing, window, keeper)
                    end = min((first + len(window.locations)) * BLOCK, disk.size)
                    advance(end - first * BLOCK)
                keeper.finish()
        except OSError as error:
            raise _failed(target.path, error) from None
        done = Restored(disk.name, target.path, disk.size, content, resumed)
        if isinstance(landing, Onto):
            done = replace(done, compared=landing.compared, written=landing.written)
        return done

    async def _window(self, landing: Landing | Onto, window: Window, keeper: _Keeper) -> int:
        """Write one window; returns its bytes of content."""
        size = window.disk.size
        if landing.target.device or landing.target.onto:
            await self._machine.offload.run(partial(landing.clear, window))

        def write(room: memoryview, laid: Sequence[Laid]) -> None:
            for slot, block, count in stretches(laid):
                offset = block * BLOCK
                length = min(count * BLOCK, size - offset)
                landing.write(offset, room[slot * BLOCK : slot * BLOCK + length])

        damage = await self._sweep.extract(window, write, keeper.moved)
        if damage:
            self._holed.add(window.disk.number)
            if self._salvage or not landing.target.onto:  # else what is there may be all there is
                await self._machine.offload.run(partial(landing.lose, damage))
        keeper.reached(window.first + len(window.locations), whole=not damage)
        return _content(window) - sum(extent.length for extent in damage if not extent.older)

    async def _files(self, target: Target, call: Callable[[], T]) -> T:
        """Run a blocking call on the target; what the file system refuses becomes our error."""
        try:
            return await self._machine.offload.run(call)
        except OSError as error:
            raise _failed(target.path, error) from None

    def _damaged(self, targets: list[Target]) -> DamagedObject:
        damage = self._sweep.damage
        listed = [
            f"  {extent.disk}: bytes {extent.offset} to {extent.offset + extent.length}: "
            f"{extent.key}: {extent.reason}"
            for extent in damage[:_LISTED]
        ]
        if len(damage) > _LISTED:
            listed.append("  and more")
        kept = ", ".join(target.partial for target in targets)
        return DamagedObject(
            f"{self._sweep.lost} bytes cannot be restored:\n" + "\n".join(listed),
            operation="restore",
            subject=f"{self._point.machine.name} at commit {self._point.seq}",
            hint="another point may be whole ('backstay verify'); the same command with "
            f"--salvage puts zeros there and finishes {kept}",
        )

    def _identity(self, target: Target) -> str:
        return identity(self._point, target.disk)


def identity(point: PointMap, disk: Disk) -> str:
    """What a half-done restore is of: vault, group, point, disk."""
    scope = point.group.scope
    place = f"{scope.vault.hex()}/{scope.group.hex()}/{point.seq}"
    return f"{place}/{disk.number}/{disk.size}"


class _Keeper:
    """Syncs behind the writers, so that they never wait for the disk, and notes how far it is.

    The note of a window is written after a sync that began when all of the window was written.
    """

    def __init__(self, landing: Landing | Onto, machine: Machine):
        self._landing = landing
        self._machine = machine
        self._done = self._noted = landing.start
        self._whole = True
        self._moved = 0
        self._finished = False
        self._wake = trio.Event()

    async def run(self) -> None:
        """Work until ``finish``; on return everything is durable. Raises ``OSError``."""
        while not self._finished or self._moved or self._done != self._noted:
            if not self._due:
                await self._wake.wait()
                self._wake = trio.Event()
                continue
            self._moved = 0
            done = self._done if self._done != self._noted else None
            await self._machine.offload.run(partial(self._landing.sync, done))
            self._noted = self._noted if done is None else done

    def moved(self, stored: int) -> None:
        """So many stored bytes were opened and written."""
        self._moved += stored
        self._look()

    def reached(self, block: int, *, whole: bool) -> None:
        """All windows before ``block`` are written; after a damaged one nothing is noted."""
        self._whole = self._whole and whole
        if self._whole:
            self._done = block
        self._look()

    def finish(self) -> None:
        """Nothing more will be written."""
        self._finished = True
        self._wake.set()

    @property
    def _due(self) -> bool:
        late = self._finished and self._moved > 0
        return late or self._moved >= _SYNC_STEP or self._done != self._noted

    def _look(self) -> None:
        if self._due:
            self._wake.set()


def _content(window: Window) -> int:
    """Bytes of disk in a window that are not zeros."""
    held = window.locations > ZERO
    beyond = (window.first + len(held)) * BLOCK - window.disk.size
    padding = beyond if len(held) and held[-1] and beyond > 0 else 0
    return int(np.count_nonzero(held)) * BLOCK - padding


def _nobody(done: int) -> None:
    """Nobody watches."""


def _failed(path: str, error: OSError) -> BackstayError:
    if error.errno in FULL:
        return NoSpace(
            "no space left for the restored disk",
            operation="restore",
            subject=path,
            hint="make room and give the same command again: it goes on where it stopped",
        )
    return TargetError(
        error.strerror or str(error),
        operation="restore",
        subject=path,
        hint="give a folder or device that can be written to",
    )
