"""Files past the page cache (O_DIRECT): for what is written once, or read once, in order.

A journal's bytes are read back once, a moment later, and a vault's seldom: kept in the page cache
they only push out what guests need, and each new page has to be found, charged and written back.
On a virtual machine whose host hands memory out on demand that costs ten times as much as the
copy itself.

The kernel takes whole blocks of the file and of memory, so what is appended goes through a buffer
of whole pages. The block that is not full yet stays in it, and is written again, padded with zeros,
with what follows; ``truncate`` cuts the padding off. A file system that refuses at the first write
(many that accept the flag do) is written to through the page cache from then on.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from stages.ports import Buffer
from stages.system.file import Staged, SystemFile, flat

ALIGN = 4096  # covers the logical block size of every disk that Linux uses with 4 KiB pages
_STAGE = 2 << 20  # bytes in one call
_SPARE = 4  # buffers kept for the next call: a new one has to be paged in
_LARGE = 32 << 10
_REFUSED = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP))

_spare: deque[memoryview] = deque(maxlen=_SPARE)  # its methods are atomic


@contextmanager
def _staged() -> Iterator[memoryview]:
    """Pages of memory, with anything in them. As many are in use as calls run side by side."""
    try:
        stage = _spare.pop()
    except IndexError:
        stage = _new_stage()
    try:
        yield stage
    finally:
        _spare.append(stage)


def _new_stage() -> memoryview:
    pages = mmap.mmap(-1, _STAGE, flags=mmap.MAP_PRIVATE)
    with suppress(OSError):  # the kernel knows no huge pages: then small ones
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


def open_direct(path: str, flags: int) -> tuple[int, bool]:
    """A descriptor, and whether it goes past the page cache.

    With larger pages than ``ALIGN`` it does not: one could then hold what is written past it beside
    what is not.
    """
    if mmap.PAGESIZE <= ALIGN:
        try:
            return os.open(path, flags | os.O_DIRECT, 0o600), True
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
    # A file that this call has made is there now, and the only one who knows it is us.
    return os.open(path, flags & ~os.O_EXCL, 0o600), False


class _Direct(SystemFile):
    """``direct``: as ``open_direct`` has told."""

    def __init__(self, fd: int, path: str, *, direct: bool):
        super().__init__(fd, path)
        self._is_direct = direct

    def _give_up(self) -> None:
        """Through the page cache from here on."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._is_direct = False


class DirectWriter(_Direct):
    """A file that is appended to from its start. Between appends it may be longer than what was
    appended, by less than ``ALIGN`` zeros."""

    def __init__(self, fd: int, path: str, *, direct: bool):
        super().__init__(fd, path, direct=direct)
        self._base = 0  # file offset of the tail, whole blocks
        self._tail = b""  # what is in the block that is not full

    def append(self, parts: Sequence[Buffer]) -> None:
        """Write everything; the last block stays in memory for the next call."""
        with _staged() as stage:
            self._append(stage, parts)

    def _append(self, stage: memoryview, parts: Sequence[Buffer]) -> None:
        filled = len(self._tail)
        stage[:filled] = self._tail
        for part in map(flat, parts):
            at, size = 0, len(part)
            while at < size:
                count = min(size - at, _STAGE - filled)
                _copy(stage[filled : filled + count], part[at : at + count])
                filled += count
                at += count
                if filled == _STAGE:
                    self._write(stage, self._base)
                    self._base += _STAGE
                    filled = 0
        whole = filled // ALIGN * ALIGN
        if filled:
            padded = -(-filled // ALIGN) * ALIGN
            stage[filled:padded] = bytes(padded - filled)
            self._write(stage[:padded], self._base)
        self._base += whole
        self._tail = bytes(stage[whole:filled])

    def stage(self, parts: Sequence[Buffer], stage: memoryview) -> Staged | None:
        """See ``SystemFile``."""
        filled = len(self._tail)
        views = [flat(part) for part in parts]
        end = filled + sum(map(len, views))
        padded = -(-end // ALIGN) * ALIGN
        if padded > len(stage) or end == filled:
            return None
        stage[:filled] = self._tail
        for view in views:
            stage[filled : filled + len(view)] = view
            filled += len(view)
        stage[end:padded] = bytes(padded - end)
        whole = end // ALIGN * ALIGN
        return Staged(self._base, padded, self._base + whole, bytes(stage[whole:end]))

    def staged(self, done: Staged) -> None:
        """See ``SystemFile``."""
        self._base, self._tail = done.base, done.tail

    def pwrite(self, offset: int, data: Buffer) -> None:
        """Write somewhere behind what was appended: ``offset`` and length in whole blocks.

        From memory of whole pages without a copy.
        """
        view = flat(data)
        if offset % ALIGN or len(view) % ALIGN:
            raise ValueError(f"{len(view)} bytes at {offset}: not whole blocks")
        if len(view) and not np.frombuffer(view, np.uint8).ctypes.data % ALIGN:
            self._write(view, offset)
            return
        with _staged() as stage:
            for at in range(0, len(view), _STAGE):
                piece = view[at : at + _STAGE]
                _copy(stage[: len(piece)], piece)
                self._write(stage[: len(piece)], offset + at)

    def truncate(self, size: int) -> None:
        """Set the size; nothing is appended after that."""
        super().truncate(size)
        self._tail = b""
        self._base = -(-size // ALIGN) * ALIGN

    def _write(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self._fd, view[done:], offset + done)
            except OSError as error:
                if error.errno not in _REFUSED or not self._is_direct:
                    raise
                self._give_up()
            else:
                if done % ALIGN and self._is_direct:  # the disk is full within a block
                    self._give_up()


class DirectReader(_Direct):
    """A file that is read once, in large pieces."""

    def pread(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes."""
        if not self._is_direct:
            return super().pread(offset, length)
        with _staged() as stage:
            return self._pieces(stage, offset, length)

    def _pieces(self, stage: memoryview, offset: int, length: int) -> bytes:
        found: list[bytes] = []
        at, end = offset, offset + length
        while at < end:
            start = at // ALIGN * ALIGN
            want = min(-(-end // ALIGN) * ALIGN - start, _STAGE)
            try:
                count = os.preadv(self._fd, [stage[:want]], start)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self._give_up()
                found.append(super().pread(at, end - at))
                break
            piece = stage[at - start : min(count, end - start)]
            if not len(piece):
                break
            found.append(bytes(piece))
            at += len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def pread_into(self, offset: int, target: memoryview) -> int:
        """Fill ``target``."""
        view = flat(target)
        data = self.pread(offset, len(view))
        view[: len(data)] = data
        return len(data)


def _copy(target: memoryview, source: memoryview) -> None:
    """Large pieces without the interpreter's lock, which the event loop may want."""
    if len(source) < _LARGE:
        target[:] = source
    else:
        np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))
