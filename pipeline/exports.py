"""The sockets of one machine: a server for each address, whose exports come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from stages.capture.splitter.disk import LiveDisk
from stages.capture.splitter.handler import SplitHandler
from stages.nbd.listening import Address, parse_address
from stages.nbd.server import NbdServer
from stages.nbd.session import Limits
from stages.system import SocketCalls

_CALLS = SocketCalls()
_NBD = Limits(buffers=4, stall_seconds=300.0)


@dataclass
class _Served:
    """A server at one address."""

    server: NbdServer
    bound: Address | None = None
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass
class _Desk:
    """Where what outlasts a request of one disk's clients runs."""

    nursery: trio.Nursery
    served: _Served
    ended: trio.Event


class Exports:
    """Serves disks by name while ``serving`` lasts; ``uris`` is how clients find them."""

    def __init__(self) -> None:
        self.uris: dict[str, str] = {}
        self._servers: dict[str, _Served] = {}
        self._desks: dict[str, _Desk] = {}
        self._serving: trio.Nursery
        self._working: trio.Nursery

    @property
    def connections(self) -> int:
        """Clients now."""
        return sum(one.server.statistics().open for one in self._servers.values())

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """While this lasts; at its end what is in flight is answered and all disks are flushed."""
        async with trio.open_nursery() as self._working:
            async with trio.open_nursery() as self._serving:
                yield
                for one in self._servers.values():
                    one.server.stop()
            # Their clients have left: what still waits was not begun, and is answered to nobody.
            self._working.cancel_scope.cancel()

    async def listen(self, addresses: Iterable[str]) -> None:
        """Have a server at each of these. ``UsageError`` if one cannot be had: then at none that
        there was no server at before."""
        made: list[str] = []
        try:
            for text in addresses:
                if text in self._servers:
                    continue
                one = _Served(NbdServer([], limits=_NBD, quick=_CALLS))
                one.bound = await self._serving.start(self._serve, one, parse_address(text))
                self._servers[text] = one
                made.append(text)
        except BaseException:
            await self._stop(made)
            raise

    async def close_unused(self) -> None:
        """Listen no more where nothing is offered."""
        await self._stop([at for at, one in self._servers.items() if not one.server.exports])

    async def offer(self, disk: LiveDisk, address: str) -> None:
        """Serve a disk at an address that is listened at."""
        served = self._servers[address]
        assert served.bound is not None  # noqa: S101
        desk = await self._working.start(self._desk, served)
        self._desks[disk.name] = desk
        served.server.offer(SplitHandler(disk, desk.nursery))
        self.uris[disk.name] = served.bound.uri(disk.name)

    def renew(self, disk: LiveDisk) -> None:
        """Its size is another one, for connections made from now on."""
        desk = self._desks[disk.name]
        desk.served.server.offer(SplitHandler(disk, desk.nursery))

    async def withdraw(self, name: str) -> None:
        """Serve a disk no more: on return no client is there, and nothing of theirs is going on."""
        desk = self._desks.pop(name)
        self.uris.pop(name)
        await desk.served.server.withdraw(name)
        desk.nursery.cancel_scope.cancel()  # a write that has begun ends all the same
        await desk.ended.wait()

    async def _stop(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            one = self._servers.pop(address)
            one.server.stop()
            with trio.CancelScope(shield=True):
                await one.ended.wait()

    async def _serve(
        self, one: _Served, address: Address, *, task_status: trio.TaskStatus[Address]
    ) -> None:
        try:
            await one.server.run(address, task_status=task_status)
        finally:
            one.ended.set()

    async def _desk(self, served: _Served, *, task_status: trio.TaskStatus[_Desk]) -> None:
        ended = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                task_status.started(_Desk(nursery, served, ended))
                await trio.sleep_forever()
        finally:
            ended.set()
