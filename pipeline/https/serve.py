"""hypercorn's ``worker_serve`` with connections of our own, and not too many of them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from pipeline.https.connection import Connection
from stages.store.site.records import Wide

_REQUESTS = 1 << 30  # of one connection
_LAST_WORDS = 2.0  # seconds
_RECEIVE = 64 << 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """Numbers and seconds that nobody outside can make larger.

    ``connections`` of each door; ``strangers``: of those, how many may not have shown yet who they
    are; ``send``: for a client to take what it is sent; ``idle``: between requests, and for the
    head of one; ``grace``: for answers under way at the end.
    """

    connections: int
    idle: float
    send: float
    strangers: int = 64
    handshake: float = 10.0
    grace: float = 2.0


@dataclass(frozen=True, slots=True)
class Door:
    """Where it listens. ``tls`` gives the context of the next connection; None: without TLS."""

    listener: trio.SocketListener
    tls: Callable[[], ssl.SSLContext] | None = None


class _Lobby:
    """Where strangers wait while they show who they are: for a bounded time, and a bounded number.
    When it is full the oldest has to go, because honest ones are quick."""

    def __init__(self, bounds: Bounds):
        self._most = bounds.strangers
        self._seconds = bounds.handshake
        self._waiting: dict[Any, trio.CancelScope] = {}  # in the order of their coming

    async def admit(self, stream: trio.SSLStream[Wide]) -> bool:
        """True once the handshake is done."""
        while len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            self._waiting.pop(oldest).cancel()
        done = False
        with trio.move_on_after(self._seconds) as scope:
            self._waiting[stream] = scope
            try:
                await stream.do_handshake()
                done = True
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                await _say_why(stream)
            finally:
                self._waiting.pop(stream, None)
        return done


async def _say_why(stream: trio.SSLStream[Wide]) -> None:
    """Send the alert that OpenSSL has made and trio leaves where it is, so that a client learns
    what is wrong with its certificate; and hear it out, or the kernel takes the alert back."""
    alert = getattr(stream, "_outgoing", None)
    plain = stream.transport_stream
    with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        if alert is not None and alert.pending:
            await plain.send_all(alert.read())
            await plain.send_eof()
            with trio.move_on_after(_LAST_WORDS):
                while await plain.receive_some(_RECEIVE):
                    pass


async def serve(
    app: ASGIApp,
    doors: Sequence[Door],
    bounds: Bounds,
    log: logging.Logger,
    *,
    started: Callable[[], object],
    ending: Callable[[], object],
    stop: trio.Event | None = None,
) -> None:
    """Serve until cancelled, which ends all that is under way; or until ``stop``, after which
    answers under way have ``bounds.grace``. ``ending`` is called when either begins."""
    config = _config(bounds, log)
    context = WorkerContext(None)
    wrapped = wrap_app(app, 0, "asgi")  # type: ignore[arg-type]
    lobby = _Lobby(bounds)

    async def connected(door: Door, places: trio.CapacityLimiter, plain: trio.SocketStream) -> None:
        stream: Any = plain
        if door.tls is not None:
            stream = trio.SSLStream(
                Wide(plain), door.tls(), server_side=True, https_compatible=True
            )
            if not await lobby.admit(stream):
                await trio.aclose_forcefully(plain)
                return
        try:
            places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(plain)
            return
        try:
            connection = Connection(wrapped, config, context, ConnectionState({}), stream)
            connection.send_seconds = bounds.send
            await _alone(connection, log)
        finally:
            places.release_on_behalf_of(stream)

    async with trio.open_nursery() as handlers:
        try:
            async with trio.open_nursery() as accepting:
                for door in doors:
                    # Each has places of its own: strangers on TCP do not shut a Unix socket.
                    handler = partial(connected, door, trio.CapacityLimiter(bounds.connections))
                    listen = partial(
                        trio.serve_listeners, handler, [door.listener], handler_nursery=handlers
                    )
                    await accepting.start(listen)
                started()
                await (trio.Event() if stop is None else stop).wait()
                accepting.cancel_scope.cancel()
        finally:
            ending()
            with trio.CancelScope(shield=True):
                await context.terminated.set()
            handlers.cancel_scope.deadline = trio.current_time() + bounds.grace


async def _alone(connection: Connection, log: logging.Logger) -> None:
    """Whatever goes wrong with one connection ends that one, and not the daemon."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
    except BaseExceptionGroup as group:
        defects, rest = group.split(Exception)
        if rest is not None:  # cancelled
            raise
        log.exception("a connection is ended", exc_info=defects)


def _config(bounds: Bounds, log: logging.Logger) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.keep_alive_timeout = bounds.idle
    config.keep_alive_max_requests = _REQUESTS
    config.include_server_header = False
    config.h11_max_incomplete_size = 16 << 10
    config.max_app_queue_size = 4
    return config
