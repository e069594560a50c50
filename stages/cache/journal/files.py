"""The folder of a journal: one file for each run and stretch of its stream, named by both."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.cache.journal.record import FILE_HEAD, good_file_head
from stages.ports import Files

_PIECE = 1 << 20
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.journal")


@dataclass(frozen=True, slots=True, order=True)
class JournalFile:
    """A file: ``start`` is the stream offset of its first record."""

    run: int
    start: int

    def path(self, folder: str) -> str:
        """Where it is."""
        return f"{folder}/{self.run:016x}-{self.start:016x}.journal"


def listed(files: Files, folder: str) -> list[JournalFile]:
    """The files that are there, in stream order. Blocks."""
    found = []
    for name in files.listdir(folder):
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(JournalFile(int(match[1], 16), int(match[2], 16)))
    return sorted(found)


def end_of(files: Files, folder: str, file: JournalFile) -> int | None:
    """The stream offset behind the file's last byte; None if its head is not as it should be."""
    path = file.path(folder)
    stat = files.stat(path)
    if stat is None or stat.size < FILE_HEAD:
        return None
    opened = files.open_read(path)
    try:
        if not good_file_head(opened.pread(0, FILE_HEAD), file.run, file.start):
            return None
    finally:
        opened.close()
    return file.start + stat.size - FILE_HEAD


def holds_records(files: Files, folder: str, file: JournalFile) -> bool:
    """Is there more than a head and zeros? Records come behind a head that is durable. Blocks."""
    opened = files.open_read(file.path(folder))
    try:
        at = FILE_HEAD
        while data := opened.pread(at, _PIECE):
            if data.count(0) != len(data):
                return True
            at += len(data)
        return False
    finally:
        opened.close()
