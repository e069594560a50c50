"""Where a restored disk goes: a new file that gets its name at the end, or a device.

A file grows as ``NAME.partial``; ``NAME.partial.progress``, written before the first byte, says of
which point it is and up to where it is durable. It gets its name, which must not exist, by
``name``. The progress file outlives the naming until ``settle``, so that of several disks those
already named are known again as this restore's own. A device has no name to hold back.

All calls block; what the file system refuses is an ``OSError``.
"""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages import durable
from stages.errors import TargetError
from stages.model import BLOCK, Disk, Runs
from stages.ports import Buffer, Files, FileStat, OpenFile
from stages.recover.extract import DamagedExtent
from stages.recover.sweep import Window
from stages.vault.location import ZERO

_MAX_PROGRESS = 64 << 10
_LARGE = 128 << 10  # bytes that go past the page cache: a disk takes them at its speed
_TOKEN = "restore"  # noqa: S105 - the lock makes this the only writer: a crash leaves no litter


@dataclass(frozen=True, slots=True)
class Target:
    """Where one disk goes. ``device``: an existing block device, else a new file.

    ``onto``: what is there, a file too, is compared with the point, and what differs is written;
    ``resize``: a file there may have another size, and gets the disk's.
    """

    disk: Disk
    path: str
    device: bool
    onto: bool = False
    resize: bool = False

    @property
    def partial(self) -> str:
        """What a file is called while it is not whole."""
        return self.path if self.device or self.onto else f"{self.path}.partial"


class Landing:
    """An opened and locked target. ``start`` is the first block still to do."""

    def __init__(self, files: Files, target: Target, identity: str, file: OpenFile):
        self.target = target
        self.start = 0
        self._files = files
        self._identity = identity
        self._file = file
        self._past: OpenFile | None = None  # the same, past the page cache
        self._held: OpenFile | None = None

    @staticmethod
    def open(files: Files, target: Target, identity: str) -> Landing:
        """Open or create and lock it, and find out where to go on.

        ``identity`` names the content: vault, group, point, disk. Raises ``TargetError`` if it is
        in use, or the half-done work of something else.
        """
        if not target.device:
            durable.make_dirs(files, durable.parent(target.path))
            if is_named(files, target, identity):
                found = Landing(files, target, identity, files.open_read(target.path))
                found.start = target.disk.blocks
                return found
        file = files.open_write(target.partial, create=not target.device)
        landing = Landing(files, target, identity, file)
        try:
            landing._take()
        except BaseException:
            landing.close()
            raise
        return landing

    def write(self, offset: int, data: Buffer) -> None:
        """Write content; from several threads, each block once.

        Large pieces that lie in whole pages of memory are written from there, past the page cache:
        new pages in it would cost more than all else. Small ones wait there for their neighbours.
        """
        view = memoryview(data)
        whole = len(view) // BLOCK * BLOCK
        if self._past is None or whole < _LARGE:
            self._file.pwrite(offset, view)
            return
        self._past.pwrite(offset, view[:whole])
        if whole < len(view):
            self._file.pwrite(offset + whole, view[whole:])

    def clear(self, window: Window) -> None:
        """A device keeps what was on it: the zero blocks of a window have to be written."""
        if self.target.device:
            self._zero(Runs.of(np.flatnonzero(window.locations <= ZERO).astype(np.uint64)), window)

    def lose(self, damage: list[DamagedExtent]) -> None:
        """What cannot be had reads as zeros, on a device too."""
        if self.target.device:
            for extent in damage:
                if extent.older:
                    continue
                self._zero_range(extent.offset, extent.length)

    def sync(self, done: int | None = None) -> None:
        """Make what was written durable; blocks before ``done`` need not be written again."""
        self._file.fdatasync()
        if done is not None and not self.target.device:
            self._remember(done)

    def name(self, *, damaged: bool) -> None:
        """All is written: durable, and under its name. Raises ``TargetError`` if that is taken."""
        if self.target.device:
            self._file.fsync()
            return
        if is_named(self._files, self.target, self._identity):
            return
        if damaged:
            # Salvage is never taken for a whole disk: given again, the command refuses the file.
            self._files.unlink(progress_path(self.target))
        if not durable.finish(self._files, self._file, self.target.partial, self.target.path):
            raise refused(
                self.target, "came into being meanwhile", f"the disk is in {self.target.partial}"
            )

    def settle(self) -> None:
        """All disks have their names: nothing needs to be known of this restore any more.

        What cannot be removed stays: the disks are whole, and that is what counts.
        """
        if not self.target.device:
            with suppress(OSError):
                self._files.unlink(self.target.partial)  # a crash may have left it beside its name
                self._files.unlink(progress_path(self.target))

    def close(self) -> None:
        """Release file and lock. What counts was synced before; an error here says nothing new."""
        for file in filter(None, (self._held, self._past, self._file)):
            with suppress(OSError):
                file.close()

    def _take(self) -> None:
        if not self._file.lock():
            raise refused(self.target, "is being restored by another process", "wait for it")
        if self.target.device:
            self._held = hold(self._files, self.target)
        else:
            self._take_file()
        past = self._files.open_write(self.target.partial, direct=True)
        if _same(past.stat(), self._file.stat()):
            self._past = past
        else:  # somebody has put another one there: what is written must be what is synced
            past.close()

    def _take_file(self) -> None:
        here = self._files.stat(self.target.partial)
        if here is None or not _same(here, self._file.stat()):
            raise refused(self.target, "was just finished by another process", "look at it first")
        self._files.unlink(progress_path(self.target) + durable.TEMP_MARK + _TOKEN)
        self._resume()
        self._file.truncate(self.target.disk.size)

    def _resume(self) -> None:
        """An empty file is begun; another one has to be this restore's own."""
        if self._file.stat().size:
            known = _progress(self._files, self.target)
            if known is None or known["of"] != self._identity:
                raise refused(
                    self.target,
                    "a partial restore of another point lies beside it",
                    f"delete {self.target.partial} and {progress_path(self.target)}, or choose "
                    "another folder",
                )
            if self._file.stat().size == self.target.disk.size:
                self.start = min(known["done"], self.target.disk.blocks)
        if not self.start:
            self._file.truncate(0)
        self._remember(self.start)

    def _remember(self, done: int) -> None:
        own = self._file.stat()
        fields = {"of": self._identity, "done": done, "file": [own.device, own.inode]}
        path = progress_path(self.target)
        durable.replace(self._files, path, json.dumps(fields).encode(), token=_TOKEN)

    def _zero(self, runs: Runs, window: Window) -> None:
        size = self.target.disk.size
        for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
            offset = (window.first + start) * BLOCK
            self._zero_range(offset, min(count * BLOCK, size - offset))

    def _zero_range(self, offset: int, length: int) -> None:
        whole = length // BLOCK * BLOCK  # no device has larger sectors
        if whole:
            self._file.punch(offset, whole)
        if length > whole:
            self._file.pwrite(offset + whole, bytes(length - whole))


def hold(files: Files, target: Target) -> OpenFile:
    """Hold a device against mounting; who holds it already, RAID or LVM say, keeps it."""
    try:
        return files.open_read(target.path, exclusive=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        what = "is in use (mounted, or part of RAID, LVM, swap)"
        raise refused(target, what, "free it first, or give another device") from None


def is_named(files: Files, target: Target, identity: str) -> bool:
    """True if the file under the final name is this very restore's, of which other disks lack."""
    found = files.stat(target.path)
    known = _progress(files, target) if found is not None else None
    return (
        found is not None
        and known is not None
        and known["of"] == identity
        and known["file"] == [found.device, found.inode]
        and found.size == target.disk.size
    )


def progress_path(target: Target) -> str:
    """The file that says what a partial file is."""
    return f"{target.path}.partial.progress"


def refused(target: Target, what: str, hint: str) -> TargetError:
    """The error for a target that is left as it is."""
    return TargetError(what, operation="restore", subject=target.path, hint=hint)


def _progress(files: Files, target: Target) -> dict[str, Any] | None:
    """The progress file's fields, checked; None if it does not exist or is none of ours."""
    path = progress_path(target)
    if files.stat(path) is None:
        return None
    try:
        fields = json.loads(files.read(path, _MAX_PROGRESS))
        right = type(fields["of"]) is str and type(fields["done"]) is int and fields["done"] >= 0
        return fields if right and isinstance(fields["file"], list) else None
    except (ValueError, KeyError, TypeError):
        return None


def _same(one: FileStat, other: FileStat) -> bool:
    return (one.device, one.inode) == (other.device, other.inode)
