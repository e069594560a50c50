"""The trio server: many connections to several exports, none of which can hurt another."""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import trio

from stages.errors import BackstayError, ProtocolError, SourceIO, leaves
from stages.nbd.buffers import Budget, BudgetStatistics
from stages.nbd.handler import BatchHandler
from stages.nbd.listening import Address, listening
from stages.nbd.quick import QuickCalls
from stages.nbd.rooms import Rooms
from stages.nbd.session import Limits, Session

_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_SEND_BUFFER = 1 << 20  # asked for; fewer turns for large reads, -30% CPU with nbdcopy
_WATCHES = 4  # looks at a connection within its time to stall


@dataclass(frozen=True, slots=True)
class Ended:
    """One connection's end; ``error`` is to be logged with its trace if it is a defect.

    ``how``: "left" in good order or by hanging up; "lost" (a socket error); "slow" to negotiate;
    "stalled"; broke the "protocol"; "cut" by shutdown; "defect" of ours.
    """

    export: str
    how: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot. ``ended``: connections by how they ended; ``refused``: those over the limit."""

    open: int
    accepted: int
    refused: int
    ended: dict[str, int]
    memory: BudgetStatistics


class Starting(Protocol):
    """trio's task status, told where the server listens."""

    def started(self, value: Address) -> None:
        """The server accepts connections from now on."""


@dataclass
class _Seen:
    """What the watchdog saw of a connection the last time it moved."""

    scope: trio.CancelScope
    count: int = -1
    since: float = 0.0


class NbdServer:
    """Serves ``exports`` by the names of their devices until stopped.

    ``default`` answers to the empty name; with a single export it is that one. ``quick`` makes
    turns cheaper, and sends a ``FileRange`` without copies. ``on_end`` hears of every connection.
    Exports may come and go meanwhile: clients of others do not notice.
    """

    def __init__(
        self,
        exports: Iterable[BatchHandler],
        *,
        default: str | None = None,
        limits: Limits | None = None,
        quick: QuickCalls | None = None,
        on_end: Callable[[Ended], None] | None = None,
    ):
        self._exports = {export.info.name: export for export in exports}
        self._named_default = default
        self._limits = limits or Limits()
        self._budget = Budget(self._limits.shared_bytes)
        self._rooms = Rooms()
        self._quick = quick
        self._on_end = on_end
        self._sessions: dict[Session, _Seen] = {}
        self._stop = trio.Event()
        self._left = trio.lowlevel.ParkingLot()
        self._accepted = self._refused = 0
        self._ended: Counter[str] = Counter()
        self.recent: deque[Ended] = deque(maxlen=16)

    async def run(
        self,
        address: Address,
        *,
        task_status: Starting = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen and serve; ``started`` gives the bound address. Ends after ``stop``: what is in
        flight is answered within ``drain_seconds``, then the exports are flushed. Cancelled, it
        flushes all the same. ``UsageError`` if the address cannot be had, what a flush raised."""
        async with listening(address) as (listener, bound):
            try:
                task_status.started(bound)
                await self._serve(listener)
            finally:
                await self._flush()

    def offer(self, export: BatchHandler) -> None:
        """One more export; or another handler of one that there is, for connections made from now
        on: those that are open keep what they have."""
        self._exports[export.info.name] = export

    async def withdraw(self, name: str) -> None:
        """Offer it no more and hang up on its clients: what is in flight is answered within
        ``drain_seconds``. None of them is there on return; nothing is flushed."""
        self._exports.pop(name, None)
        theirs = [session for session in self._sessions if session.export == name]
        for session in theirs:
            session.stop()
            self._sessions[session].scope.deadline = (
                trio.current_time() + self._limits.drain_seconds
            )
        while any(session in self._sessions for session in theirs):
            await self._left.park()

    @property
    def exports(self) -> frozenset[str]:
        """The names that are offered."""
        return frozenset(self._exports)

    @property
    def _default(self) -> str | None:
        if self._named_default is None and len(self._exports) == 1:
            return next(iter(self._exports))
        return self._named_default

    def stop(self) -> None:
        """Begin a clean shutdown."""
        self._stop.set()

    def statistics(self) -> ServerStatistics:
        """An immutable snapshot."""
        return ServerStatistics(
            open=len(self._sessions),
            accepted=self._accepted,
            refused=self._refused,
            ended=dict(self._ended),
            memory=self._budget.statistics(),
        )

    async def _serve(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self._watch)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listener, connections)
                    await self._stop.wait()
                    accepting.cancel_scope.cancel()
                listener.socket.close()  # who comes now is refused at once
                for session in list(self._sessions):
                    session.stop()
                connections.cancel_scope.deadline = trio.current_time() + self._limits.drain_seconds
            helpers.cancel_scope.cancel()

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                await trio.sleep(0.1)  # until a descriptor is free
                continue
            if len(self._sessions) >= self._limits.connections:
                self._refused += 1
                stream.socket.close()
                continue
            self._accepted += 1
            self._open(stream.socket, connections)

    def _open(self, sock: trio.socket.SocketType, connections: trio.Nursery) -> None:
        if sock.family == trio.socket.AF_UNIX:  # TCP finds its size by itself
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, _SEND_BUFFER)
        session = Session(
            sock,
            self._exports,
            self._default,
            limits=self._limits,
            budget=self._budget,
            rooms=self._rooms,
            quick=self._quick,
        )
        self._sessions[session] = _Seen(trio.CancelScope())
        connections.start_soon(self._connection, sock, session)

    async def _connection(self, sock: trio.socket.SocketType, session: Session) -> None:
        """The wall around one connection: nothing but cancellation leaves it."""
        scope = self._sessions[session].scope
        how, error = "cut", None
        try:
            with sock, scope:
                async with trio.open_nursery() as nursery:  # wraps what is raised in a group
                    nursery.start_soon(session.run)
            if not (scope.cancelled_caught and session.export not in self._exports):
                how = "stalled" if scope.cancelled_caught else "left"
        except BaseExceptionGroup as group:
            failed, passing = group.split(Exception)
            if failed is not None:
                how, error = _classify(failed)
            if passing is not None:
                raise passing from None
        finally:
            del self._sessions[session]
            self._left.unpark_all()
            self._note(Ended(session.export, how, error))

    def _note(self, ended: Ended) -> None:
        self._ended[ended.how] += 1
        self.recent.append(ended)
        if self._on_end is not None:
            self._on_end(ended)

    async def _watch(self) -> None:
        """Drop clients that stopped inside a request or do not take their replies."""
        stall = self._limits.stall_seconds
        while True:
            await trio.sleep(stall / _WATCHES)
            now = trio.current_time()
            for session, seen in self._sessions.items():
                waiting, count = session.progress()
                if not waiting or count != seen.count:
                    seen.count, seen.since = count, now
                elif now - seen.since >= stall:
                    seen.scope.cancel()

    async def _flush(self) -> None:
        """Flush every export, also when cancelled; the first failure is raised after all."""
        failures: list[BackstayError] = []
        deadline = trio.current_time() + self._limits.flush_seconds
        with trio.CancelScope(deadline=deadline, shield=True) as scope:
            for name, export in list(self._exports.items()):
                try:
                    await export.flush()
                except BackstayError as error:
                    failures.append(error)
                except OSError as error:
                    reason = error.strerror or "input/output error"
                    failures.append(SourceIO(reason, operation="flush", subject=name))
        if scope.cancelled_caught:
            raise SourceIO("not flushed in time", operation="flush", subject="exports")
        if failures:
            raise failures[0]


def _classify(failed: BaseException) -> tuple[str, BaseException]:
    """How a connection ended that raised ``failed``: by its worst cause."""
    causes = leaves(failed)
    known = (ProtocolError, trio.TooSlowError, OSError)
    for cause in causes:
        if not isinstance(cause, known):
            return "defect", cause
    for how, kind in (("protocol", ProtocolError), ("slow", trio.TooSlowError)):
        for cause in causes:
            if isinstance(cause, kind):
                return how, cause
    return "lost", causes[0]
