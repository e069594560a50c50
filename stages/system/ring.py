"""io_uring(7), as little of it as it takes: the kernel writes and fsyncs beside the event loop.

Through ctypes, because the standard library knows nothing of it. Two rings of memory are shared
with the kernel: what is to be done goes into one, what came of it into the other, and an eventfd
tells that something did. Only the thread that made it uses it. Other processors reorder what they
read and write, which only a compiler could prevent here: on those there is no ring.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_SETUP, _ENTER, _REGISTER = 425, 426, 427  # the same numbers on all processors
_FSYNC, _WRITE = 3, 23  # opcodes, linux/io_uring.h
_LINK, _ASYNC, _SILENT = 1 << 2, 1 << 4, 1 << 6  # flags of an entry
_DATASYNC = 1
_EVENTFD, _WORKERS = 4, 19  # of io_uring_register
_NEEDED = 1 << 9 | 1 << 11  # since Linux 5.17: threads of this process, silent entries
_MOST_WORKERS = 256  # threads of the kernel, for each process: hanging disks take some
_SQES = 0x10000000  # where the entries are mapped
_PARAMS = struct.Struct("<30I")
_SQE = struct.Struct("<BBHiQQIIQHHiQQ")
_CQE = struct.Struct("<QiI")
_WRAP = 0xFFFFFFFF
_TRIES = 8

_libc = ctypes.PyDLL(None, use_errno=True)  # none of these calls waits for a disk
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Operation:
    """``address`` of ``length`` bytes that are written at ``offset``; of none: an fdatasync.

    A write is linked to the operation after it, which begins when it has succeeded in full: then
    nothing is told of the write, else nothing of that operation.
    """

    fd: int
    address: int = 0
    length: int = 0
    offset: int = 0

    def packed(self, number: int) -> tuple[int, ...]:
        """As an entry; ``number`` comes back with its outcome."""
        code, flags, how = _FSYNC, 0, _DATASYNC
        if self.length:
            code, flags, how = _WRITE, _LINK | _ASYNC | _SILENT, 0
        place = (self.fd, self.offset, self.address, self.length, how)
        return (code, flags, 0, *place, number, 0, 0, 0, 0, 0)


class Ring:
    """Raises ``OSError`` where the kernel has none, or does not let us have one."""

    def __init__(self, entries: int):
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, "no ring on this processor")
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = _called(_SETUP, entries, ctypes.byref(params))
        found = _PARAMS.unpack(params.raw)
        self._map(found)
        self.events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        _called(_REGISTER, self._fd, _EVENTFD, ctypes.byref(ctypes.c_int(self.events)), 1)
        workers = (ctypes.c_uint * 2)(_MOST_WORKERS, 0)
        _syscall(_REGISTER, self._fd, _WORKERS, ctypes.byref(workers), 2)  # old kernels refuse

    def _map(self, found: Sequence[int]) -> None:
        if found[5] & _NEEDED != _NEEDED:
            raise OSError(errno.ENOSYS, "the kernel's ring is too old")
        submit, complete = found[10:20], found[20:30]
        size = max(submit[6] + found[0] * 4, complete[5] + found[1] * _CQE.size)
        how = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._memory = mmap.mmap(self._fd, size, how)
        self._sqes = mmap.mmap(self._fd, found[0] * _SQE.size, how, offset=_SQES)
        words = self._words = memoryview(self._memory).cast("I")
        self._tail, self._mask = submit[1] // 4, words[submit[2] // 4]
        self._done_head, self._done_tail = complete[0] // 4, complete[1] // 4
        self._done_mask, self._cqes = words[complete[2] // 4], complete[5]
        for entry in range(found[0]):
            words[submit[6] // 4 + entry] = entry

    def __del__(self) -> None:
        for fd in (getattr(self, "_fd", -1), getattr(self, "events", -1)):
            if fd >= 0:
                os.close(fd)

    def submit(self, operations: Sequence[Operation], first: int) -> int:
        """Begin them, as numbers from ``first``. How many have begun: the rest never will."""
        tail = self._words[self._tail]
        for number, operation in enumerate(operations, first):
            at = (tail + number - first) & self._mask
            _SQE.pack_into(self._sqes, at * _SQE.size, *operation.packed(number))
        begun = 0
        self._words[self._tail] = (tail + len(operations)) & _WRAP
        for _ in range(_TRIES):
            taken = _syscall(_ENTER, self._fd, len(operations) - begun, 0, 0, None, 0)
            begun += max(taken, 0)
            if begun == len(operations):
                break
        else:
            self._words[self._tail] = (tail + begun) & _WRAP
        return begun

    def outcomes(self) -> list[tuple[int, int]]:
        """Numbers of what is over since the last call, each with its result: 0, an error number
        below that, or how much was written where it was not all."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.events)
        head, tail = self._words[self._done_head], self._words[self._done_tail]
        found = []
        while head != tail:
            at = self._cqes + (head & self._done_mask) * _CQE.size
            number, result, _ = _CQE.unpack_from(self._memory, at)
            found.append((number, result))
            head = (head + 1) & _WRAP
        self._words[self._done_head] = head
        return found


def _called(*arguments: object) -> int:
    found: int = _syscall(*arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def pages(size: int) -> tuple[memoryview, int]:
    """Memory of whole pages, and its address."""
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    return memoryview(made), ctypes.addressof(ctypes.c_char.from_buffer(made))
