"""One process of a simulated machine: its clock, threads and files, and what goes wrong with them.

The process ends at a file or store operation, before or after its effect. Between two of these
nothing that it does can be seen from outside but answers to guests, and those do not count once it
is dead: so that is to end at any await.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import trio
from blake3 import blake3

from stages.ports import Buffer, Machine, OpenFile
from stages.store.faults import FaultPlan, FaultStore, Operation
from tests.ports.watched import WatchedFile, WatchedFiles
from tests.whole.memfiles import MemFile, MemFiles
from tests.whole.world import YEAR_2100, Dice

T = TypeVar("T")

_CHANGES = frozenset(
    ("pwrite", "append", "truncate", "fsync", "fdatasync", "open_append", "open_write", "rename")
)
_TAKES_ROOM = frozenset(("append", "open_append", "mkdir"))


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


class _Hangs(BaseException):
    """The disk does not answer before ``until``; the thread waits."""

    def __init__(self, until: float):
        super().__init__(until)
        self.until = until


class Listener(Protocol):
    """Who hears of changes of a source."""

    def wrote(self, path: str, offset: int, data: bytes) -> None: ...

    def fsync_failed(self, path: str) -> None: ...


class Trace:
    """A digest of everything that can be seen from outside, in order."""

    def __init__(self) -> None:
        self._hash = blake3()
        self.events = 0

    def note(self, *what: object) -> None:
        self.events += 1
        self._hash.update(repr(what).encode())

    def digest(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start`` to ``end`` the state folder's disk is ``full``, ``broken`` or ``hanging``."""

    kind: str
    start: float
    end: float


class SimClock:
    """trio's virtual time."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int((YEAR_2100 + trio.current_time()) * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class SimOffload:
    """Threads: calls take their time, before and after their effect, and are never abandoned."""

    def __init__(self, dice: random.Random, slow: float):
        self._dice = dice
        self._slow = slow
        self.fresh = False  # nothing was done yet in the present call

    async def run(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self._pause()
            found = await self._done(call)
            await self._pause()
        return found

    async def _done(self, call: Callable[[], T]) -> T:
        while True:
            self.fresh = True
            try:
                return call()
            except _Hangs as hangs:
                self.fresh = False  # what others do meanwhile is not in a thread
                await trio.sleep_until(hangs.until)
            finally:
                self.fresh = False

    async def _pause(self) -> None:
        if self._dice.random() < self._slow:
            await trio.sleep(self._dice.choice((0.0005, 0.004, 0.03)))
        else:
            await trio.lowlevel.checkpoint()

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass
class Process:
    """One life of a process on ``files``. ``sources``: paths of disks; ``state``: its folder."""

    files: MemFiles
    state: str
    sources: frozenset[str]
    dice: random.Random
    trace: Trace
    listener: Listener
    name: str = ""
    slow: float = 0.0
    source_faults: float = 0.0
    windows: list[Window] = field(default_factory=list)
    dead: bool = False
    die_in: int | None = None  # so many operations from now
    on_death: Callable[[], None] = lambda: None
    faults: int = 0

    def __post_init__(self) -> None:
        self.offload = SimOffload(self.dice, self.slow)
        files = SimFiles(self._around, self.files)
        files.process = self
        entropy = Dice(self.dice.getrandbits(30))
        self.machine = Machine(SimClock(), self.offload, entropy, files)

    def die(self) -> Killed:
        """What follows has no effect."""
        self.dead = True
        self.on_death()
        return Killed()

    def step(self, effect: Callable[[], object] = lambda: None) -> None:
        """An operation with an effect is about to happen: perhaps the process ends here."""
        if self.dead:
            raise Killed
        if self.die_in is None:
            return
        self.die_in -= 1
        if self.die_in < 0:
            if self.dice.random() < 0.5:
                effect()
            raise self.die()

    def store(self, inner: Any, rule: Callable[[Operation], Any]) -> FaultStore:
        """The vault as this process sees it."""

        def observed(operation: Operation) -> Any:
            self.step()
            self.trace.note("store", operation.name, operation.key, trio.current_time())
            return rule(operation)

        return FaultStore(inner, FaultPlan(observed), self.machine.clock)

    def write_source(self, file: MemFile, offset: int, data: bytes, *, punch: bool) -> None:
        """A change of a source, which may fail after a part of it."""
        failed = self._source_fails()
        if failed:
            data = data[: self.dice.randrange(len(data) + 1)]
        if data:
            if punch:
                file.punch(offset, len(data))
            else:
                file.pwrite(offset, data)
            self.listener.wrote(file.path, offset, data)
        if failed:
            raise OSError(errno.EIO, os.strerror(errno.EIO), file.path)

    def sync_source(self, file: MemFile) -> None:
        """An fsync that fails has lost some of what was not durable, and will not say so again."""
        if self._source_fails():
            node = file._node
            node.pending = [one for one in node.pending if self.dice.random() < 0.5]
            self.listener.fsync_failed(file.path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), file.path)
        file.fdatasync()

    def _source_fails(self) -> bool:
        fails = not self.dead and self.dice.random() < self.source_faults
        self.faults += fails
        return fails

    def _around(self, name: str, path: str, call: Callable[[], T]) -> T:
        if name == "close":
            return call()
        if self.dead:
            raise Killed
        if name in _CHANGES:
            self.step(call)
            self.trace.note(name, path, trio.current_time())
        if self.windows and path.startswith(self.state):
            self._trouble(name, path)
        self.offload.fresh = False
        return call()

    def _trouble(self, name: str, path: str) -> None:
        """The activity log is spared: it is preallocated, and without it no write is allowed."""
        if path.endswith("/activity"):
            return
        now = trio.current_time()
        for window in self.windows:
            if not window.start <= now < window.end:
                continue
            if window.kind == "hanging" and self.offload.fresh:
                self.faults += 1
                raise _Hangs(window.end)
            if window.kind == "full" and name in _TAKES_ROOM:
                self.faults += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if window.kind == "broken" and name in _CHANGES:
                self.faults += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)


class SourceFile(WatchedFile):
    """A source: the model hears of every change."""

    process: Process

    def pwrite(self, offset: int, data: Buffer) -> None:
        self._do("pwrite", lambda: self._write(offset, bytes(data), punch=False))

    def punch(self, offset: int, length: int) -> None:
        self._do("punch", lambda: self._write(offset, bytes(length), punch=True))

    def fdatasync(self) -> None:
        self._do("fdatasync", lambda: self.process.sync_source(self._memory))

    def fsync(self) -> None:
        self.fdatasync()

    def _write(self, offset: int, data: bytes, *, punch: bool) -> None:
        self.process.write_source(self._memory, offset, data, punch=punch)

    @property
    def _memory(self) -> MemFile:
        assert isinstance(self.inner, MemFile)
        return self.inner


class SimFiles(WatchedFiles):
    """Files of a process; its disks are ``SourceFile``s."""

    process: Process

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> OpenFile:
        opened = super().open_write(
            path, create=create, new=new, exclusive=exclusive, direct=direct
        )
        if path not in self.process.sources:
            return opened
        assert isinstance(opened, WatchedFile)
        source = SourceFile(opened.inner, self.process._around)
        source.process = self.process
        return source
