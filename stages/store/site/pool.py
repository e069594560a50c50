"""Connections to one site: kept for the next request, bounded in number; and their certificates."""

from __future__ import annotations

import ssl

import trio

from stages.ports import FileStat, Machine
from stages.store.site.address import Site
from stages.store.site.connection import Ask, Connection, Heard
from stages.store.site.trouble import NoAnswer, unusable

CONNECTIONS = 32
_FRESH = 20.0  # seconds: sites and routers in between forget what is idle for longer


class Credentials:
    """The TLS context of a site, made again when one of its files has changed: certificates are
    renewed under a daemon that runs for years."""

    def __init__(self, site: Site, ports: Machine):
        self._site = site
        self._ports = ports
        self._seen: list[FileStat | None] = []
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """For the next connection. Raises ``StoreDenied`` if the files are of no use."""
        return await self._ports.offload.run(self._load)

    def _load(self) -> ssl.SSLContext:
        site = self._site
        paths = (site.ca, site.cert, site.key)
        try:
            seen = [self._ports.files.stat(path) for path in paths if path]
            if self._context is None or seen != self._seen:
                self._context = _context(site)
                self._seen = seen
        except OSError as error:
            raise unusable(error, paths) from error
        return self._context


def _context(site: Site) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=site.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if site.cert:
        context.load_cert_chain(site.cert, site.key or None, password="")
    return context


class Pool:
    """At most ``CONNECTIONS`` at a time; whoever comes beyond that waits for one."""

    def __init__(self, site: Site, ports: Machine):
        self._site = site
        self._clock = ports.clock
        self._credentials = Credentials(site, ports)
        self._places = trio.Semaphore(CONNECTIONS)
        self._idle: list[tuple[float, Connection]] = []  # the one that was used last at the end
        self._closed = False

    async def exchange(self, ask: Ask, *, again: bool) -> Heard:
        """Ask on a kept connection or a new one. ``again``: it may be asked twice, if a kept one
        turns out to be dead. Raises ``NoAnswer``, ``StoreDenied``."""
        async with self._places:
            kept = await self._take()
            if kept is not None:
                try:
                    return await self._on(kept, ask)
                except NoAnswer as lost:
                    late = isinstance(lost.cause, trio.TooSlowError)
                    if lost.begun or late or not again:
                        raise
            context = await self._credentials.context()
            return await self._on(await Connection.open(self._site, context), ask)

    async def aclose(self) -> None:
        """Close what is kept, and keep nothing from now on. Idempotent."""
        self._closed = True
        while self._idle:
            await self._idle.pop()[1].close()

    async def _on(self, connection: Connection, ask: Ask) -> Heard:
        whole = False
        try:
            heard = await connection.exchange(ask)
            whole = connection.usable and not self._closed
            return heard
        finally:
            if whole:
                self._idle.append((self._clock.monotonic(), connection))
            else:
                await connection.close()

    async def _take(self) -> Connection | None:
        oldest = self._clock.monotonic() - _FRESH
        while self._idle and self._idle[0][0] < oldest:
            await self._idle.pop(0)[1].close()
        return self._idle.pop()[1] if self._idle else None
