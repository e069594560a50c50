"""``serve_site``: a site from its start to SIGTERM; SIGHUP reads configuration and certificates."""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from pipeline import logs
from pipeline.https.connection import tls_context
from pipeline.https.drain import Drained
from pipeline.https.serve import Bounds, Door, serve
from pipeline.https.sockets import listen_tcp, url_of
from pipeline.site.app import Site, build_app
from pipeline.site.body import Budget
from pipeline.site.config import SiteConfig, load_site
from pipeline.site.following import Followers
from pipeline.site.problems import answer_to, refuse
from pipeline.supervisor.notify import Notifier, fed
from stages.errors import BackstayError, ConfigError, StateError
from stages.ports import Machine
from stages.stage import crew
from stages.store.file import FileStore

IDLE_SECONDS = 60.0
SEND_SECONDS = 30.0
_SWEEP_SECONDS = 86_400.0
_LOG = logging.getLogger("backstay.site")


@dataclass
class _Serving:
    """What a reload exchanges."""

    site: Site
    tls: ssl.SSLContext
    followers: Followers


async def serve_site(
    path: str,
    ports: Machine,
    notifier: Notifier,
    *,
    create: bool = False,
    drain: float = 30.0,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the configuration at ``path`` until SIGTERM or SIGINT; answers under way have ``drain``
    seconds then. ``create``: make folders that are missing. ``ready`` is told the address.

    Raises ``ConfigError``, ``StateError`` (it cannot listen, a folder is missing), ``NoSpace``.
    """
    config = await trio.to_thread.run_sync(load_site, path)
    logs.configure(config.site.log.format, config.site.log.level)
    stores = await _open(ports, config, create=create)
    followers = Followers(ports, config)
    site = Site(config, stores, Budget(config.site.memory), followers.standing)
    tls = await trio.to_thread.run_sync(_tls, config)
    serving = _Serving(site, tls, followers)
    host, port = config.site.address
    sock = listen_tcp(host, port, "serve the site")
    with sock:
        address = url_of(sock)

        def started() -> None:
            names = ", ".join(config.vaults)
            logs.event("site.ready", f"serving {names} at {address}", address=address)
            notifier.ready(address)
            ready(address)

        door = Door(trio.SocketListener(trio.socket.from_stdlib_socket(sock)), lambda: serving.tls)
        app = Drained(build_app(site), lambda: answer_to(refuse(413, "this request has no body")))
        bounds = Bounds(config.site.connections, IDLE_SECONDS, SEND_SECONDS, grace=drain)
        async with crew() as nursery:
            stop = trio.Event()
            await nursery.start(_signals, stop, nursery.cancel_scope, path, ports, serving)
            nursery.start_soon(_sweep, site, ports)
            nursery.start_soon(serving.followers.run)
            nursery.start_soon(partial(fed, notifier, ports.clock, lambda: True))
            ending = notifier.stopping
            await serve(app, [door], bounds, _LOG, started=started, ending=ending, stop=stop)
            nursery.cancel_scope.cancel()
    logs.event("site.ended", "ended")


async def _open(ports: Machine, config: SiteConfig, *, create: bool) -> dict[str, FileStore]:
    """The stores of all vaults, each with its folder."""
    found = {}
    for name, vault in config.vaults.items():
        store = found[name] = FileStore(vault.path, ports)
        if create:
            await store.create_root()
        try:
            await store.page("", "", 1)
        except BackstayError as error:
            raise StateError(
                f"the folder of vault {name} cannot be used: {error.message}",
                operation="serve the site",
                subject=vault.path,
                hint="is it mounted? For a new vault 'backstay site CONFIG --create' makes it",
            ) from error
    return found


def _tls(config: SiteConfig) -> ssl.SSLContext:
    tls = config.site.tls
    try:
        return tls_context(tls.cert, tls.key, tls.client_ca, required=True)
    except OSError as error:
        raise ConfigError(
            f"certificate or key cannot be used: {error.strerror or error}",
            operation="serve the site",
            subject=str(error.filename or ", ".join((tls.cert, tls.key, tls.client_ca))),
            hint="PEM files, the key without passphrase; 'backstay site certificates' makes them",
        ) from error


async def _signals(
    stop: trio.Event,
    all_of_it: trio.CancelScope,
    path: str,
    ports: Machine,
    serving: _Serving,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Reload at SIGHUP; end in order at the first of the others, at once at the second."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                await _reload(path, ports, serving)
            elif stop.is_set():
                all_of_it.cancel()
            else:
                logs.event("site.ending", "ends when the answers under way are sent")
                stop.set()


async def _reload(path: str, ports: Machine, serving: _Serving) -> None:
    """All of it, or nothing if something is wrong with it."""
    before = serving.site.config.site
    try:
        config = await trio.to_thread.run_sync(load_site, path)
        tls = await trio.to_thread.run_sync(_tls, config)
        stores = await _open(ports, config, create=False)
    except BackstayError as error:
        logs.error("site.reload", f"not reloaded, what was before stays in force: {error.message}")
        return
    serving.tls = tls
    serving.site.config, serving.site.stores = config, stores
    serving.followers.exchange(config)
    logs.configure(config.site.log.format, config.site.log.level)
    logs.event("site.reload", "configuration and certificates are read again")
    fixed = ("listen", "connections", "memory")
    if any(getattr(before, name) != getattr(config.site, name) for name in fixed):
        logs.warning("site.reload", f"{', '.join(fixed)}: a change needs a restart")


async def _sweep(site: Site, ports: Machine) -> None:
    """Remove what killed puts left, day by day."""
    while True:
        for name, store in list(site.stores.items()):
            try:
                swept = await store.sweep()
            except BackstayError as error:
                logs.warning("site.sweep", f"vault {name}: {error}")
                continue
            if swept:
                logs.event("site.sweep", f"vault {name}: {swept} left-over files removed")
        await ports.clock.sleep(_SWEEP_SECONDS)
