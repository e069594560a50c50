"""Flushes of a disk, in rounds (R5).

A round begins with the head of the stream as it is then; the fsync of the source and that of the
journal both start after that. Who asks while a round runs shares the next one. A round whose source
fsync failed fails everyone in it, and is never repeated into success.

One task runs all rounds, and who asks leaves a callback: a guest that flushes after every write
waits for each round of the event loop that its flush takes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import trio

from stages.capture.splitter.disk import LiveDisk
from stages.stage import Signal
from stages.syncing import sync_of

Tell = Callable[[OSError | None], None]
_CUT_OFF = OSError(errno.EIO, "the flush was cut off")


class Flusher:
    """Flushes one disk. Its task runs in ``nursery``; once that is cancelled every flush fails."""

    def __init__(self, disk: LiveDisk, nursery: trio.Nursery):
        self._disk = disk
        self._sync = sync_of(disk.machine)
        self._asked: list[Tell] = []
        self._work = Signal()
        self._ended = self._running = False
        nursery.start_soon(self._run)

    def then(self, tell: Tell) -> None:
        """Call ``tell`` when everything answered before now is durable, or with why it is not."""
        if self._ended:
            tell(_CUT_OFF)
            return
        self._asked.append(tell)
        if not self._running:  # the journal need not wait for the round to begin
            gate = self._disk.gate
            gate.demand(gate.stream.head)
        self._work.set()

    async def flush(self) -> None:
        """Everything answered before this call is durable on return; ``OSError`` if not."""
        done = trio.Event()
        found: list[OSError | None] = []

        def tell(error: OSError | None) -> None:
            found.append(error)
            done.set()

        self.then(tell)
        await done.wait()
        if found[0] is not None:
            raise found[0]

    async def _run(self) -> None:
        try:
            while True:
                await self._work.wait()
                asked, self._asked = self._asked, []
                error: OSError | None = _CUT_OFF
                self._running = True
                try:
                    error = await self._round()
                finally:
                    self._running = False
                    for tell in asked:
                        tell(error)
        finally:
            self._ended = True
            for tell in self._asked:
                tell(_CUT_OFF)
            self._asked.clear()

    async def _round(self) -> OSError | None:
        gate = self._disk.gate
        head = gate.stream.head
        gate.demand(head)
        failed = await self._sync_source()
        await gate.sync(head)
        return failed

    async def _sync_source(self) -> OSError | None:
        disk = self._disk
        try:
            await self._sync.fdatasync(disk.source.file)
        except OSError as error:
            disk.on_unsynced(disk, error)
            return error
        return None
