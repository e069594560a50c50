"""Restoring onto a disk that holds something alike: compare block by block, write what differs.

The target is an existing file or block device; this is the way back to a site that was left. It is
read where the point has content or zeros, and only blocks that differ are written; what was written
is read back from the disk after each sync. Nothing notes how far it is: a disk may be changed by
others between two runs, so the same command compares again, and finds that what is done is equal.

A larger file is cut only after all else is durable, so until then nothing of it is lost that the
point does not replace.

All calls block; what the file system refuses is an ``OSError``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress

import numpy as np

from stages.crypto.digest import digest
from stages.model import BLOCK, Ints, Runs
from stages.ports import Buffer, Files, OpenFile
from stages.recover.extract import DamagedExtent
from stages.recover.sweep import Window
from stages.recover.target import Target, hold, refused
from stages.vault.location import ZERO

_STEP = 1 << 20  # bytes compared at a time
_PENDING = 4096  # written stretches that may wait to be read back
_WORDS = BLOCK // 8


class Onto:
    """An opened and locked target that holds something already. ``lock`` guards the counts.

    ``compared`` bytes of it were held against the point so far, ``written`` bytes differed.
    """

    def __init__(
        self, files: Files, target: Target, file: OpenFile, lock: AbstractContextManager[object]
    ):
        self.target = target
        self.start = 0
        self.compared = 0
        self.written = 0
        self._files = files
        self._file = file
        self._lock = lock
        self._held: OpenFile | None = None
        self._pending: deque[tuple[int, int, bytes]] = deque()  # offset, length, digest

    @staticmethod
    def open(files: Files, target: Target, lock: AbstractContextManager[object]) -> Onto:
        """Open and lock it; a file that is too small grows. Raises ``TargetError`` if in use."""
        onto = Onto(files, target, files.open_write(target.path), lock)
        try:
            onto._take()
        except BaseException:
            onto.close()
            raise
        return onto

    def write(self, offset: int, data: Buffer) -> None:
        """Write those blocks of the content that differ; from several threads."""
        view = memoryview(data)
        for at in range(0, len(view), _STEP):
            want = view[at : at + _STEP]
            have = self._read(offset + at, len(want))
            for start, length in _differing(have, want):
                piece = want[start : start + length]
                self._file.pwrite(offset + at + start, piece)
                self._wrote(offset + at + start, length, digest((piece,)))
            self._count(len(want), 0)

    def clear(self, window: Window) -> None:
        """Make the zero blocks of a window zeros, where they are not."""
        runs = Runs.of(np.flatnonzero(window.locations <= ZERO).astype(np.uint64))
        size = self.target.disk.size
        for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
            offset = (window.first + start) * BLOCK
            self._zero(offset, min(count * BLOCK, size - offset))

    def lose(self, damage: list[DamagedExtent]) -> None:
        """What cannot be had reads as zeros: what is there now is of no known moment."""
        for extent in damage:
            if not extent.older:
                self._zero(extent.offset, extent.length)

    def sync(self, done: int | None = None) -> None:
        """Make what was written durable, and read it back. Raises ``TargetError`` if it differs."""
        waiting = len(self._pending)  # what is written from here on waits for the next sync
        self._file.fdatasync()
        if not waiting:
            return
        back = self._files.open_read(self.target.path, direct=True)
        try:
            for _ in range(waiting):
                try:
                    offset, length, known = self._pending.popleft()
                except IndexError:  # another thread has read it back
                    return
                if digest((back.pread(offset, length),)) != known:
                    raise refused(
                        self.target,
                        f"{length} bytes at {offset} read back differently than they were written",
                        "the disk or its cable may be failing, or something else writes to it",
                    )
        finally:
            back.close()

    def name(self, *, damaged: bool) -> None:
        """All is written: durable, and a file that is too large is cut."""
        self.sync()
        if not self.target.device and self._file.stat().size > self.target.disk.size:
            self._file.truncate(self.target.disk.size)
        self._file.fsync()

    def settle(self) -> None:
        """Nothing lies beside the target."""

    def close(self) -> None:
        """Release file and lock. What counts was synced before; an error here says nothing new."""
        for file in filter(None, (self._held, self._file)):
            with suppress(OSError):
                file.close()

    def _take(self) -> None:
        if not self._file.lock():
            what = "is in use by another process: being protected, restored or served"
            raise refused(self.target, what, "stop that first")
        if self.target.device:
            self._held = hold(self._files, self.target)
            return
        found, size = self._file.stat(), self.target.disk.size
        if found.size != size and not self.target.resize:
            raise refused(self.target, "was changed meanwhile", "look at it first")
        if found.size < size:
            self._file.truncate(size)

    def _read(self, offset: int, length: int) -> bytes:
        have = self._file.pread(offset, length)
        if len(have) != length:
            raise refused(self.target, "was cut meanwhile", "something else writes to it")
        return have

    def _zero(self, offset: int, length: int) -> None:
        """Zeros for a range; holes of a file are skipped unread."""
        end = offset + length
        at: int | None = offset
        while at is not None and at < end:
            data = self._file.next_data(at)
            if data is None or data >= end:
                break
            at += (data - at) // BLOCK * BLOCK
            step = min(_STEP, end - at)
            for start, count in _differing(self._read(at, step), None):
                self._write_zeros(at + start, count)
            at += step
        self._count(length, 0)

    def _write_zeros(self, offset: int, length: int) -> None:
        whole = length // BLOCK * BLOCK  # no device has larger sectors
        if whole:
            self._file.punch(offset, whole)
        if length > whole:
            self._file.pwrite(offset + whole, bytes(length - whole))
        self._wrote(offset, length, digest((bytes(length),)))

    def _wrote(self, offset: int, length: int, known: bytes) -> None:
        self._pending.append((offset, length, known))
        self._count(0, length)
        if len(self._pending) > _PENDING:
            self.sync()

    def _count(self, compared: int, written: int) -> None:
        with self._lock:
            self.compared += compared
            self.written += written


def differing(have: Buffer, want: Buffer | None) -> Ints:
    """Numbers (n,) of the blocks in which two buffers of one length differ; None is all zeros.

    The last block may be a part of one.
    """
    length = len(have)
    whole = length // BLOCK
    here = np.frombuffer(have, np.uint64, whole * _WORDS).reshape(whole, _WORDS)
    if want is None:
        found = here.any(axis=1)
        tail = any(bytes(have[whole * BLOCK :]))
    else:
        there = np.frombuffer(want, np.uint64, whole * _WORDS).reshape(whole, _WORDS)
        found = (here != there).any(axis=1)
        tail = bytes(have[whole * BLOCK :]) != bytes(want[whole * BLOCK :])
    blocks: Ints = np.flatnonzero(found)
    return np.append(blocks, whole) if tail else blocks


def _differing(have: bytes, want: Buffer | None) -> Iterator[tuple[int, int]]:
    """The stretches, offset and length in bytes, of blocks that differ."""
    if want is not None and have == want:
        return
    runs = Runs.of(differing(have, want).astype(np.uint64))
    for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
        yield start * BLOCK, min(count * BLOCK, len(have) - start * BLOCK)
