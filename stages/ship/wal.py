"""The write-ahead log of the writer's record: intents (R11) and what they will change.

One record per put of a commit: mark, length, checksum (of the record's offset and payload) and
payload. A record that does not verify and has no good one after it is the torn tail of an append
that nothing has relied on, and is cut off. One with a good record after it is damage: what was
relied on is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stages.crypto.digest import digest
from stages.errors import DamagedObject, StateDamaged
from stages.model import U64
from stages.ports import OpenFile
from stages.ship.place import StreamPlace
from stages.vault.codec import Fields, pack

_HEAD = struct.Struct("<4sI16s")
_MARK = b"BINT"
MAX_RECORD = 256 << 20
_STEP = 1 << 20  # bytes searched at a time


@dataclass(frozen=True, slots=True)
class ChunkUpdate:
    """Digests (n, 2) of consecutive chunks of a disk from ``first``."""

    disk: int
    first: int
    digests: U64


@dataclass(frozen=True, slots=True)
class Intent:
    """A commit about to be put, and all that it changes in the writer's record.

    ``object_digest``: of the whole object as put. ``link``: the digest that the next commit names.
    ``header`` and ``body``: the commit's parts as stored in a rollup and the plain index.
    ``digests`` (n, 2): of all data blocks in index order; ``ref_digests`` (m, 2): of all reference
    runs' blocks in index order; ``ref_locations`` (m, 1): what they stand for. ``stream``: the
    place in a live stream behind it.
    """

    seq: int
    epoch: int
    object_digest: bytes
    link: bytes
    head: bytes
    plain: bytes
    digests: U64
    ref_digests: U64
    ref_locations: U64
    chunks: tuple[ChunkUpdate, ...]
    stream: StreamPlace | None = None

    def encode(self) -> bytes:
        """The payload of a log record."""
        return pack(
            {
                "seq": self.seq,
                "epoch": self.epoch,
                "object": self.object_digest,
                "link": self.link,
                "head": self.head,
                "plain": self.plain,
                "digests": self.digests.tobytes(),
                "refs": self.ref_digests.tobytes(),
                "locations": self.ref_locations.tobytes(),
                "stream": None if self.stream is None else self.stream.fields(),
                "chunks": [
                    {"disk": chunk.disk, "first": chunk.first, "digests": chunk.digests.tobytes()}
                    for chunk in self.chunks
                ],
            }
        )

    @staticmethod
    def decode(payload: bytes, subject: str) -> Intent:
        """Undo ``encode``. Raises ``DamagedObject``."""
        fields = Fields.decode(payload, subject)
        return Intent(
            seq=fields.number("seq"),
            epoch=fields.number("epoch"),
            object_digest=fields.raw("object", 32),
            link=fields.raw("link", 32),
            head=fields.raw("head"),
            plain=fields.raw("plain"),
            digests=fields.array("digests", np.uint64, 2),
            ref_digests=fields.array("refs", np.uint64, 2),
            ref_locations=fields.array("locations", np.uint64, 1),
            chunks=tuple(
                ChunkUpdate(
                    chunk.number("disk"),
                    chunk.number("first"),
                    chunk.array("digests", np.uint64, 2),
                )
                for chunk in fields.maps("chunks", 1 << 20)
            ),
            stream=StreamPlace.of(fields.optional_map("stream")),
        )


class Wal:
    """Append-only; its owner serialises calls. All calls block and raise ``OSError``."""

    def __init__(self, file: OpenFile):
        self._file = file
        self.size = 0

    def recover(self) -> Iterator[Intent]:
        """All intact records from the start; cuts a torn tail. Call once, before ``append``.

        Raises ``StateDamaged``.
        """
        end = self._file.stat().size
        at = 0
        while (payload := self._record(at, end)) is not None:
            at += _HEAD.size + len(payload)
            try:
                yield Intent.decode(payload, self._file.path)
            except DamagedObject as error:
                raise self._damaged(error.message) from None
        if at < end:
            if self._good_beyond(at, end):
                raise self._damaged(f"the record at byte {at} is not what was written")
            self._file.truncate(at)
            self._file.fsync()
        self.size = at

    def append(self, intent: Intent) -> None:
        """Durable on return. After an ``OSError`` the record is cut off, now or on recovery."""
        payload = intent.encode()
        if len(payload) > MAX_RECORD:
            raise ValueError(f"an intent of {len(payload)} bytes could not be read again")
        head = _HEAD.pack(_MARK, len(payload), _checksum(self.size, payload))
        try:
            self._file.append([head, payload])
            self._file.fdatasync()
        except OSError:
            # Also after a failed sync: the record may be in the cache and never on the disk.
            self._file.truncate(self.size)
            raise
        self.size += len(head) + len(payload)

    def clear(self) -> None:
        """Forget all records: what they change is durable elsewhere."""
        self._file.truncate(0)
        self._file.fsync()
        self.size = 0

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _record(self, at: int, end: int) -> bytes | None:
        """The payload of the record at ``at``, or None if there is no good one."""
        head = self._file.pread(at, _HEAD.size) if at < end else b""
        if len(head) < _HEAD.size:
            return None
        mark, length, checksum = _HEAD.unpack(head)
        if mark != _MARK or length > min(MAX_RECORD, end - at - _HEAD.size):
            return None
        payload = self._file.pread(at + _HEAD.size, length)
        return payload if _checksum(at, payload) == checksum else None

    def _good_beyond(self, at: int, end: int) -> bool:
        """True if a good record begins after ``at``."""
        for start in range(at + 1, end, _STEP):
            piece = self._file.pread(start, _STEP + len(_MARK) - 1)
            found = piece.find(_MARK)
            while found >= 0:
                if self._record(start + found, end) is not None:
                    return True
                found = piece.find(_MARK, found + 1)
        return False

    def _damaged(self, what: str) -> StateDamaged:
        return StateDamaged(
            what,
            operation="recover state",
            subject=self._file.path,
            hint="move the machine's state folder away: the next run begins a new base",
        )


def _checksum(at: int, payload: bytes) -> bytes:
    return digest([at.to_bytes(8, "little"), payload])[:16]
