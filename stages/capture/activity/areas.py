"""The activity log's file: two areas, of which one has a snapshot and the changes since (R6).

All calls block; one at a time, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from stages import durable
from stages.capture.activity.codec import (
    Changes,
    Found,
    area_size,
    frame,
    framed_size,
    pack_snapshot,
)
from stages.ports import Machine, OpenFile

_SLACK = 256  # bytes that a record may need beside its payload


class LogFile:
    """The file at ``path``. ``lost``: nobody can tell any more which file has its name."""

    def __init__(self, machine: Machine, path: str):
        self.lost = False
        self._machine = machine
        self._path = path
        self._file: OpenFile | None = None
        self._area = self._size = self._at = 0
        self._snapshots = 0

    def append(self, changes: Changes, whole: Callable[[], Found]) -> None:
        """Durable on return. What does not fit goes into a snapshot of the ``whole``, with the
        changes in it, in the other area."""
        payload = changes.pack()
        if self._at + framed_size(payload) + _SLACK > self._size:
            self.switch(whole())
            return
        record = frame(payload, self._snapshots, self._at)
        self._open.pwrite(self._area * self._size + self._at, record)
        self._open.fdatasync()
        self._at += len(record)

    def switch(self, found: Found) -> None:
        """The other area takes over with this snapshot, and the present one says so."""
        moved = frame(Changes(moved=True).pack(), self._snapshots, self._at)
        old = self._area * self._size + self._at
        room = self._at + len(moved) <= self._size
        self._snapshots += 1
        self._area = 1 - self._area
        record = frame(pack_snapshot(found), self._snapshots, 0)
        self._open.pwrite(self._area * self._size, record)
        self._open.fdatasync()
        if room:
            self._open.pwrite(old, moved)
        self._at = len(record)

    def replace(self, found: Found) -> None:
        """A new file with room for these disks in the old one's place. If that fails, the old one
        goes on, unless it is ``lost``."""
        files = self._machine.files
        size = area_size([disk.span for disk in found.disks])
        record = frame(pack_snapshot(found), self._snapshots + 1, 0)
        data = record + bytes(2 * size - len(record))
        token = self._machine.entropy.token(8).hex()
        try:
            durable.replace(files, self._path, data, token=token)
            file = files.open_write(self._path)
        except OSError:
            self.lost = self._file is None or not self._is_there()
            raise
        old, self._file = self._file, file
        self._size = size
        self._snapshots += 1
        self._area, self._at = 0, len(record)
        if old is not None:
            with suppress(OSError):  # nothing depends on it any more
                old.close()

    def close(self) -> None:
        """Release the descriptor."""
        with suppress(OSError):
            self._open.close()

    def _is_there(self) -> bool:
        """The open file is the one that has its name."""
        try:
            there = self._machine.files.stat(self._path)
            ours = self._open.stat()
        except OSError:
            return False
        return there is not None and (there.device, there.inode) == (ours.device, ours.inode)

    @property
    def _open(self) -> OpenFile:
        assert self._file is not None  # noqa: S101
        return self._file
