"""Restore a point's disks to sparse files or devices: resumable, never half-done under its name.

A file grows as ``NAME.partial`` beside a small progress file and gets its name, which must not
exist, once all of it is durable. A device has no name to hold back, so it takes a person's word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages import durable
from stages.errors import BackstayError, DamagedObject, NoSpace, TargetError
from stages.model import BLOCK, Disk, Runs
from stages.ports import Machine, OpenFile
from stages.recover.extract import DamagedExtent
from stages.recover.plan import FrameNeed
from stages.recover.pointmap import PointMap
from stages.recover.sweep import Sweep, Window, content_runs
from stages.vault.location import ZERO

_NO_SPACE = (28, 122)  # ENOSPC, EDQUOT
_MAX_PROGRESS = 64 << 10


@dataclass(frozen=True, slots=True)
class Restored:
    """One disk, restored to ``path``; ``content`` bytes were written, the rest is zeros."""

    disk: str
    path: str
    size: int
    content: int
    resumed_at: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a restore did. ``damage`` is only ever non-empty with salvage."""

    disks: tuple[Restored, ...]
    damage: tuple[DamagedExtent, ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where one disk goes. ``device``: an existing block device, else a new file."""

    disk: Disk
    path: str
    device: bool


class Restore:
    """One restore of one point. Raises ``TargetError``, ``Damage``, ``NoSpace`` or store errors."""

    def __init__(self, point: PointMap, machine: Machine, *, salvage: bool = False):
        self._sweep = Sweep(point, machine)
        self._machine = machine
        self._salvage = salvage
        self._content = 0

    def check(self, targets: list[Target]) -> None:
        """Refuse, before anything is written, what would destroy something."""
        files = self._machine.files
        for target in targets:
            found = files.stat(target.path)
            if not target.device:
                if found is not None:
                    raise _refused(
                        target, "exists already", "choose another folder, or move it away"
                    )
                continue
            if found is None or not found.is_block:
                raise _refused(target, "is not a block device", "give the path of a device")
            where = files.mounted(target.path)
            if where is not None:
                raise _refused(target, f"is in use at {where}", "unmount it first")
            if found.size < target.disk.size:
                raise _refused(
                    target,
                    f"holds {found.size} bytes, the disk has {target.disk.size}",
                    "choose a device of at least that size",
                )

    async def run(
        self, targets: list[Target], advance: Callable[[int], None] | None = None
    ) -> Report:
        """Restore all targets; ``advance`` hears of disk bytes done."""
        self.check(targets)
        done = [await self._one(target, advance) for target in targets]
        damage = tuple(self._sweep.damage)
        return Report(tuple(done), damage, self._sweep.stored_bytes)

    def close(self) -> None:
        """Release the point's scratch files."""
        self._sweep.point.close()

    async def _one(self, target: Target, advance: Callable[[int], None] | None) -> Restored:
        files = self._machine.files
        partial = target.path if target.device else f"{target.path}.partial"
        start = 0 if target.device else self._resume_at(target)
        self._content = 0
        try:
            file = files.open_write(partial, create=not target.device)
        except OSError as error:
            raise _failed(target, error) from None
        try:
            if not file.lock():
                raise _refused(target, "is being restored by another process", "wait for it")
            if not target.device:
                file.truncate(target.disk.size)
            for first in self._sweep.windows(target.disk, start):
                await self._window(target, file, first)
                if advance is not None:
                    left = target.disk.size - first * BLOCK
                    advance(min(left, self._sweep.windows(target.disk).step * BLOCK))
            await self._machine.offload.run(file.fsync)
            self._complain(target)
            if not target.device:
                await self._machine.offload.run(lambda: self._finish(target, file, partial))
        except OSError as error:
            raise _failed(target, error) from None
        finally:
            file.close()
        return Restored(
            target.disk.name, target.path, target.disk.size, self._content, start * BLOCK
        )

    async def _window(self, target: Target, file: OpenFile, first: int) -> None:
        window = await self._sweep.locate(target.disk, first)
        if target.device:
            await self._machine.offload.run(lambda: _zero(file, window))
        size = target.disk.size

        def write(need: FrameNeed, content: bytes) -> None:
            view = memoryview(content)
            for slot, block, count in content_runs(need):
                offset = block * BLOCK
                length = min(count * BLOCK, size - offset)
                file.pwrite(offset, view[slot * BLOCK : slot * BLOCK + length])
                self._content += length

        await self._sweep.extract(window, write)
        if not target.device and not self._sweep.damage:
            done = first + len(window.locations)
            await self._machine.offload.run(lambda: self._remember(target, file, done))

    def _complain(self, target: Target) -> None:
        """Without salvage a disk with holes in it does not get its name."""
        damage = self._sweep.damage
        if not damage or self._salvage:
            return
        lost = sum(extent.length for extent in damage)
        listed = "\n".join(
            f"  {extent.disk}: bytes {extent.offset} to {extent.offset + extent.length}: "
            f"{extent.key}: {extent.reason}"
            for extent in damage[:50]
        )
        raise DamagedObject(
            f"{lost} bytes in {len(damage)} extents cannot be restored:\n{listed}",
            operation="restore",
            subject=f"{target.disk.name} at commit {self._sweep.point.seq}",
            hint="another point may be whole ('backstay verify'); --salvage restores the rest",
        )

    def _finish(self, target: Target, file: OpenFile, partial: str) -> None:
        files = self._machine.files
        if not durable.finish(files, file, partial, target.path):
            raise _refused(target, "came into being meanwhile", f"the restored disk is {partial}")
        files.unlink(_progress_path(target))

    def _resume_at(self, target: Target) -> int:
        """First block still to do, from the progress file of an interrupted restore."""
        files = self._machine.files
        if files.stat(f"{target.path}.partial") is None:
            return 0
        if files.stat(_progress_path(target)) is None:
            return 0  # died before its first window: nothing of it is relied on
        try:
            progress = json.loads(files.read(_progress_path(target), _MAX_PROGRESS))
            same = progress["of"] == self._identity(target)
            done = int(progress["done"])
        except (OSError, ValueError, KeyError, TypeError):
            same, done = False, 0
        if not same:
            raise _refused(
                target,
                "a partial restore of another point lies beside it",
                f"delete {target.path}.partial and {_progress_path(target)}, or choose another "
                "folder",
            )
        return done

    def _remember(self, target: Target, file: OpenFile, done: int) -> None:
        file.fdatasync()
        progress = json.dumps({"of": self._identity(target), "done": done}).encode()
        token = self._machine.entropy.token(8).hex()
        durable.replace(self._machine.files, _progress_path(target), progress, token=token)

    def _identity(self, target: Target) -> list[str | int]:
        scope = self._sweep.point.group.scope
        return [
            scope.vault.hex(),
            scope.group.hex(),
            self._sweep.point.seq,
            target.disk.number,
            target.disk.size,
        ]


def _zero(file: OpenFile, window: Window) -> None:
    """A device keeps what was on it: its zero blocks have to be written."""
    runs = Runs.of(np.flatnonzero(window.locations <= ZERO).astype(np.uint64))
    size = window.disk.size
    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
        offset = (window.first + start) * BLOCK
        length = min(count * BLOCK, size - offset)
        whole = length // 512 * 512
        if whole:
            file.punch(offset, whole)
        if length > whole:
            file.pwrite(offset + whole, bytes(length - whole))


def _progress_path(target: Target) -> str:
    return f"{target.path}.partial.progress"


def _refused(target: Target, what: str, hint: str) -> TargetError:
    return TargetError(what, operation="restore", subject=target.path, hint=hint)


def _failed(target: Target, error: OSError) -> BackstayError:
    if error.errno in _NO_SPACE:
        return NoSpace(
            "no space left for the restored disk",
            operation="restore",
            subject=target.path,
            hint="make room and give the same command again: it goes on where it stopped",
        )
    return TargetError(error.strerror or str(error), operation="restore", subject=target.path)
