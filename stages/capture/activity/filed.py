"""Regions whose changes go to a file, many with one append; and what stands in for a file that
cannot be written."""

from __future__ import annotations

import errno
from collections.abc import Callable

import trio

from stages.capture.activity.areas import LogFile
from stages.capture.activity.codec import Changes, Found
from stages.capture.activity.regions import Regions
from stages.capture.activity.witness import Witness
from stages.errors import FULL, NoSpace, StateError
from stages.ports import Machine

STALL_SECONDS = 5.0  # a mark that takes this long is treated as failed


class Batch:
    """Changes that share an append, and what became of it."""

    __slots__ = ("begun", "changes", "done", "error")

    def __init__(self) -> None:
        self.changes = Changes()
        self.begun = False
        self.done = trio.Event()
        self.error: OSError | None = None


class FiledRegions(Regions):
    """``unlogged``: why marks are kept in memory only, while they are. ``patience``: seconds for a
    mark. With a ``nursery`` the file is written by tasks in it, so that nobody waits for longer."""

    def __init__(
        self,
        machine: Machine,
        path: str,
        run: int,
        max_hot: int,
        stretch: int,
        witness: Witness | None,
    ):
        super().__init__(run, max_hot, stretch)
        self.unlogged = ""
        self.patience = STALL_SECONDS
        self.nursery: trio.Nursery | None = None
        self._machine = machine
        self._path = path
        self._next = Batch()
        self._lock = trio.Lock()
        self._file = LogFile(machine, path)
        self._failed: OSError | None = None
        self._witness = witness
        self._testifying = trio.Lock()

    async def _written(self, batch: Batch) -> bool:
        """Wait until ``batch`` is durable; False if a witness is left instead."""
        if not batch.begun:
            batch.begun = True
            if self.nursery is None:
                await self._write(batch)
            else:
                self.nursery.start_soon(self._write, batch)
        with trio.move_on_after(self.patience):
            await batch.done.wait()
        if batch.done.is_set() and batch.error is None:
            return True
        error = batch.error or OSError(errno.ETIMEDOUT, "does not answer")
        if await self._testified(error):
            return False
        await batch.done.wait()
        if batch.error is not None:
            raise in_words(batch.error, self._path)
        return True

    async def _write(self, batch: Batch) -> None:
        """Append what came together until now; not cut off."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                if batch is self._next:
                    self._next = Batch()
                try:
                    await self._guarded(lambda: self._append(batch.changes))
                except OSError as error:
                    batch.error = error
                else:
                    self._take(batch.changes)
                finally:
                    batch.done.set()

    def _append(self, changes: Changes) -> None:
        self._file.append(changes, lambda: self._found_with(changes))

    async def _replace(self, found: Found) -> None:
        """A new file that says this; not cut off. ``NoSpace``, ``StateError``: the old one goes on,
        or nothing does."""
        try:
            with trio.CancelScope(shield=True):
                await self._machine.offload.run(lambda: self._file.replace(found))
        except OSError as error:
            if self._file.lost:
                self._failed = error
            raise in_words(error, self._path) from error

    async def _testified(self, error: OSError) -> bool:
        """Leave a witness, and go on without the file."""
        reason = error.strerror or str(error)
        witness = self._witness
        async with self._testifying:
            if self.unlogged or witness is None:
                return bool(self.unlogged)
            why = f"{self._path}: {reason}; what was written since is not in it."
            with trio.CancelScope(shield=True):
                try:
                    await self._machine.offload.run(lambda: witness.leave(why))
                except OSError:
                    return False
            self.unlogged = reason
            self._failed = error
            return True

    async def _guarded(self, call: Callable[[], None]) -> None:
        """A file call; after a failure nobody knows what is in the file, so it is the last."""
        if self._failed is not None:
            raise self._failed
        try:
            await self._machine.offload.run(call)
        except OSError as error:
            self._failed = error
            raise


def in_words(error: OSError, path: str) -> StateError | NoSpace:
    """What the caller is told."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return NoSpace(reason, operation="activity log", subject=path, hint="make room there")
    return StateError(
        reason,
        operation="activity log",
        subject=path,
        hint="check the state folder's disk, then restart intake: writes to regions that are not "
        "marked are refused until then",
    )
