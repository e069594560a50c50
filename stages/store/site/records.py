"""TLS for bodies: as many records at a time as have come, not one for each turn of the event loop.

A record has at most 16 KiB, and each costs trio a turn: most of what receiving takes.
"""

from __future__ import annotations

import ssl
from typing import Any

import trio

WIDTH = 256 << 10  # bytes taken from a socket at a time: less than a millisecond of the event loop


class Wide(trio.abc.Stream):
    """A socket's stream; what asks for no certain number of bytes gets up to ``WIDTH``."""

    def __init__(self, plain: trio.SocketStream):
        self.socket = plain.socket
        self._plain = plain

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What has come."""
        return await self._plain.receive_some(WIDTH if max_bytes is None else max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._plain.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the socket's."""
        await self._plain.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As the socket's."""
        await self._plain.send_eof()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._plain.aclose()


async def receive(stream: trio.abc.Stream) -> bytes:
    """Wait for something, then all that has come with it, up to about ``WIDTH``; nothing at the
    end. Raises what the stream raises.

    trio has no call for it: what it keeps is looked at where it keeps it. Were it kept elsewhere,
    a record would come at a time, as from ``receive_some``.
    """
    first = bytes(await stream.receive_some(WIDTH))
    tls: Any = getattr(stream, "_ssl_object", None)
    arrived: Any = getattr(stream, "_incoming", None)
    if not first or tls is None or arrived is None:
        return first
    found = [first]
    left = WIDTH - len(first)
    while left > 0 and arrived.pending:
        try:
            data = tls.read(left)
        except ssl.SSLWantReadError:  # the rest of a record is on its way
            break
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error
        if not data:  # closed in order: it is said again
            break
        found.append(data)
        left -= len(data)
    return first if len(found) == 1 else b"".join(found)
