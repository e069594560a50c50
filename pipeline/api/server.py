"""``serve_api``: the API on a Unix socket, and on TCP behind TLS, until cancelled."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from pipeline.api import sockets
from pipeline.api.access import Access, AccessFile
from pipeline.api.app import build_app
from pipeline.api.guard import Api, Audit, problem
from pipeline.api.problems import refuse
from pipeline.api.settings import ApiSettings, Limits, Tcp
from pipeline.control.service import Control
from pipeline.https.connection import tls_context
from pipeline.https.drain import Drained
from pipeline.https.serve import Bounds, Door, serve
from pipeline.https.sockets import listen_tcp, url_of
from stages.errors import ConfigError

_LOG = logging.getLogger("backstay.api")


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
        doors: list[Door] = []
        addresses = []
        if settings.unix:
            doors.append(await stack.enter_async_context(_unix(settings.unix)))
            addresses.append(f"unix:{settings.unix}")
        if settings.tcp is not None:
            door, address = await stack.enter_async_context(_tcp(settings.tcp))
            doors.append(door)
            addresses.append(address)
        await serve(
            Drained(build_app(api), lambda: problem(refuse(413, "this request has no body"))),
            doors,
            _bounds(api.limits),
            _LOG,
            started=partial(task_status.started, addresses),
            ending=api.stopping.set,
        )


@asynccontextmanager
async def _unix(path: str) -> AsyncIterator[Door]:
    sock = await trio.to_thread.run_sync(sockets.listen_unix, path)
    with sock:
        inode = sockets.inode_of(path)
        try:
            yield Door(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
        finally:
            sockets.remove_unix(path, inode)


@asynccontextmanager
async def _tcp(tcp: Tcp) -> AsyncIterator[tuple[Door, str]]:
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
    sock = listen_tcp(tcp.host, tcp.port, "serve the API")
    with sock:
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        yield Door(plain, lambda: context), url_of(sock)


def _bounds(limits: Limits) -> Bounds:
    return Bounds(limits.connections, limits.idle_seconds, limits.send_seconds)
