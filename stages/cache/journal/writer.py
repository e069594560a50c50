"""The writing side: entries in, files out, fsync in groups.

Two tasks: one appends what is queued, a whole queue in one hop to a thread, and frees the memory of
what it wrote; one fsyncs, when somebody waits or after a little while, beside further appends. A
position is durable when an fsync that began after it was written has succeeded.

Nobody relies on an append before its fsync, so little is gathered for a moment first: a hop costs
more than a guest's small write, and the guest waits for the interpreter meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from stages.cache.journal.credit import Credit
from stages.cache.journal.current import Batch, Current, Pace, new_file
from stages.cache.journal.files import JournalFile
from stages.ports import Buffer, Machine, OpenFile
from stages.stage import Signal, crew
from stages.stream import Entry, JournalUnusable, Position
from stages.syncing import sync_of

_BATCH = 8 << 20  # bytes appended in one hop
_TOGETHER = 1 << 20  # up to here an append and its fsync share a hop


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Bytes, and seconds until what nobody waits for is appended, and synced, all the same.
    ``ahead``: zeros that are written ahead of the records at a time."""

    memory: int = 32 << 20
    file: int = 64 << 20
    gather_bytes: int = 1 << 20
    gather_seconds: float = 0.02
    sync_bytes: int = 8 << 20
    sync_seconds: float = 0.1
    ahead: int = 1 << 20


class JournalWriter(Credit):
    """A ``Journal``. ``file`` is the run's first, its head durable; ``older`` what came before it,
    with its bytes. ``on_durable`` is called on the event loop."""

    def __init__(
        self,
        machine: Machine,
        folder: str,
        run: int,
        file: OpenFile,
        older: list[tuple[JournalFile, int]],
        limits: JournalLimits,
        on_durable: Callable[[Position], None],
    ):
        super().__init__(limits.memory, folder)
        self.durable = Position(run, 0)
        self._machine = machine
        self._sync = sync_of(machine)
        self._run = run
        self._limits = limits
        self._on_durable = on_durable
        self._offset = 0  # of the head
        self._written = 0
        self._current = Current(machine, folder, JournalFile(run, 0), file, limits.ahead)
        self._pace = Pace()
        self._kept = deque(older)  # files that are full, oldest first, with their bytes
        self._older_bytes = sum(size for _, size in older)
        self._queue: deque[tuple[Entry, int]] = deque()  # with their offsets
        self._queued = 0  # bytes of the queue
        self._resting = False  # the ticker waits to hear that there is something
        self._tick = Signal()
        self._wrote = Signal()
        self._demand = Signal()
        self._syncing = trio.Lock()  # an fsync, or a change of files
        self._asked = 0  # the highest offset somebody waits for
        self._moved = trio.lowlevel.ParkingLot()
        self._closing = self._done = self._ended = False

    @property
    def head(self) -> Position:
        """See ``Stream``."""
        return Position(self._run, self._offset)

    @property
    def retained(self) -> int:
        """See ``Stream``."""
        return self._older_bytes + self._offset - self._current.at.start

    def push(self, entry: Entry, reserved: int) -> Position:
        """See ``Stream``. Records of a few bytes may come without credit."""
        size = entry.size
        self._held += size - reserved
        offset = self._offset
        self._offset = offset + size
        if self.failed is not None or self._ended:
            self._drop(entry)
        else:
            self._queue.append((entry, offset))
            self._grown(size)
        return Position(self._run, self._offset)

    def newest(self) -> Entry | None:
        """See ``Stream``."""
        return self._queue[-1][0] if self._queue else None

    def extend(self, rows: bytes, payload: Buffer, end: int, wall_us: int, reserved: int) -> None:
        """See ``Stream``."""
        entry = self._queue[-1][0]
        size = len(rows) + end - entry.end
        entry.table += rows
        entry.payload = (payload,)
        entry.payload_bytes = end - entry.begin
        entry.end = end
        entry.wall_us = max(entry.wall_us, wall_us)
        self._held += size - reserved
        self._offset += size
        self._grown(size)

    def _grown(self, size: int) -> None:
        self._queued += size
        if self._queued >= self._limits.gather_bytes:
            self._work.set()
        elif self._resting:
            self._resting = False
            self._tick.set()

    def demand(self, position: Position) -> None:
        """See ``Stream``."""
        if position > self.durable:
            self._asked = max(self._asked, position.offset)
            if self._written > self.durable.offset:  # else an append comes first, and sees to it
                self._demand.set()
            self._work.set()

    async def sync(self, position: Position) -> None:
        """See ``Stream``."""
        if self.durable >= position:
            await trio.lowlevel.checkpoint()
        while self.durable < position:
            if self.failed is not None or self._ended:
                raise self._why()
            self.demand(position)
            await self._moved.park()

    async def run(self) -> None:
        """See ``Journal``."""
        try:
            async with crew() as ticking:
                ticking.start_soon(self._tick_always)
                async with crew() as nursery:
                    nursery.start_soon(self._sync_always)
                    await self._append_always()
                ticking.cancel_scope.cancel()
        except OSError as error:
            reason = error.strerror or "input/output error"
            self.abandon(f"cannot be written ({reason})")
        finally:
            self._end()

    def abandon(self, reason: str) -> None:
        """See ``Journal``."""
        if self.failed is None:
            self.failed = JournalUnusable(
                reason,
                operation="journal",
                subject=self.folder,
                hint="check the state folder's disk; writes are tracked meanwhile, and compared "
                "once it is well again",
            )
        self._drop_queue()
        self._let_go()
        self._work.set()
        self._moved.unpark_all()

    async def trim(self, position: Position) -> None:
        """See ``Journal``. A file that cannot be removed is tried again with the next call."""
        gone = 0
        while self._kept:
            file, size = self._kept[0]
            following = self._kept[1][0] if len(self._kept) > 1 else self._current.at
            if Position(following.run, following.start) > position:
                break
            try:
                await self._machine.offload.run(lambda f=file: self._unlink(f))  # type: ignore[misc]
            except OSError:
                break
            self._kept.popleft()
            self._older_bytes -= size
            gone += 1
        if gone:
            with suppress(OSError):
                await self._machine.offload.run(lambda: self._machine.files.sync_dir(self.folder))

    async def close(self) -> None:
        """See ``Journal``."""
        self._closing = True
        self._work.set()
        while not self._ended:
            await self._moved.park()
        if self.failed is not None:
            raise self.failed

    # appending

    async def _append_always(self) -> None:
        while self.failed is None:
            if not self._urgent():
                if self._closing:
                    break
                await self._work.wait()
            if not self._queue:
                continue
            await self._append_batch(self._take())
            if self._written - self._current.at.start >= self._limits.file:
                await self._rotate()
            if self._written > self.durable.offset:
                self._wrote.set()
        if self.failed is None:
            async with self._syncing:
                await self._machine.offload.run(lambda: self._current.finish(self._written))
        self._done = True
        self._wrote.set()
        self._demand.set()

    async def _tick_always(self) -> None:
        """While there is something to append, have it appended after a little while. One timer for
        many writes: none of them wakes a task."""
        while True:
            if not self._queue:
                self._resting = True
                await self._tick.wait()
            await trio.sleep(self._limits.gather_seconds)
            self._work.set()

    def _urgent(self) -> bool:
        """What is queued must not wait for more."""
        if not self._queue:
            return False
        waited_for = self._asked > self._written or bool(self._waiting) or self._closing
        return waited_for or self._queued >= self._limits.gather_bytes

    def _take(self) -> Batch:
        batch: Batch = []
        size = 0
        while self._queue and size < _BATCH:
            batch.append(self._queue.popleft())
            size += batch[-1][0].size
        self._queued -= size
        return batch

    async def _append_batch(self, batch: Batch) -> None:
        """In one go with its fsync, if somebody waits for just this and it is little."""
        last, offset = batch[-1]
        end = offset + last.size
        together = self._asked >= end and end - batch[0][1] <= _TOGETHER
        try:
            if together:
                await self._append_durably(batch, end)
            else:
                began = self._machine.clock.monotonic()
                current, durable = self._current, self.durable.offset
                await self._machine.offload.run(lambda: current.append(batch, durable))
                self._written = end
                seconds = self._machine.clock.monotonic() - began
                self._pace.took(end - batch[0][1], seconds, awaited=bool(self._waiting))
        finally:
            for entry, _ in batch:
                self._drop(entry)

    async def _append_durably(self, batch: Batch, end: int) -> None:
        try:
            self._syncing.acquire_nowait()  # most often free: not a round of the event loop
        except trio.WouldBlock:
            await self._syncing.acquire()
        try:
            await self._current.append_durably(batch, self.durable.offset, self._sync)
        finally:
            self._syncing.release()
        self._written = end
        self._now_durable(end)

    async def _rotate(self) -> None:
        """A full file is durable before the next one is begun."""
        full, written = self._current, self._written
        async with self._syncing:
            following = JournalFile(self._run, written)
            direct = self._pace.next_is_direct()
            await self._machine.offload.run(lambda: full.finish(written))
            opened = await self._machine.offload.run(
                lambda: new_file(self._machine, self.folder, following, direct=direct)
            )
            full.close()
            self._current = Current(
                self._machine, self.folder, following, opened, self._limits.ahead
            )
        size = written - full.at.start
        self._kept.append((full.at, size))
        self._older_bytes += size
        self._now_durable(written)

    # syncing

    async def _sync_always(self) -> None:
        while self.failed is None:  # else nothing becomes durable any more
            if self._written == self.durable.offset:
                if self._done:
                    return
                await self._wrote.wait()
                continue
            urgent = self._asked > self.durable.offset or self._done
            if not urgent and self._written - self.durable.offset < self._limits.sync_bytes:
                with trio.move_on_after(self._limits.sync_seconds):
                    await self._demand.wait()
            async with self._syncing:
                reach = self._written
                if reach > self.durable.offset:
                    await self._sync.fdatasync(self._current.opened)
                    self._now_durable(reach)

    def _now_durable(self, offset: int) -> None:
        if offset > self.durable.offset and self.failed is None:
            self.durable = Position(self._run, offset)
            self._moved.unpark_all()
            self._on_durable(self.durable)

    # memory

    def _drop(self, entry: Entry) -> None:
        """The entry's memory is free: it was written, or never will be."""
        if entry.release is not None:
            entry.release()
            entry.release = None
        self.release(entry.size)

    def _drop_queue(self) -> None:
        while self._queue:
            self._drop(self._queue.popleft()[0])
        self._queued = 0

    def _end(self) -> None:
        self._ended = True
        if self.failed is None and not (self._closing and self.durable == self.head):
            self.abandon("its owner has stopped")
        self._drop_queue()
        self._moved.unpark_all()
        with suppress(OSError):
            self._current.close()

    def _unlink(self, file: JournalFile) -> None:
        self._machine.files.unlink(file.path(self.folder))
