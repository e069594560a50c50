"""The write-ahead log of the writer's record: intents (R11) and what they will change.

One record per put of a commit: length, checksum, payload. Bytes after the first record that does
not verify are a torn tail of an append that nothing has relied on, and are cut off.
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
from stages.vault.codec import Fields, pack

_HEAD = struct.Struct("<II16s")
MAX_RECORD = 256 << 20


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
    runs' blocks in index order; ``ref_locations`` (m, 1): what they stand for.
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
        )


class Wal:
    """Append-only; its owner serialises calls. All calls block and raise ``OSError``."""

    def __init__(self, file: OpenFile):
        self._file = file
        self.size = 0

    def recover(self) -> Iterator[Intent]:
        """All intact records from the start; cuts a torn tail. Call once, before ``append``."""
        end = self._file.stat().size
        at = 0
        while at < end:
            payload = self._record(at, end)
            if payload is None:
                break
            at += _HEAD.size + len(payload)
            try:
                yield Intent.decode(payload, self._file.path)
            except DamagedObject as error:
                raise StateDamaged(
                    error.message,
                    operation="recover state",
                    subject=self._file.path,
                    hint="move the machine's state folder away: the next run begins a new base",
                ) from None
        if at < end:
            self._file.truncate(at)
            self._file.fsync()
        self.size = at

    def append(self, intent: Intent) -> None:
        """Durable on return. On an error the record is cut off again or will be on recovery."""
        payload = intent.encode()
        head = _HEAD.pack(len(payload), 0, digest([payload])[:16])
        try:
            self._file.append([head, payload])
        except OSError:
            self._file.truncate(self.size)
            raise
        self._file.fdatasync()
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
        head = self._file.pread(at, _HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, zero, checksum = _HEAD.unpack(head)
        if zero or length > min(MAX_RECORD, end - at - _HEAD.size):
            return None
        payload = self._file.pread(at + _HEAD.size, length)
        if len(payload) != length or digest([payload])[:16] != checksum:
            return None
        return payload
