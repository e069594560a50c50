"""A disk at rest: open it with all its checks, and say at the end whether it stayed the same.

A file's identity is its inode, size, mtime and ctime. Kernels stamp times in ticks of up to 10 ms,
so a write just after the first look could leave them as they were: a file that was changed a
moment ago is looked at again after the tick has passed, and one that changed again is in use.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from stages.errors import BackstayError, SourceBusy, SourceIO, SourceMissing, SourceShrunk
from stages.model import Disk
from stages.ports import Clock, Files, FileStat, Offload, OpenFile

T = TypeVar("T")

TICK = 0.05  # seconds; the coarsest kernel tick is 10 ms (HZ=100)

_ABSENT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.ENODEV,
        errno.ENOMEDIUM,
    }
)
# A file system that cannot lock, or (NFS) not a file opened for reading.
_NO_LOCKS = frozenset({errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class ScanDisk:
    """A disk of the group and where it is."""

    disk: Disk
    path: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What changes when a file is written to or replaced. Bytes and nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @staticmethod
    def of(stat: FileStat) -> Identity:
        """Taken from ``stat``."""
        return Identity(stat.device, stat.inode, stat.size, stat.mtime_ns, stat.ctime_ns)

    def age(self, now_us: int) -> float:
        """Seconds since the last change, negative if that lies in the future."""
        return now_us / 1e6 - max(self.mtime_ns, self.ctime_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Source:
    """An open disk. ``exclusive``: nobody else can have mounted it; ``steady``: no writer seen.

    ``held``: a snapshot hook keeps a mounted device still, and what was cached of it is dropped.
    """

    target: ScanDisk
    file: OpenFile
    start: Identity
    is_block: bool
    exclusive: bool
    steady: bool
    held: bool

    def require_size(self) -> Identity:
        """The identity now. Raises ``SourceShrunk`` if the disk has become smaller."""
        now = Identity.of(_guard(self.file.stat, self.target.path))
        if now.size < self.target.disk.size:
            raise _shrunk(self.target, now.size)
        return now

    def quiet(self) -> bool:
        """Was the disk at rest from when it was opened until now? Raises like ``require_size``.

        A disk larger than its machine record is not: part of it was not scanned.
        """
        now = self.require_size()
        if self.is_block:
            return (self.exclusive or self.held) and now.size == self.target.disk.size
        return self.steady and now == self.start and now.size == self.target.disk.size


async def open_source(
    target: ScanDisk, *, files: Files, offload: Offload, clock: Clock, snapshot: bool
) -> Source:
    """Open a disk for a scan at rest; the caller closes ``Source.file``.

    ``snapshot``: a hook keeps the disk still, so a mounted device is opened all the same. Raises
    ``SourceMissing``, ``SourceShrunk``, ``SourceBusy``, ``SourceIO``.
    """
    source = await offload.run(lambda: _open(files, target, snapshot=snapshot))
    try:
        if not _racy(source.start, clock):
            return source
        await clock.sleep(TICK)
        again = await offload.run(source.require_size)
        return replace(source, start=again, steady=again == source.start)
    except BaseException:
        source.file.close()
        raise


def _racy(identity: Identity, clock: Clock) -> bool:
    return abs(identity.age(clock.wall_us())) < TICK


def _open(files: Files, target: ScanDisk, *, snapshot: bool) -> Source:
    path = target.path
    found = _guard(lambda: files.stat(path), path)
    if found is None:
        raise _missing(path, "does not exist")
    if not (found.is_file or found.is_block):
        raise _missing(path, "is neither a file nor a block device")
    file, exclusive = _open_file(files, path, snapshot=snapshot)
    try:
        stat = _guard(file.stat, path)
        held = stat.is_block and not exclusive and file.forget_cache()
        source = Source(target, file, Identity.of(stat), stat.is_block, exclusive, True, held)
        source.require_size()
        if stat.is_file:
            _lock(file)
    except BaseException:
        file.close()
        raise
    return source


def _open_file(files: Files, path: str, *, snapshot: bool) -> tuple[OpenFile, bool]:
    """The open file, and whether it was opened exclusively."""
    try:
        return files.open_read(path, exclusive=True), True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise _refused(error, path) from error
        if not snapshot:
            raise _busy(files, path) from error
    return _guard(lambda: files.open_read(path), path), False


def _lock(file: OpenFile) -> None:
    """Keep a second Backstay away from the same file; released with the descriptor."""
    try:
        free = file.lock()
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        raise _refused(error, file.path) from error
    if not free:
        raise SourceBusy(
            "is already protected by another process, or by another entry of this configuration",
            operation="open disk",
            subject=file.path,
            hint="find it with `fuser -v` on the file; a disk can be protected only once",
        )


def _busy(files: Files, path: str) -> SourceBusy:
    try:
        where = files.mounted(path)
    except OSError:
        where = None
    return SourceBusy(
        f"is mounted on {where}" if where else "is in use (mounted, or part of RAID, LVM, swap)",
        operation="open disk",
        subject=path,
        hint="unmount it, configure a `snapshot` hook, or capture it with `capture: nbd`",
    )


def _shrunk(target: ScanDisk, size: int) -> SourceShrunk:
    return SourceShrunk(
        f"has {size} bytes, {target.disk.size} are protected",
        operation="open disk",
        subject=target.path,
        hint="if it was made smaller on purpose, say so with a new size for the disk; "
        "else the path may name another disk",
    )


def _missing(path: str, what: str) -> SourceMissing:
    return SourceMissing(
        what, operation="open disk", subject=path, hint="check the disk's `path` in the config"
    )


def _refused(error: OSError, path: str) -> BackstayError:
    if error.errno in _ABSENT:
        return _missing(path, error.strerror or "is absent")
    denied = error.errno in {errno.EACCES, errno.EPERM}
    return SourceIO(
        error.strerror or str(error),
        operation="open disk",
        subject=path,
        hint="run as a user that may read it" if denied else "check the disk and the kernel log",
    )


def _guard(call: Callable[[], T], path: str) -> T:
    """Do ``call``, its ``OSError`` in words."""
    try:
        return call()
    except OSError as error:
        raise _refused(error, path) from error
