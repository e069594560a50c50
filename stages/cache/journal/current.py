"""The file that a journal appends to now. Its calls block, and come one at a time.

It is written past the page cache, unless guests had to wait for a slow disk because of that: the
page cache takes bursts that such a disk cannot, so the files after that go through it for a while.

Where fsyncs are frequent, zeros are written ahead of the records: an fsync that need not make a new
file size durable costs the file system no transaction. What is behind the last record is cut off
again when the file is full or closed, and by recovery.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from stages.cache.journal.files import JournalFile
from stages.cache.journal.record import FILE_HEAD, encode, file_head
from stages.model import BLOCK
from stages.ports import Buffer, Machine, OpenFile, Sync
from stages.stream import Entry

_ROOMY = 64  # times what is written ahead must be free: the last room is for records
_SLOW = 200e6  # bytes a second
_TELLING = 1 << 20  # bytes of an append whose time says something
_LITTLE = 64 << 10  # bytes that are encoded on the event loop: a hop costs more
_CACHED_FILES = 16  # go through the page cache, before the disk is tried again

Batch = list[tuple[Entry, int]]
"""Entries with their offsets in the stream."""


@dataclass
class Pace:
    """Whether the disk keeps up; one for all files of a run."""

    cached: int = 0  # so many more files go through the page cache

    def took(self, size: int, seconds: float, *, awaited: bool) -> None:
        """An append of ``size`` bytes past the page cache; ``awaited``: a guest had to wait."""
        if awaited and _TELLING <= size < _SLOW * seconds:
            self.cached = _CACHED_FILES

    def next_is_direct(self) -> bool:
        """How the next file is written."""
        if not self.cached:
            return True
        self.cached -= 1
        return False


class Current:
    """``opened`` is the file ``at``, its head durable. ``ahead``: zeros written ahead at a time."""

    def __init__(
        self, machine: Machine, folder: str, at: JournalFile, opened: OpenFile, ahead: int
    ):
        self.at = at
        self.opened = opened
        self._machine = machine
        self._folder = folder
        self._ahead_bytes = ahead
        self._ahead = 0  # zeros reach to this byte

    def append(self, batch: Batch, synced: int) -> None:
        """Write ``batch``; the run is durable up to ``synced``."""
        self.opened.append(self._encoded(batch, synced))

    async def append_durably(self, batch: Batch, synced: int, sync: Sync) -> None:
        """The run is durable up to the end of ``batch`` then."""
        end = self._place(batch[-1][1] + batch[-1][0].size)
        if end <= self._ahead and end - self._place(batch[0][1]) <= _LITTLE:
            await sync.append(self.opened, self._encoded(batch, synced))
        else:
            await self._machine.offload.run(lambda: self._append_durably(batch, synced, end))

    def _append_durably(self, batch: Batch, synced: int, end: int) -> None:
        self.append(batch, synced)
        self._write_ahead(end)
        self.opened.fdatasync()

    def _encoded(self, batch: Batch, synced: int) -> list[Buffer]:
        parts: list[Buffer] = []
        for entry, offset in batch:
            parts += encode(entry, self.at.run, self.at.start, offset, synced)
        return parts

    def finish(self, end: int) -> None:
        """Nothing follows stream offset ``end`` in this file: durable, and no longer than that."""
        self.opened.truncate(self._place(end))
        self._ahead = 0
        self.opened.fsync()

    def close(self) -> None:
        """Release the file."""
        self.opened.close()

    def _place(self, offset: int) -> int:
        return offset - self.at.start + FILE_HEAD

    def _write_ahead(self, end: int) -> None:
        """Zeros behind the record that ends at byte ``end``, unless there are some."""
        if end <= self._ahead:
            return
        end = -(-end // BLOCK) * BLOCK  # zeros up to there come with the record
        with suppress(OSError):  # there is no room for them: then without
            if self._machine.files.free_bytes(self._folder) > _ROOMY * self._ahead_bytes:
                self.opened.pwrite(end, bytes(self._ahead_bytes))
                self._ahead = end + self._ahead_bytes


def new_file(machine: Machine, folder: str, file: JournalFile, *, direct: bool = True) -> OpenFile:
    """Make a file with its head, durably. Blocks."""
    opened = machine.files.open_write(file.path(folder), create=True, direct=direct)
    try:
        opened.append([file_head(file.run, file.start)])
        opened.fsync()
        machine.files.sync_dir(folder)
    except BaseException:
        opened.close()
        raise
    return opened
