"""Flushes of a disk, in rounds (R5).

A round begins with the head of the stream as it is then; the fsync of the source and that of the
journal both start after that. Who asks while a round runs shares the next one. A round whose source
fsync failed fails everyone in it, and is never repeated into success.
"""

from __future__ import annotations

import errno

import trio

from stages.capture.splitter.disk import LiveDisk


class _Round:
    """What several flushes wait for."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: OSError | None = OSError(errno.EIO, "the flush was cut off")


class Flusher:
    """Flushes one disk. Rounds run in ``nursery``, so that no waiter owns one."""

    def __init__(self, disk: LiveDisk, nursery: trio.Nursery):
        self._disk = disk
        self._nursery = nursery
        self._next: _Round | None = None
        self._running = False

    async def flush(self) -> None:
        """Everything answered before this call is durable on return; ``OSError`` if not."""
        if self._next is None:
            self._next = _Round()
            if not self._running:
                self._running = True
                self._nursery.start_soon(self._run)
        current = self._next
        await current.done.wait()
        if current.error is not None:
            raise current.error

    async def _run(self) -> None:
        try:
            while self._next is not None:
                current, self._next = self._next, None
                try:
                    current.error = await self._round()
                finally:
                    current.done.set()
        finally:
            self._running = False
            if self._next is not None:  # cut off: nobody will run it
                self._next.done.set()
                self._next = None

    async def _round(self) -> OSError | None:
        gate = self._disk.gate
        head = gate.stream.head
        failed: list[OSError] = []
        async with trio.open_nursery() as both:
            both.start_soon(self._sync_source, failed)
            if not gate.tracking:
                both.start_soon(gate.sync, head)
        return failed[0] if failed else None

    async def _sync_source(self, failed: list[OSError]) -> None:
        disk = self._disk
        try:
            await disk.machine.offload.run(disk.source.file.fdatasync)
        except OSError as error:
            disk.on_unsynced(disk, error)
            failed.append(error)
