"""A server in the test's own loop, and a client that speaks bytes."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from stages.nbd import wire
from stages.nbd.device import Device
from stages.nbd.handler import BatchHandler, DeviceHandler
from stages.nbd.listening import Address, UnixAddress
from stages.nbd.quick import QuickCalls
from stages.nbd.server import Ended, NbdServer
from stages.nbd.session import Limits
from tests.nbd import spoken


@contextmanager
def short_directory() -> Iterator[str]:
    """A Unix socket's path must be short, pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="nbd") as directory:
        yield directory


@dataclass
class Served:
    server: NbdServer = field(init=False)
    address: Address = field(init=False)
    ended: list[Ended] = field(default_factory=list)
    _news: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def note(self, ended: Ended) -> None:
        self.ended.append(ended)
        self._news.unpark_all()

    def uri(self, export: str = "") -> str:
        return self.address.uri(export)

    async def settled(self, count: int) -> None:
        """Wait until ``count`` connections have ended."""
        while len(self.ended) < count:
            await self._news.park()


@asynccontextmanager
async def serving(
    *devices: Device,
    handlers: Sequence[BatchHandler] = (),
    address: Address | None = None,
    limits: Limits | None = None,
    default: str | None = None,
    quick: QuickCalls | None = None,
) -> AsyncIterator[Served]:
    served = Served()
    server = served.server = NbdServer(
        [*handlers, *map(DeviceHandler, devices)],
        default=default,
        limits=limits,
        quick=quick,
        on_end=served.note,
    )
    with short_directory() as directory:
        wanted = address or UnixAddress(str(Path(directory) / "s"))
        async with trio.open_nursery() as nursery:
            served.address = await nursery.start(server.run, wanted)
            yield served
            server.stop()


class Client:
    """Speaks to a server over a stream."""

    def __init__(self, stream: trio.SocketStream):
        self.stream = stream
        self.structured = False
        self._unread = bytearray()

    async def exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            data = await self.stream.receive_some(1 << 20)
            if not data:
                raise EOFError
            self._unread += data
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    async def at_end(self) -> bool:
        """Whether the server has hung up, in whatever way."""
        try:
            return not self._unread and not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True

    async def option(self, data: bytes) -> list[spoken.OptionReply]:
        """Send one option and return its replies, the last one an acknowledgement or error."""
        await self.stream.send_all(data)
        found = []
        while True:
            head = await self.exactly(wire.OPTION_REPLY.size)
            length = wire.OPTION_REPLY.unpack(head)[3]
            found += spoken.option_replies(head + await self.exactly(length))
            if found[-1].kind == wire.REP_ACK or found[-1].kind & wire.REP_ERR:
                return found

    async def go(self, export: str = "", *, structured: bool = True) -> None:
        await self.exactly(wire.GREETING.size)
        await self.stream.send_all(spoken.NEWSTYLE)
        if structured:
            await self.option(spoken.option(wire.OPT_STRUCTURED_REPLY))
            context = spoken.meta(wire.OPT_SET_META_CONTEXT, export, wire.BASE_ALLOCATION)
            assert (await self.option(context))[-1].kind == wire.REP_ACK
        self.structured = structured
        assert (await self.option(spoken.go(export)))[-1].kind == wire.REP_ACK

    async def reply(self, length: int = 0) -> spoken.Reply:
        """The next reply; ``length`` is that of a read answered simply."""
        (magic,) = struct.unpack(">I", head := await self.exactly(4))
        if magic == wire.SIMPLE_REPLY_MAGIC:
            head += await self.exactly(wire.SIMPLE_REPLY.size - 4)
            _, error, cookie = wire.SIMPLE_REPLY.unpack(head)
            if length and not error:
                head += await self.exactly(length)
            return spoken.replies(head, {cookie: length})[0]
        head += await self.exactly(wire.STRUCTURED_REPLY.size - 4)
        body = await self.exactly(wire.STRUCTURED_REPLY.unpack(head)[4])
        return spoken.replies(head + body)[0]

    async def ask(self, said: bytes, length: int = 0) -> spoken.Reply:
        await self.stream.send_all(said)
        return await self.reply(length)

    async def read(self, offset: int, length: int) -> bytes:
        reply = await self.ask(spoken.request(wire.CMD_READ, offset, length), length)
        assert not reply.error
        return reply.data[8:] if self.structured else reply.data


@asynccontextmanager
async def connected(
    served: Served, export: str | None = "", *, structured: bool = True
) -> AsyncIterator[Client]:
    """A client in transmission, or one that has said nothing if ``export`` is None."""
    if isinstance(served.address, UnixAddress):
        stream = await trio.open_unix_socket(served.address.path)
    else:
        stream = await trio.open_tcp_stream(served.address.host, served.address.port)
    async with stream:
        client = Client(stream)
        if export is not None:
            await client.go(export, structured=structured)
        yield client
