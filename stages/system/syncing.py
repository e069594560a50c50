"""Small appends and fsyncs without a hop to a thread: the kernel's own threads do them.

A guest that flushes waits for two fsyncs, of its disk and of the journal. By threads of ours that
cost it 0.8 ms of processor time and more, most of it for the interpreter's lock going round; with
an io_uring a third of that. Where there is none (an old kernel, a container that forbids it), and
for what does not fit, threads do it.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from stages.ports import Buffer, Offload, OpenFile
from stages.syncing import HopSync
from stages.system.direct import ALIGN
from stages.system.file import SystemFile
from stages.system.ring import Operation, Ring, pages

_FLIGHTS = 8  # at a time: one for each disk and two for the journal, of one machine
_ENTRIES = 2 * _FLIGHTS
_SMALL = 64 << 10  # bytes of an append: more would keep the event loop
_SPARE = 2
_GIVEN_UP = -errno.ECANCELED  # not done, or not to its end: threads do it again, from its beginning
_UNDONE = frozenset((_GIVEN_UP, -errno.EINTR, -errno.EAGAIN))  # which say nothing of the file

_Memory = tuple[memoryview, int]


@dataclass(eq=False, slots=True)
class _Flight:
    """One operation, or two that are linked: one of them says how it went, the second unless the
    first has failed. ``memory`` stays until then."""

    task: trio.lowlevel.Task
    last: int
    memory: _Memory | None = None
    result: int = _GIVEN_UP
    over: bool = False
    asleep: bool = False


class RingSync:
    """A ``Sync`` for one event loop. One task that waits looks at the ring for all."""

    def __init__(self, offload: Offload):
        self._hops = HopSync(offload)
        self._ring: Ring | None = None
        self._untried = True
        self._next = 0
        self._flights: dict[int, _Flight] = {}  # by the number of their last operation, an even one
        self._looking = False
        self._spare: deque[_Memory] = deque(maxlen=_SPARE)
        self._lost: _Memory | None = None

    async def fdatasync(self, file: OpenFile) -> None:
        """See ``Sync``."""
        ring = self._room()
        if ring is None or not isinstance(file, SystemFile):
            await self._hops.fdatasync(file)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        result = await self._fly(ring, [Operation(file.fileno())])
        if result == _GIVEN_UP:
            await self._hops.fdatasync(file)
        elif result < 0:
            raise _error(result, file)

    async def append(self, file: OpenFile, parts: Sequence[Buffer]) -> None:
        """See ``Sync``."""
        ring = self._room()
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
        if ring is None or size > _SMALL or not isinstance(file, SystemFile):
            await self._hops.append(file, parts)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        memory = self._spare.pop() if self._spare else pages(_SMALL + ALIGN)
        staged = file.stage(parts, memory[0])
        if staged is None:
            self._spare.append(memory)
            await self._hops.append(file, parts)
            return
        write = Operation(file.fileno(), memory[1], staged.length, staged.offset)
        result = await self._fly(ring, [write, Operation(file.fileno())], memory)
        self._spare.append(memory)
        if result == _GIVEN_UP:
            # Not written, or in part, or not this way: the same bytes at the same place once more,
            # by the call that knows what to do then.
            await self._hops.append(file, parts)
            return
        file.staged(staged)
        if result < 0:
            raise _error(result, file)

    def _room(self) -> Ring | None:
        """The ring, if there is one and it has room."""
        if self._untried:
            self._untried = False
            try:
                self._ring = Ring(_ENTRIES)
            except OSError:
                self._ring = None
        ring = self._ring
        return ring if ring is not None and len(self._flights) < _FLIGHTS else None

    async def _fly(
        self, ring: Ring, operations: list[Operation], memory: _Memory | None = None
    ) -> int:
        """The last one's result, when all that have begun are over."""
        self._next += 2
        flight = _Flight(trio.lowlevel.current_task(), self._next, memory)
        begun = ring.submit(operations, self._next + 1 - len(operations))
        if begun < len(operations):  # the kernel is out of something: not this way any more
            self._ring = None
            if not begun:
                return _GIVEN_UP
            self._lost = memory  # it may be written from at any time
            raise OSError(errno.EAGAIN, "the kernel took only a part of the work")
        self._flights[flight.last] = flight
        while not flight.over:
            if self._looking:
                flight.asleep = True
                await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
            else:
                await self._look(ring)
        if not self._looking:
            self._pass_on()
        return _GIVEN_UP if flight.result in _UNDONE else flight.result

    async def _look(self, ring: Ring) -> None:
        self._looking = True
        try:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(ring.events)
        finally:
            self._looking = False
        for number, result in ring.outcomes():
            flight = self._flights.pop(number + number % 2)
            if number == flight.last:
                flight.result = result
            flight.over = True
            _wake(flight)

    def _pass_on(self) -> None:
        """Somebody else has to look from now on."""
        for flight in self._flights.values():
            if flight.asleep:
                _wake(flight)
                return


def _wake(flight: _Flight) -> None:
    if flight.asleep:
        flight.asleep = False
        trio.lowlevel.reschedule(flight.task)


def _error(result: int, file: OpenFile) -> OSError:
    return OSError(-result, os.strerror(-result), file.path)
