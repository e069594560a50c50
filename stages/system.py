"""The real machine behind the ports: the only module of ``stages`` that imports os or time."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import stat as stat_module
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from stages.ports import Buffer, FileStat, Machine, OpenFile

if TYPE_CHECKING:
    from outcome import Outcome  # what trio hands a thread's result over in

T = TypeVar("T")

_FALLOC_PUNCH = 0x02 | 0x01  # PUNCH_HOLE | KEEP_SIZE, linux/falloc.h
_BLKFLSBUF = 0x1261  # linux/fs.h
_BLKZEROOUT = 0x127F
_IOV_MAX = 1024
_NOT_NOW = frozenset((errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL))
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 4 << 20  # malloc.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.monotonic()

    def wall_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await trio.sleep(seconds)


class ThreadOffload:
    """trio's worker threads, at most ``workers`` at a time.

    ``trio.to_thread`` also names the thread, copies the context and takes a token that knows its
    borrower: half of what a hop costs, which a guest's every flush pays twice.
    """

    def __init__(self, workers: int):
        self._places = trio.Semaphore(workers)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread; waits for it even when cancelled."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        try:
            return await _in_thread(call)
        finally:
            self._places.release()

    def lock(self) -> AbstractContextManager[object]:
        """A thread lock."""
        return threading.Lock()


async def _in_thread(call: Callable[[], T]) -> T:
    task = trio.lowlevel.current_task()
    soon = trio.lowlevel.current_trio_token().run_sync_soon

    def deliver(result: Outcome[T]) -> None:
        soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(call, deliver)
    found: T = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
    return found


class SystemEntropy:
    """The kernel's generator."""

    def token(self, size: int) -> bytes:
        """``size`` random bytes."""
        return secrets.token_bytes(size)


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
        view = _flat(target)
        got = 0
        while got < len(view):
            count = os.preadv(self._fd, [view[got:]], offset + got)
            if not count:
                break
            got += count
        return got

    def pread_now(self, offset: int, length: int) -> Buffer | None:
        """preadv2(2) with RWF_NOWAIT; None too where the file system does not know that."""
        data = bytearray(length)
        try:
            count = os.preadv(self._fd, [data], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return None
        return data if count == length else None

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write everything, across short writes."""
        done = os.pwrite(self._fd, data, offset)
        if done == (data.nbytes if isinstance(data, memoryview) else len(data)):
            return
        view = _flat(data)
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], offset + done)

    def append(self, parts: Sequence[Buffer]) -> None:
        """Gather-write everything, across short writes."""
        views = [view for view in map(_flat, parts) if len(view)]
        while views:
            count = os.writev(self._fd, views[:_IOV_MAX])
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if count:
                views[0] = views[0][count:]

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
        return _file_stat(os.fstat(self._fd), self._fd)

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


def _flat(data: Buffer) -> memoryview:
    view = memoryview(data)
    # An empty array of more than one dimension cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _file_stat(found: os.stat_result, fd: int | None) -> FileStat:
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


class SystemFiles:
    """The machine's file systems."""

    def open_read(self, path: str, *, exclusive: bool = False) -> OpenFile:
        """Open read-only."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        if exclusive and stat_module.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        return SystemFile(os.open(path, flags), path)

    def open_write(
        self, path: str, *, create: bool = False, new: bool = False, exclusive: bool = False
    ) -> OpenFile:
        """Open read-write."""
        flags = os.O_RDWR | os.O_CLOEXEC
        if exclusive and stat_module.S_ISBLK(os.stat(path).st_mode):
            flags |= os.O_EXCL
        if new:
            flags |= os.O_CREAT | os.O_EXCL
        elif create:
            flags |= os.O_CREAT
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
        """The whole file, bounded."""
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
                return _file_stat(os.fstat(fd), fd)
            finally:
                os.close(fd)
        return _file_stat(found, None)

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


def find_mount(mountinfo: str, names: set[str], numbers: set[str]) -> str | None:
    """Mount point of the first line whose device number or source is one of these.

    Btrfs shows a number of its own there, so the source counts too. ``mountinfo`` as in proc(5).
    """
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        source = fields[fields.index("-") + 2]
        if fields[2] in numbers or _device_name(source) in names:
            return _unescape(fields[4])
    return None


def find_swap(swaps: str, names: set[str]) -> str | None:
    """``swap`` if a line of /proc/swaps names one of these devices."""
    for line in swaps.splitlines()[1:]:
        path, kind = line.split()[:2]
        if kind == "partition" and _device_name(path) in names:
            return "swap"
    return None


def _device_name(source: str) -> str | None:
    if not source.startswith("/dev/"):
        return None
    return os.path.basename(os.path.realpath(_unescape(source)))


def _unescape(field: str) -> str:
    """Undo the octal escapes of proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


class SocketCalls:
    """Calls on non-blocking sockets (``stages.nbd.quick``)."""

    def receive(self, fd: int, target: memoryview) -> int:
        """readv(2)."""
        return os.readv(fd, [target])

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        """writev(2)."""
        return os.writev(fd, parts)

    def send_file(self, fd: int, file: int, offset: int, count: int) -> int:
        """sendfile(2)."""
        return os.sendfile(fd, file, offset, count)


def give_memory_back() -> None:
    """Keep glibc from holding on to freed memory; nothing where the libc is another.

    By itself it raises its thresholds with every large block freed and then keeps the heap: the
    peak of an initial replication was 253 MB, with a fixed threshold 197 MB, at the same speed.
    """
    tune = getattr(_libc, "mallopt", None)
    if tune is not None:
        tune(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def this_machine(workers: int = 4) -> Machine:
    """Return the real ports; ``workers`` bounds the threads."""
    give_memory_back()
    return Machine(SystemClock(), ThreadOffload(workers), SystemEntropy(), SystemFiles())
