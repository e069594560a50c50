"""A file whose writes are lost or torn in a crash, and an array in it."""

from __future__ import annotations

import errno
import os
import random
from typing import cast

from stages.ports import Buffer, OpenFile
from stages.vault.paged import PagedArray

PAGE = 8  # rows, so that small arrays have many pages
SECTOR = 64


class TornFile:
    """A file whose writes reach the disk when synced; before that each may or may not, in part."""

    path = "array"

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.full = False
        self.written = 0
        self._pending: list[tuple[int, bytes]] = []

    def pread_into(self, offset: int, target: memoryview) -> int:
        found = self.data[offset : offset + len(target)]
        target[: len(found)] = found
        return len(found)

    def pwrite(self, offset: int, data: Buffer) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        content = memoryview(data).cast("B").tobytes()
        self.written += len(content)
        self._pending.append((offset, content))
        _put(self.data, offset, content)

    def fdatasync(self) -> None:
        for offset, content in self._pending:
            _put(self.durable, offset, content)
        self._pending.clear()

    def crash(self, dice: random.Random) -> None:
        for offset, content in self._pending:
            for at in range(0, len(content), SECTOR):
                if dice.random() < 0.5:
                    _put(self.durable, offset + at, content[at : at + SECTOR])
        self._pending.clear()
        self.data = bytearray(self.durable)

    def close(self) -> None:
        pass


def array_in(file: TornFile, columns: int = 1, cache: int = 0) -> PagedArray:
    """An array needs but a few calls of the port."""
    return PagedArray(cast(OpenFile, file), columns, cache=cache)


def _put(data: bytearray, offset: int, content: bytes) -> None:
    data.extend(bytes(max(0, offset + len(content) - len(data))))
    data[offset : offset + len(content)] = content
