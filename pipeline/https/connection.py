"""One connection under hypercorn: who is at its other end, and how long it may make us wait."""

from __future__ import annotations

import ssl
from typing import Any

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.trio.tcp_server import TCPServer

from pipeline.https.peer import PEER, Peer, common_name, fingerprint
from pipeline.https.sockets import peer_uid
from stages.store.site.records import receive


class Connection(TCPServer):
    """hypercorn's, which tells nobody who the peer is, would wait for ever, and shielded, for a
    client that does not read, speaks more protocols than are of use here, and keeps the place of a
    client that has hung up until it would have been idle for too long."""

    send_seconds = 30.0
    _hung_up = False

    async def run(self) -> None:
        """Note who is there for all that this connection asks."""
        try:
            peer = self._who()
        except (OSError, trio.BrokenResourceError):
            await trio.aclose_forcefully(self.stream)
            return
        PEER.set(peer)
        await super().run()

    def _who(self) -> Peer:
        stream: Any = self.stream
        if not isinstance(stream, trio.SSLStream):
            return Peer("unix", uid=peer_uid(stream.socket))
        host, port, *_ = stream.transport_stream.socket.getpeername()
        return Peer(
            f"{host}:{port}",
            name=common_name(stream.getpeercert()),
            fingerprint=fingerprint(stream.getpeercert(binary_form=True)),
        )

    async def _read_data(self) -> None:
        """HTTP/1.1 and nothing else: what breaks it, or asks for HTTP/2, ends the connection."""
        http = self.protocol.protocol
        data = b"-"
        while data:
            try:
                data = await receive(self.stream)
                await http.handle(RawData(data))
            except (trio.ClosedResourceError, trio.BrokenResourceError, h11.ProtocolError):
                break
            except (H2ProtocolAssumedError, H2CProtocolRequiredError):
                break
        self._hung_up = True
        await http.handle(Closed())
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        """Send, for a bounded time; then the connection ends, whatever waits behind it."""
        if self._hung_up and isinstance(event, Updated):
            return  # there is no next request to wait for
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        with trio.move_on_after(self.send_seconds, shield=True) as scope:
            async with self.send_lock:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.protocol.handle(Closed())
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self.stream)
            await self.protocol.handle(Closed())


def tls_context(
    certificate: str, key: str, client_ca: str, *, required: bool = False
) -> ssl.SSLContext:
    """TLS 1.2 or newer. With ``client_ca`` clients may (``required``: must) show a certificate,
    and it must be good.
    ``OSError`` (``ssl.SSLError`` is one) for files that are not what they should be."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context
