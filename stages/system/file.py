"""An open file or block device, by its descriptor."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat as stat_module
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from stages.ports import Buffer, FileStat

_FALLOC_PUNCH = 0x02 | 0x01  # PUNCH_HOLE | KEEP_SIZE, linux/falloc.h
_BLKFLSBUF = 0x1261  # linux/fs.h
_BLKZEROOUT = 0x127F
_IOV_MAX = 1024
_NOT_NOW = frozenset((errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL))
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Staged:
    """An append that somebody else writes: ``length`` bytes for ``offset``, and what the file is
    then: the next append begins at ``base`` with ``tail``."""

    offset: int
    length: int
    base: int
    tail: bytes = b""


class SystemFile:
    """A descriptor with the calls of ``OpenFile``."""

    def __init__(self, fd: int, path: str):
        self._fd = fd
        self.path = path

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def pread(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes, across short reads."""
        data = os.pread(self._fd, length, offset)
        if len(data) in (0, length):
            return data
        rest = [data]
        got = len(data)
        while got < length and (data := os.pread(self._fd, length - got, offset + got)):
            rest.append(data)
            got += len(data)
        return b"".join(rest)

    def pread_into(self, offset: int, target: memoryview) -> int:
        """Fill ``target``, across short reads."""
        view = flat(target)
        got = 0
        while got < len(view):
            count = os.preadv(self._fd, [view[got:]], offset + got)
            if not count:
                break
            got += count
        return got

    def pread_now(self, offset: int, length: int) -> Buffer | None:
        """See ``fill_now``."""
        data = bytearray(length)
        return data if self.fill_now(offset, memoryview(data)) else None

    def fill_now(self, offset: int, target: memoryview) -> bool:
        """preadv2(2) with RWF_NOWAIT; False too where the file system does not know that."""
        try:
            return os.preadv(self._fd, [target], offset, os.RWF_NOWAIT) == len(target)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return False

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write everything, across short writes."""
        done = os.pwrite(self._fd, data, offset)
        if done == (data.nbytes if isinstance(data, memoryview) else len(data)):
            return
        view = flat(data)
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], offset + done)

    def append(self, parts: Sequence[Buffer]) -> None:
        """Gather-write everything, across short writes."""
        views = [view for view in map(flat, parts) if len(view)]
        while views:
            count = os.writev(self._fd, views[:_IOV_MAX])
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

    def stage(self, parts: Sequence[Buffer], stage: memoryview) -> Staged | None:
        """Put an append into ``stage``, for somebody else to write; nothing has changed here until
        ``staged`` says that it was. None if it cannot go that way, or does not fit."""
        views = [flat(part) for part in parts]
        size = sum(map(len, views))
        if not 0 < size <= len(stage) or fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_APPEND:
            return None
        at = 0
        for view in views:
            stage[at : at + len(view)] = view
            at += len(view)
        offset = os.lseek(self._fd, 0, os.SEEK_CUR)
        return Staged(offset, size, offset + size)

    def staged(self, done: Staged) -> None:
        """It was written."""
        os.lseek(self._fd, done.base, os.SEEK_SET)

    def truncate(self, size: int) -> None:
        """Set the size."""
        os.ftruncate(self._fd, size)

    def punch(self, offset: int, length: int) -> None:
        """Punch a hole, or zero the range of a block device."""
        if stat_module.S_ISBLK(os.fstat(self._fd).st_mode):
            fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("=QQ", offset, length))
        elif _libc.fallocate(self._fd, _FALLOC_PUNCH, offset, length) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self.path)

    def fsync(self) -> None:
        """fsync(2)."""
        os.fsync(self._fd)

    def fdatasync(self) -> None:
        """fdatasync(2)."""
        os.fdatasync(self._fd)

    def stat(self) -> FileStat:
        """fstat(2), with a block device's capacity as its size."""
        return file_stat(os.fstat(self._fd), self._fd)

    def next_data(self, offset: int) -> int | None:
        """SEEK_DATA; everything is data where the file system knows no holes."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            if error.errno == errno.EINVAL:
                return offset
            raise

    def next_hole(self, offset: int) -> int:
        """SEEK_HOLE."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EINVAL):
                return self.stat().size
            raise

    def forget_cache(self) -> bool:
        """BLKFLSBUF."""
        try:
            fcntl.ioctl(self._fd, _BLKFLSBUF)
        except OSError:
            return False
        return True

    def lock(self) -> bool:
        """flock(2), not waiting."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """close(2), once."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def flat(data: Buffer) -> memoryview:
    """As single bytes."""
    view = memoryview(data)
    # An empty array of more than one dimension cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def file_stat(found: os.stat_result, fd: int | None) -> FileStat:
    """What ``stat`` tells, with the capacity of the block device that ``fd`` is."""
    size = found.st_size
    if stat_module.S_ISBLK(found.st_mode) and fd is not None:
        size = os.lseek(fd, 0, os.SEEK_END)
    return FileStat(
        device=found.st_dev,
        inode=found.st_ino,
        size=size,
        allocated=found.st_blocks * 512,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        is_file=stat_module.S_ISREG(found.st_mode),
        is_block=stat_module.S_ISBLK(found.st_mode),
        is_dir=stat_module.S_ISDIR(found.st_mode),
        mode=stat_module.S_IMODE(found.st_mode),
    )
