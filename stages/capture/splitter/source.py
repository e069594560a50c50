"""A disk that is written through the splitter: opened for us alone, and identified (R6)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from stages.errors import BackstayError, SourceBusy, SourceIO, SourceMissing
from stages.ports import Files, FileStat, OpenFile

_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV))
_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))


@dataclass(frozen=True, slots=True)
class LiveSource:
    """An open disk. ``size`` in bytes, as it was when it was opened."""

    path: str
    file: OpenFile
    size: int
    is_block: bool

    def identity(self) -> dict[str, int]:
        """What changes when somebody else writes to it; call it with nothing in flight."""
        return identity_of(self.file.stat())

    def size_now(self) -> int:
        """Bytes that it has now. Blocks."""
        return self.file.stat().size

    def is_at(self, found: FileStat) -> bool:
        """It is the file that was ``found``."""
        ours = self.file.stat()
        return (ours.device, ours.inode) == (found.device, found.inode)

    def unchanged_since(self, noted: Mapping[str, int] | None) -> bool:
        """False if it may have been written to while it was detached. A block device always may:
        it carries no times of its own."""
        return not self.is_block and noted is not None and dict(noted) == self.identity()


def identity_of(stat: FileStat) -> dict[str, int]:
    """Inode, size, mtime and ctime (nanoseconds)."""
    return {
        "device": stat.device,
        "inode": stat.inode,
        "size": stat.size,
        "mtime_ns": stat.mtime_ns,
        "ctime_ns": stat.ctime_ns,
    }


def open_live(files: Files, path: str) -> LiveSource:
    """Open a disk to read and write; nobody else may have it. Blocks.

    Raises ``SourceMissing``, ``SourceBusy``, ``SourceIO``.
    """
    try:
        found = files.stat(path)
        if found is None:
            raise _missing(path, "does not exist")
        if not (found.is_file or found.is_block):
            raise _missing(path, "is neither a file nor a block device")
        file = files.open_write(path, exclusive=True)
    except OSError as error:
        raise _refused(error, path, files) from error
    try:
        stat = _sized(file)
        _lock(file, path)
    except OSError as error:
        file.close()
        raise _refused(error, path, files) from error
    except BaseException:
        file.close()
        raise
    return LiveSource(path, file, stat.size, stat.is_block)


def _sized(file: OpenFile) -> FileStat:
    stat = file.stat()
    if not stat.size:
        raise _missing(file.path, "is empty")
    return stat


def _lock(file: OpenFile, path: str) -> None:
    try:
        free = file.lock()
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        raise
    if not free:
        raise SourceBusy(
            "is already protected by another process, or by another entry of this configuration",
            operation="open disk",
            subject=path,
            hint="find it with `fuser -v` on the file; a disk can be protected only once",
        )


def _refused(error: OSError, path: str, files: Files) -> BackstayError:
    if error.errno in _ABSENT:
        return _missing(path, error.strerror or "is absent")
    if error.errno in (errno.EBUSY, errno.ETXTBSY):
        try:
            where = files.mounted(path)
        except OSError:
            where = None
        return SourceBusy(
            f"is mounted on {where}" if where else "is in use (mounted, or part of RAID or LVM)",
            operation="open disk",
            subject=path,
            hint="the disk of a live capture is used through its NBD socket only: unmount it",
        )
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return SourceIO(
        error.strerror or str(error),
        operation="open disk",
        subject=path,
        hint="run as a user that may write it" if denied else "check the disk and the kernel log",
    )


def _missing(path: str, what: str) -> SourceMissing:
    return SourceMissing(
        what, operation="open disk", subject=path, hint="check the disk's `path` in the config"
    )
