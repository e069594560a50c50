"""The machine's file systems."""

from __future__ import annotations

import errno
import os
import stat as stat_module
import tempfile
from pathlib import Path

from stages.ports import FileStat, OpenFile
from stages.system.direct import DirectReader, DirectWriter, open_direct
from stages.system.file import SystemFile, file_stat
from stages.system.mounts import find_mount, find_swap


class SystemFiles:
    """The machine's file systems."""

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> OpenFile:
        """Open read-only."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        if direct:
            fd, past = open_direct(path, flags)
            return DirectReader(fd, path, direct=past)
        if exclusive and stat_module.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        return SystemFile(os.open(path, flags), path)

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> OpenFile:
        """Open read-write."""
        flags = os.O_RDWR | os.O_CLOEXEC
        if exclusive and stat_module.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        if new:
            flags |= os.O_CREAT | os.O_EXCL
        elif create:
            flags |= os.O_CREAT
        if direct:
            fd, past = open_direct(path, flags)
            return DirectWriter(fd, path, direct=past)
        return SystemFile(os.open(path, flags, 0o600), path)

    def open_append(self, path: str) -> OpenFile:
        """Open to append (and to read, for recovery)."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return SystemFile(os.open(path, flags, 0o600), path)

    def scratch(self, directory: str | None = None) -> OpenFile:
        """mkstemp and unlink: O_TMPFILE is not on every file system."""
        fd, path = tempfile.mkstemp(prefix="backstay-", dir=directory)
        os.unlink(path)
        return SystemFile(fd, path)

    def read(self, path: str, limit: int) -> bytes:
        """The whole file; ``EFBIG`` if it has more than ``limit`` bytes."""
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        return data

    def stat(self, path: str) -> FileStat | None:
        """stat(2); for a block device with its capacity."""
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat_module.S_ISBLK(found.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return file_stat(os.fstat(fd), fd)
            finally:
                os.close(fd)
        return file_stat(found, None)

    def listdir(self, path: str) -> list[str]:
        """Sorted names."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def mkdir(self, path: str) -> None:
        """mkdir(2), mode 0700. ``FileNotFoundError`` also if it is removed at the same moment."""
        try:
            os.mkdir(path, 0o700)
        except FileExistsError as error:
            found = self.stat(path)
            if found is None and not os.path.islink(path):
                raise FileNotFoundError(errno.ENOENT, "removed meanwhile", path) from error
            if found is None or not found.is_dir:
                raise

    def link(self, source: str, target: str) -> bool:
        """link(2)."""
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        return True

    def rename(self, source: str, target: str) -> None:
        """rename(2)."""
        os.rename(source, target)

    def unlink(self, path: str) -> bool:
        """unlink(2)."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        return True

    def rmdir(self, path: str) -> bool:
        """rmdir(2)."""
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def sync_dir(self, path: str) -> None:
        """fsync(2) of a directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        """statvfs(3)."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def mounted(self, path: str) -> str | None:
        """Look the device, and the partitions on it, up in mountinfo and swaps."""
        found = os.stat(path)
        if not stat_module.S_ISBLK(found.st_mode):
            return None
        name = os.path.basename(os.path.realpath(path))
        names = {name}
        numbers = {f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"}
        for part in Path(f"/sys/class/block/{name}").glob("*/dev"):
            names.add(part.parent.name)
            numbers.add(part.read_text().strip())
        mounts = Path("/proc/self/mountinfo").read_text()
        return find_mount(mounts, names, numbers) or find_swap(
            Path("/proc/swaps").read_text(), names
        )
