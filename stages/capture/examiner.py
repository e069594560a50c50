"""The examiner port, and the implementation that works through ``Offload``.

An examiner reads and hashes batches of a fixed set of open disks. Hashing holds the interpreter
lock, so large disks get processes (``pool.ProcessExaminers``); tests, the simulation and small
disks work in place.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from stages.capture.examine import READ, Outcome, ReadFailed, examine
from stages.capture.slots import Layout, Slot
from stages.digests import DigestKeys
from stages.errors import BackstayError, SourceIO, SourceShrunk
from stages.model import CHUNK, U8, U64, blocks_of, chunks_of
from stages.ports import Offload, OpenFile


@dataclass(frozen=True, slots=True)
class Examined:
    """A batch as found, in a slot that the holder gives back with ``release`` (once).

    ``first_chunk`` and ``length`` (bytes) say which; ``changed`` counts the chunks to compare block
    by block, ``read`` the bytes read. The arrays are views of the slot: see ``examine``.
    """

    first_chunk: int
    length: int
    changed: int
    read: int
    slot: Slot
    release: Callable[[], None]

    @property
    def known(self) -> U64:
        """Chunk digests (c, 2) as they were known."""
        return self.slot.known[: chunks_of(self.length)]

    @property
    def chunks(self) -> U64:
        """Chunk digests (c, 2) as seen."""
        return self.slot.chunks[: chunks_of(self.length)]

    @property
    def blocks(self) -> U64:
        """Block digests (n, 2), right only inside changed chunks."""
        return self.slot.blocks[: blocks_of(self.length)]

    @property
    def content(self) -> U8:
        """Content (n, 4096), right only for the non-zero blocks of changed chunks."""
        return self.slot.content[: blocks_of(self.length)]

    @staticmethod
    def of(
        slot: Slot, offset: int, length: int, outcome: Outcome, release: Callable[[], None]
    ) -> Examined:
        """Result of examining ``length`` bytes from ``offset``."""
        return Examined(offset // CHUNK, length, outcome.changed, outcome.read, slot, release)


class Examiner(Protocol):
    """Examines batches of up to ``batch`` bytes; up to ``slots`` of them can be held at a time."""

    batch: int
    slots: int

    async def examine(self, disk: int, offset: int, length: int, known: U64) -> Examined:
        """Examine a range of the disk with index ``disk``, given its known chunk digests (c, 2).

        ``offset`` is a multiple of the chunk. Waits for a free slot. Raises ``SourceIO``,
        ``SourceShrunk``, ``WorkerLost``.
        """


class Examiners(Protocol):
    """Makes an examiner for open disks; it ends with the context."""

    def open(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AbstractAsyncContextManager[Examiner]:
        """Start examining ``disks``, which stay open until the context ends."""


def source_error(failed: ReadFailed, path: str) -> BackstayError:
    """The error a user sees for a read that failed."""
    if failed.code == 0:
        return SourceShrunk(
            f"the disk ends at byte {failed.offset}, inside the range being scanned",
            operation="scan",
            subject=path,
            hint="it was made smaller during the scan; scan again, or restore its size",
        )
    return SourceIO(
        f"cannot be read at byte {failed.offset} ({errno.errorcode.get(failed.code, failed.code)})",
        operation="scan",
        subject=path,
        hint="check the disk's health and the kernel log",
    )


class SlotPool:
    """The free slots: ``acquire`` waits for one, first come first served."""

    def __init__(self, slots: list[Slot]):
        self._free = deque(slots)
        self._places = trio.Semaphore(len(slots), max_value=len(slots))

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return len(self._free)

    async def acquire(self) -> Slot:
        """Take a free slot. The caller gives it back with ``release``."""
        await self._places.acquire()
        return self._free.popleft()

    def release(self, slot: Slot) -> None:
        """Give a slot back; its content must not be looked at any more."""
        self._places.release()
        # The last one used is the one still in the processor's caches.
        self._free.appendleft(slot)


class InlineExaminer:
    """Examines in this process, through ``Offload``."""

    def __init__(
        self, disks: Sequence[OpenFile], keys: DigestKeys, offload: Offload, layout: Layout
    ):
        self.batch = layout.batch
        self.slots = layout.count
        self._disks = disks
        self._keys = keys
        self._offload = offload
        self._scratch = [memoryview(bytearray(READ)) for _ in range(layout.count)]
        self._pool = SlotPool(layout.carve(memoryview(bytearray(layout.size))))

    async def examine(self, disk: int, offset: int, length: int, known: U64) -> Examined:
        """See ``Examiner``."""
        file = self._disks[disk]
        slot = await self._pool.acquire()
        release = partial(self._pool.release, slot)
        slot.known[: len(known)] = known
        scratch = self._scratch[slot.number]
        try:
            outcome = await self._offload.run(
                partial(examine, file, offset, length, slot, scratch, self._keys)
            )
        except ReadFailed as failed:
            release()
            raise source_error(failed, file.path) from failed
        except BaseException:
            release()
            raise
        return Examined.of(slot, offset, length, outcome, release)


@dataclass(frozen=True, slots=True)
class InlineExaminers:
    """Makes inline examiners of ``slots`` slots of ``batch`` bytes (a multiple of the chunk)."""

    offload: Offload
    batch: int = 1 << 20
    slots: int = 4

    @asynccontextmanager
    async def _opened(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AsyncIterator[InlineExaminer]:
        yield InlineExaminer(disks, keys, self.offload, Layout(self.batch, self.slots))

    def open(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AbstractAsyncContextManager[Examiner]:
        """See ``Examiners``."""
        return self._opened(disks, keys)
