"""``serve_api``: the API on a Unix socket, and on TCP behind TLS, until cancelled."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from pipeline.api import sockets
from pipeline.api.access import Access, AccessFile
from pipeline.api.app import build_app
from pipeline.api.connection import Connection, tls_context
from pipeline.api.drain import Drained
from pipeline.api.guard import Api, Audit
from pipeline.api.settings import ApiSettings, Tcp
from pipeline.control.service import Control
from stages.errors import ConfigError

_LOG = logging.getLogger("backstay.api")
_GRACE_SECONDS = 2.0  # for answers under way at the end

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]


async def serve_api(
    control: Control,
    settings: ApiSettings,
    audit: Audit,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``control`` until cancelled. ``audit`` writes an entry for a call that is refused
    before it reaches ``control``. Started with the addresses that it listens on.

    ``StateError``: cannot listen; ``ConfigError``: certificate, key or access file are not right.
    """
    access: Access | AccessFile = Access()
    if settings.tcp is not None:
        access = await trio.to_thread.run_sync(AccessFile, settings.tcp.access)
    api = Api(control, audit, settings.limits, access)
    async with AsyncExitStack() as stack:
        listeners: list[Listener] = []
        addresses = []
        if settings.unix:
            listeners.append(await stack.enter_async_context(_unix(settings.unix)))
            addresses.append(f"unix:{settings.unix}")
        if settings.tcp is not None:
            listener, address = await stack.enter_async_context(_tcp(settings.tcp))
            listeners.append(listener)
            addresses.append(address)
        await _serve(api, listeners, partial(task_status.started, addresses))


@asynccontextmanager
async def _unix(path: str) -> AsyncIterator[Listener]:
    sock = await trio.to_thread.run_sync(sockets.listen_unix, path)
    with sock:
        inode = sockets.inode_of(path)
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            sockets.remove_unix(path, inode)


@asynccontextmanager
async def _tcp(tcp: Tcp) -> AsyncIterator[tuple[Listener, str]]:
    try:
        context = await trio.to_thread.run_sync(
            tls_context, tcp.certificate, tcp.key, tcp.client_ca
        )
    except OSError as error:
        raise ConfigError(
            f"certificate or key cannot be used: {error.strerror or error}",
            operation="serve the API",
            subject=str(error.filename or tcp.certificate),
            hint="PEM files of a certificate with its chain, and of its key without passphrase",
        ) from error
    sock = sockets.listen_tcp(tcp.host, tcp.port)
    with sock:
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        yield trio.SSLListener(plain, context, https_compatible=True), _address(sock)


def _address(sock: socket.socket) -> str:
    host, port, *_ = sock.getsockname()
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def _serve(api: Api, listeners: list[Listener], started: Any) -> None:
    """hypercorn's ``worker_serve`` with connections of our own, and not too many of them."""
    config = _config(api)
    context = WorkerContext(None)
    app = wrap_app(Drained(build_app(api)), 0, "asgi")  # type: ignore[arg-type]
    # Each listener has places of its own: strangers on TCP do not shut the Unix socket.
    within, beyond = (trio.CapacityLimiter(api.limits.connections) for _ in range(2))

    async def connected(stream: Any) -> None:
        places = beyond if isinstance(stream, trio.SSLStream) else within
        try:
            places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            connection = Connection(app, config, context, ConnectionState({}), stream)
            connection.send_seconds = api.limits.send_seconds
            await _alone(connection)
        finally:
            places.release_on_behalf_of(stream)

    async with trio.open_nursery() as handlers:
        try:
            serve = partial(trio.serve_listeners, connected, listeners, handler_nursery=handlers)
            async with trio.open_nursery() as accepting:
                await accepting.start(serve)
                started()
        finally:
            api.stopping.set()
            with trio.CancelScope(shield=True):
                await context.terminated.set()
            handlers.cancel_scope.deadline = trio.current_time() + _GRACE_SECONDS


async def _alone(connection: Connection) -> None:
    """Whatever goes wrong with one connection ends that one, and not the daemon."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
    except BaseExceptionGroup as group:
        defects, rest = group.split(Exception)
        if rest is not None:  # cancelled
            raise
        _LOG.error("a connection is ended", exc_info=defects)


def _config(api: Api) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = _LOG
    config.keep_alive_timeout = api.limits.idle_seconds
    config.include_server_header = False
    config.h11_max_incomplete_size = 16 << 10
    config.max_app_queue_size = 4
    return config
