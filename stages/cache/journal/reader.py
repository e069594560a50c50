"""The reading side: records from a position on, up to what is durable (R2). Calls block."""

from __future__ import annotations

import msgpack

from stages.cache.journal.files import JournalFile, end_of, listed
from stages.cache.journal.record import FILE_HEAD, Record, decode, decode_head
from stages.errors import StateDamaged
from stages.ports import Files, OpenFile
from stages.stream import HEAD_BYTES, ORIGIN, JournalGap, Kind, Position


class JournalReader:
    """Reads one journal's folder; another process may append to it. Not for two threads at once."""

    def __init__(self, files: Files, folder: str):
        self.folder = folder
        self._files = files
        self._open: tuple[JournalFile, OpenFile] | None = None
        self._listed: list[JournalFile] = []

    def first(self) -> Position:
        """The oldest position retained. ``JournalGap`` if there is no journal."""
        self._listed = listed(self._files, self.folder)
        if not self._listed:
            raise self._gap("there is no journal")
        return Position(self._listed[0].run, self._listed[0].start)

    def check(self, position: Position) -> None:
        """Raise ``JournalGap`` unless what follows ``position`` is retained."""
        self._listed = listed(self._files, self.folder)
        if self._file_at(position) is None:
            raise self._gap(f"nothing is kept of position {position.run}:{position.offset}")

    def read(self, position: Position, durable: Position, most: int) -> list[Record]:
        """Records from ``position`` (``ORIGIN``: the oldest) until about ``most`` bytes or
        ``durable``; at least one, if there is one.

        Raises ``JournalGap`` if it lies before what is retained, ``StateDamaged`` where a record
        is not as it was written, ``OSError``.
        """
        if position == ORIGIN:
            position = self.first()
        while position < durable:
            file, end = self._place(position, durable)
            if end > position.offset:
                return self._records(file, position, end, most)
            position = self._next_run(position)
        return []

    def find_verdict(self, mark: int, after: Position, durable: Position) -> bool | None:
        """What VERDICT record behind ``after`` says of a mark; None if there is none in its run."""
        position = after
        while position < durable:
            file, end = self._place(position, durable)
            if end <= position.offset:
                return None
            record, position = self._skip(file, position, end)
            if record is not None and record.kind is Kind.VERDICT:
                said = fields_of(record)
                if said.get("id") == mark:
                    return bool(said.get("valid"))
        return None

    def close(self) -> None:
        """Release the file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _place(self, position: Position, durable: Position) -> tuple[JournalFile, int]:
        """The file that holds ``position``, and where its readable part ends."""
        file = self._file_at(position)
        end = None if file is None else end_of(self._files, self.folder, file)
        if end is None:  # begun, or trimmed, since the folder was listed
            self._listed = listed(self._files, self.folder)
            file = self._file_at(position)
            end = None if file is None else end_of(self._files, self.folder, file)
        if file is None or end is None:
            raise self._gap(f"nothing is kept of position {position.run}:{position.offset}")
        if file.run == durable.run:
            end = min(end, durable.offset)
        return file, end

    def _file_at(self, position: Position) -> JournalFile | None:
        inside = [f for f in self._listed if f.run == position.run and f.start <= position.offset]
        return inside[-1] if inside else None

    def _next_run(self, position: Position) -> Position:
        """Where the run after ``position`` begins; ``position`` is the end of its own."""
        self._listed = listed(self._files, self.folder)
        file = self._file_at(position)
        end = None if file is None else end_of(self._files, self.folder, file)
        if end is not None and end > position.offset:
            return position  # a file was begun meanwhile
        later = [other for other in self._listed if other.run > position.run]
        if not later:
            raise self._gap(f"nothing follows run {position.run}")
        if later[0].start:
            raise self._gap(f"the beginning of run {later[0].run} is gone")
        return Position(later[0].run, 0)

    def _records(self, file: JournalFile, position: Position, end: int, most: int) -> list[Record]:
        opened = self._opened(file)
        at = position.offset
        piece = self._pread(opened, file, at, min(end - at, max(most, HEAD_BYTES)))
        head = decode_head(piece, file.run, at)
        if head is not None and head.size > len(piece):
            piece = self._pread(opened, file, at, min(end - at, head.size))
        found: list[Record] = []
        while at < end:
            record = decode(piece, at - position.offset, file.run, file.start, at)
            if record is None:
                if not found:
                    raise self._damaged(file, at)
                return found
            found.append(record)
            at = record.end.offset
        return found

    def _skip(
        self, file: JournalFile, position: Position, end: int
    ) -> tuple[Record | None, Position]:
        """Past one record; read whole only if it has no blocks."""
        opened, at = self._opened(file), position.offset
        head = decode_head(self._pread(opened, file, at, HEAD_BYTES), file.run, at)
        if head is None or at + head.size > end:
            raise self._damaged(file, at)
        record = None
        if not head.payload and not head.rows:
            piece = self._pread(opened, file, at, head.size)
            record = decode(piece, 0, file.run, file.start, at)
        return record, Position(file.run, at + head.size)

    def _opened(self, file: JournalFile) -> OpenFile:
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = (file, self._files.open_read(file.path(self.folder), direct=True))
        return self._open[1]

    @staticmethod
    def _pread(opened: OpenFile, file: JournalFile, at: int, count: int) -> memoryview:
        return memoryview(opened.pread(at - file.start + FILE_HEAD, count))

    def _gap(self, what: str) -> JournalGap:
        return JournalGap(
            what,
            operation="read journal",
            subject=self.folder,
            hint="the disks are compared with the vault again",
        )

    def _damaged(self, file: JournalFile, at: int) -> StateDamaged:
        return StateDamaged(
            f"the record at byte {at - file.start + FILE_HEAD} is not what was written",
            operation="read journal",
            subject=file.path(self.folder),
            hint="restart intake: it keeps what is before that and compares the disks again",
        )


def fields_of(record: Record) -> dict[str, object]:
    """The extra of a record without blocks."""
    found = msgpack.unpackb(record.extra)
    return found if isinstance(found, dict) else {}
