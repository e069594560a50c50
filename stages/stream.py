"""The stream of a group: what capture hands on, journal records and delivery folds (rules.md).

Every mutation of a group's disks has one place in one stream. A **position** is (run, offset): a
run is one life of intake, numbered upwards; the offset counts the bytes of records in that run, so
it is known when an entry is pushed. Positions of all runs are totally ordered.

``Stream`` is what capture sees of the journal, ``Upstream`` what delivery sees of intake,
``Downstream`` what intake sees of delivery; ``stages.joint`` is the place where the two meet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from stages.errors import BackstayError
from stages.model import U64
from stages.ports import Buffer

REGION = 4 << 20  # bytes: what the activity log marks, and a live scan reads, at a time
REGION_BLOCKS = REGION >> 12

HEAD_BYTES = 64  # of a record in the stream, before its table
ROW = struct.Struct("<QII")  # first block, count of blocks, offset in the payload
ZERO_ROW = 0xFFFF_FFFF  # as the offset of a row: these blocks are zero, no payload


class Position(NamedTuple):
    """A place between records: ``offset`` bytes of records of ``run`` lie before it."""

    run: int
    offset: int


ORIGIN = Position(0, 0)  # before everything


class Kind(IntEnum):
    """What a record says."""

    WRITE = 1  # the guest wrote; rows in the order they apply, a block may occur twice
    SCAN = 2  # the scan found; ``extra`` holds digests (``ScanExtra``); ascending, no block twice
    GAP_BEGIN = 3  # extra: {"reason": str}
    GAP_END = 4  # extra: {"grade": str}
    GEOMETRY = 5  # extra: {"disks": [[number, name, size], ...]}: the disks from here on
    MARK = 6  # extra: {"id": int, "label": str, "grade": str}: seals a segment here
    VERDICT = 7  # extra: {"id": int, "valid": bool}: what became of an earlier mark (R20)


@dataclass(slots=True)
class Entry:
    """One record on its way into the journal.

    ``table``: packed ``ROW``s, their offsets counting from the start of the joined ``payload``
    (which may hold bytes that no row names). ``extra``: packed msgpack, or a scan's digests.
    ``release`` is called once, when the payload's memory may be used again. ``wall_us`` is when
    the newest of it was captured. If the payload is one stretch of a receive buffer, ``buffer``
    tells which, ``begin`` and ``end`` where in it: what comes behind can join (``Stream.extend``).
    """

    kind: Kind
    disk: int
    wall_us: int
    table: bytes = b""
    extra: bytes = b""
    payload: Sequence[Buffer] = ()
    payload_bytes: int = 0
    release: Callable[[], None] | None = None
    buffer: object = None
    begin: int = 0
    end: int = 0

    @property
    def size(self) -> int:
        """Bytes that it takes in the stream."""
        return HEAD_BYTES + len(self.table) + len(self.extra) + self.payload_bytes


class JournalUnusable(BackstayError):
    """The journal failed, hangs or is full: writes are tracked, not journalled, until it is well
    again (R9)."""

    recoverable = True
    exit_code = 9


class JournalGap(BackstayError):
    """The journal does not reach back to where it should be read from."""

    exit_code = 14


class Stream(Protocol):
    """The writing side of a group's journal, as capture uses it."""

    @property
    def head(self) -> Position:
        """Behind the newest entry pushed."""

    @property
    def durable(self) -> Position:
        """Everything before it is fsynced (R2)."""

    @property
    def retained(self) -> int:
        """Bytes of journal that cannot be trimmed yet, those not yet written included."""

    def try_reserve(self, size: int) -> bool:
        """Reserve without waiting; False if that is not possible now."""

    async def reserve(self, size: int) -> None:
        """Wait for memory for an entry of ``size`` bytes; ``JournalUnusable`` if it has failed.

        Follow with ``push`` or ``release``.
        """

    def release(self, size: int) -> None:
        """Give back what was reserved and is not used."""

    def push(self, entry: Entry, reserved: int) -> Position:
        """Append into credit of ``reserved`` bytes; never waits and never fails.

        ``reserved`` is at least ``entry.size``, but a record of few bytes may come without credit.
        Returns the position behind it. After a failure of the journal the entry is dropped (and
        released): whoever waits for it to be durable hears of the failure.
        """

    def newest(self) -> Entry | None:
        """The newest entry, if it is still only in memory and has all its memory on credit."""

    def extend(self, rows: bytes, payload: Buffer, end: int, wall_us: int, reserved: int) -> None:
        """The ``newest`` entry says more: its table goes on with ``rows``, and its payload is now
        ``payload``, up to ``end`` of its buffer. ``reserved`` as in ``push``. Its order stays, and
        whoever has been given a position within it waits for all of it."""

    def demand(self, position: Position) -> None:
        """Somebody will wait for ``position``: begin to make it durable. Never waits."""

    async def sync(self, position: Position) -> None:
        """Return when all before ``position`` is durable. ``JournalUnusable`` if it never will
        be. A caller that needs an fsync begun after it came gets one, unless all is durable."""


class Journal(Stream, Protocol):
    """The whole writing side, for whoever owns it."""

    @property
    def failed(self) -> JournalUnusable | None:
        """Why nothing more becomes durable, once it has failed."""

    async def run(self) -> None:
        """Write and sync until ``close`` or the first failure; returns either way."""

    def abandon(self, reason: str) -> None:
        """It has failed, says somebody who waited too long: let go of all who wait for it."""

    async def trim(self, position: Position) -> None:
        """Remove what lies before ``position``, as far as whole files do."""

    async def close(self) -> None:
        """Write and sync what is queued; ``run`` returns. ``JournalUnusable`` if it has failed."""


@dataclass(frozen=True, slots=True)
class MarkedPoint:
    """What became of mark ``mark``: commit ``seq`` of ``grade``, stamped ``stamp`` µs; or, with
    ``seq`` 0, nothing: it was lost for ``reason``."""

    mark: int
    seq: int
    stamp: int
    grade: str
    reason: str = ""


class Upstream(Protocol):
    """What delivery sees of intake."""

    @property
    def durable(self) -> Position:
        """How far the journal may be read (R2)."""

    async def wait_durable(self, beyond: Position) -> Position:
        """Return ``durable`` once it is greater than ``beyond``."""

    async def committed(self, position: Position) -> None:
        """All before it is in the vault: a recovery point exists, digests answer for it."""

    async def settled(self, position: Position) -> None:
        """All before it is committed, and digests and locations are fsynced: may be trimmed."""

    async def marked(self, point: MarkedPoint) -> None:
        """A mark has become a recovery point, or never will."""

    async def lost(self, reason: str) -> Position:
        """The journal does not reach back to what is committed: everything must be compared.

        Returns where the stream begins anew: a GEOMETRY and a GAP_BEGIN stand behind it.
        """


class Digests(Protocol):
    """What delivery knows of the vault's content at its committed position (R3), by intake's disk
    numbers. ``(count, 2)`` uint64 each, as in ``stages.model``; unknown for disks it never saw."""

    async def key(self) -> bytes:
        """The group's digest key, 32 bytes."""

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        """Digests of chunks."""

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        """Digests of blocks."""


class DeliveryGone(BackstayError):
    """Delivery is not there to answer; what asked waits for it and asks again."""

    recoverable = True
    exit_code = 8


class Downstream(Protocol):
    """What intake sees of delivery."""

    committed_at: Position
    """The newest position that delivery called committed; ``ORIGIN`` before it first did."""

    settled_at: Position
    """The newest position that delivery called settled; ``ORIGIN`` before it first did."""

    async def wait_committed(self, position: Position) -> None:
        """Return once ``committed_at`` is at or beyond ``position``."""

    async def wait_present(self) -> None:
        """Return once delivery is there to answer."""

    async def key(self) -> bytes:
        """See ``Digests``. ``DeliveryGone`` if it is not there, or goes."""

    async def chunks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``. ``DeliveryGone`` if it is not there, or goes."""

    async def blocks(self, disk: int, first: int, count: int) -> U64:
        """See ``Digests``. ``DeliveryGone`` if it is not there, or goes."""
