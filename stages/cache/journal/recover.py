"""Opening a journal: what an earlier life left is checked and a new run begins (R10).

The last file of each run is checked record by record; the files before it were fsynced before it
was begun, and only have to fit together. A bad record is where a torn tail begins, and is cut off
with all behind it, unless a good record behind it says that the bad one was durable when it was
written: a power cut may keep later pages of what was never fsynced and lose earlier ones, and
nothing relied on any of them. Anything else that is wrong is damage: what is before it is kept, and
what is behind it is removed, since it must not be delivered past a hole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages import durable
from stages.cache.journal.current import new_file
from stages.cache.journal.files import JournalFile, end_of, holds_records, listed
from stages.cache.journal.record import FILE_HEAD, decode, decode_head, find_magic
from stages.cache.journal.writer import JournalLimits, JournalWriter
from stages.ports import Files, Machine, OpenFile
from stages.stream import Position

_PIECE = 8 << 20  # bytes read at a time, unless one record is larger


@dataclass(frozen=True, slots=True)
class Recovered:
    """``first``: the oldest position retained; ``run``: the new run. ``kept`` bytes; ``torn`` bytes
    that were cut off; ``damaged``: what is wrong, if anything is. ``empty``: there was no file."""

    first: Position
    run: int
    kept: int
    torn: int
    damaged: str
    empty: bool


async def open_journal(
    machine: Machine,
    folder: str,
    *,
    after_run: int = 0,
    limits: JournalLimits | None = None,
    on_durable: Callable[[Position], None] = lambda _: None,
) -> tuple[JournalWriter, Recovered]:
    """Make or recover the journal in ``folder``; the writer's ``run`` must be run by the caller.

    ``after_run``: the newest run known elsewhere. Raises ``OSError``.
    """
    found = await machine.offload.run(lambda: _recover(machine.files, folder))
    run = max([after_run, found.newest]) + 1
    file = JournalFile(run, 0)
    opened = await machine.offload.run(lambda: new_file(machine, folder, file))
    writer = JournalWriter(
        machine, folder, run, opened, found.kept, limits or JournalLimits(), on_durable
    )
    first = Position(found.kept[0][0].run, found.kept[0][0].start) if found.kept else (run, 0)
    kept = sum(size for _, size in found.kept)
    recovered = Recovered(
        Position(*first), run, kept, found.torn, found.damaged, empty=not found.newest
    )
    return writer, recovered


@dataclass
class _Found:
    kept: list[tuple[JournalFile, int]]
    newest: int = 0
    torn: int = 0
    damaged: str = ""


def _recover(files: Files, folder: str) -> _Found:
    durable.make_dirs(files, folder)
    there = listed(files, folder)
    found = _Found([], newest=max((file.run for file in there), default=0))
    for at, file in enumerate(there):
        last = at + 1 == len(there) or there[at + 1].run != file.run
        if not found.damaged:
            _check(files, folder, file, found, last=last)
            continue
        files.unlink(file.path(folder))
    files.sync_dir(folder)
    return found


def _check(files: Files, folder: str, file: JournalFile, found: _Found, *, last: bool) -> None:
    """Keep the file, or the good part of it."""
    path = file.path(folder)
    before = found.kept[-1] if found.kept else None
    if (
        before is not None
        and before[0].run == file.run
        and before[0].start + before[1] != file.start
    ):
        found.damaged = f"bytes are missing before {path}"
        files.unlink(path)
        return
    end = end_of(files, folder, file)
    if end is None:
        if not last or holds_records(files, folder, file):
            found.damaged = f"the head of {path} is not what was written, or of another version"
        files.unlink(path)  # else one that was just being made
        return
    if last:
        end = _check_records(files, path, file, end, found)
    found.kept.append((file, end - file.start))


def _check_records(files: Files, path: str, file: JournalFile, end: int, found: _Found) -> int:
    opened = files.open_write(path)
    try:
        good = _good_until(opened, file, end)
        if good < end:
            if _was_durable(opened, file, good, end):
                found.damaged = f"the record at byte {good - file.start + FILE_HEAD} of {path}"
            found.torn += _torn(opened, good - file.start + FILE_HEAD, end - good)
            opened.truncate(good - file.start + FILE_HEAD)
        opened.fsync()  # what is delivered must be on the disk first (R2)
    finally:
        opened.close()
    return good


def _torn(opened: OpenFile, offset: int, length: int) -> int:
    """Bytes that were written there, but for the zeros ahead of the records."""
    return len(opened.pread(offset, length).rstrip(b"\0"))


def _good_until(opened: OpenFile, file: JournalFile, end: int) -> int:
    at = file.start
    while at < end:
        piece = _piece(opened, file, at, end)
        inside = 0
        while (record := decode(piece, inside, file.run, file.start, at)) is not None:
            inside += record.end.offset - at
            at = record.end.offset
        if not inside:
            break
    return at


def _piece(opened: OpenFile, file: JournalFile, at: int, end: int) -> memoryview:
    """From ``at`` on; a whole record at least, if there is one."""
    where = at - file.start + FILE_HEAD
    piece = memoryview(opened.pread(where, min(_PIECE, end - at)))
    head = decode_head(piece, file.run, at)
    if head is not None and head.size > len(piece):
        piece = memoryview(opened.pread(where, min(head.size, end - at)))
    return piece


def _was_durable(opened: OpenFile, file: JournalFile, bad: int, end: int) -> bool:
    """True if a good record behind the bad one says that it was durable."""
    data = opened.pread(bad - file.start + FILE_HEAD, end - bad)
    view = memoryview(data)
    at = find_magic(data, 1)
    while at >= 0:
        head = decode_head(view[at:], file.run, bad + at)
        if (
            head is not None
            and head.synced > bad
            and decode(view, at, file.run, file.start, bad + at) is not None
        ):
            return True
        at = find_magic(data, at + 1)
    return False
