"""Messages between the daemon's processes: msgpack lists behind their length, on a Unix socket."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import trio

from pipeline.reach import reachable
from stages.errors import ProtocolError

VERSION = 1
MAX_FRAME = 16 << 20
_SEND_SECONDS = 10.0  # for a peer that does not read
_LENGTH = struct.Struct("<I")


class Frames:
    """One connection. Any number of tasks may send; one receives."""

    def __init__(self, stream: trio.abc.Stream):
        self._stream = stream
        self._lock = trio.Lock()

    async def send(self, *message: Any) -> None:
        """Send one message, whole. ``OSError``, ``trio.BrokenResourceError``; the latter also, and
        the connection is at its end, if the peer does not take it."""
        data = msgpack.packb(list(message))
        if len(data) > MAX_FRAME:
            raise ValueError(f"a message of {len(data)} bytes")
        async with self._lock:
            # Half a message would make nonsense of all that follow.
            with trio.CancelScope(
                shield=True, deadline=trio.current_time() + _SEND_SECONDS
            ) as sent:
                await self._stream.send_all(_LENGTH.pack(len(data)) + data)
            if sent.cancelled_caught:
                await trio.aclose_forcefully(self._stream)
                raise trio.BrokenResourceError("the other side does not read")

    async def receive(self) -> list[Any] | None:
        """The next message, None at the end. Raises ``ProtocolError`` for what is none."""
        head = await self._exactly(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > MAX_FRAME:
            raise ProtocolError(f"a message of {length} bytes", operation="daemon's socket")
        data = await self._exactly(length)
        if data is None:
            return None
        try:
            message = msgpack.unpackb(data)
        except (ValueError, msgpack.UnpackException) as error:
            raise ProtocolError(f"not a message: {error}", operation="daemon's socket") from None
        if not isinstance(message, list) or not message:
            raise ProtocolError("not a message", operation="daemon's socket")
        return message

    async def aclose(self) -> None:
        """Hang up."""
        await self._stream.aclose()

    async def _exactly(self, count: int) -> bytes | None:
        found = bytearray()
        while len(found) < count:
            data = await self._stream.receive_some(min(count - len(found), 1 << 20))
            if not data:
                return None
            found += data
        return bytes(found)


async def connect(path: str) -> Frames:
    """Connect to a daemon's socket. ``OSError`` if nobody listens."""
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        with reachable(path) as short:
            await sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return Frames(trio.SocketStream(sock))
