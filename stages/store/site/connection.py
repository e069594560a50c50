"""One connection to a site: requests one after the other, every wait bounded, no body in copies.

A request that could not be sent whole is still listened to for a moment: a site that refuses a
certificate, or a request, says so before it closes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h11
import trio

from stages.ports import Buffer
from stages.store.site.address import Site
from stages.store.site.protocol import VERSION, VERSION_HEADER
from stages.store.site.records import Wide, receive
from stages.store.site.trouble import NoAnswer

SMALL = 64 << 10  # bytes of an answer that is no object and no list
_PIECE = 256 << 10  # given to TLS at a time: less than a millisecond of the event loop
_HEAD = 32 << 10
_SLOWEST = 16 << 10  # bytes a second; what is slower is taken for an answer that never comes
_LAST_WORDS = 2.0  # seconds

_TROUBLE = (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. ``size`` is the length of the joined ``parts``; the answer's body has at most
    ``most`` bytes."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    parts: Sequence[Buffer] | None = None
    size: int = 0
    most: int = SMALL


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """See the module. After ``NoAnswer`` or cancellation it must be closed."""

    def __init__(self, stream: trio.abc.Stream, site: Site):
        self._stream = stream
        self._site = site
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD)
        self._begun = False

    @staticmethod
    async def open(site: Site, context: ssl.SSLContext) -> Connection:
        """Connect, and agree on TLS. Raises ``NoAnswer``."""
        try:
            with trio.fail_after(site.timeout):
                plain = await trio.open_tcp_stream(site.host, site.port)
                try:
                    stream = trio.SSLStream(
                        Wide(plain), context, server_hostname=site.host, https_compatible=True
                    )
                    await stream.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(plain)
                    raise
        except _TROUBLE as error:
            raise NoAnswer(error, sent=False) from error
        return Connection(stream, site)

    @property
    def usable(self) -> bool:
        """True if another request may follow."""
        return self._http.our_state is h11.IDLE

    async def exchange(self, ask: Ask) -> Heard:
        """Ask and listen. Raises ``NoAnswer``."""
        self._begun = False
        try:
            try:
                with trio.fail_after(self._site.timeout + ask.size / _SLOWEST):
                    await self._send(ask)
            except _TROUBLE:
                with trio.move_on_after(_LAST_WORDS):
                    return await self._hear(ask)
                raise
            heard = await self._hear(ask)
        except _TROUBLE as error:
            raise NoAnswer(error, sent=True, begun=self._begun) from error
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return heard

    async def close(self) -> None:
        """At once: lengths tell both sides what was whole."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)

    async def _send(self, ask: Ask) -> None:
        headers = [("host", self._site.authority), (VERSION_HEADER, VERSION), *ask.headers]
        if ask.parts is not None:
            headers.append(("content-length", str(ask.size)))
        begin = h11.Request(method=ask.method, target=ask.target, headers=headers)
        waiting = bytearray(self._http.send(begin) or b"")
        for piece in _pieces(ask.parts or ()):
            # h11 only counts it: what it returns is what it was given.
            self._http.send_with_data_passthrough(h11.Data(data=piece))  # type: ignore[arg-type]
            if len(waiting) + len(piece) <= _PIECE:
                waiting += piece
                continue
            await self._give(waiting)
            waiting = bytearray()
            await self._give(piece)
        waiting += self._http.send(h11.EndOfMessage()) or b""
        await self._give(waiting)

    async def _give(self, data: Buffer) -> None:
        if len(data):
            with trio.fail_after(self._site.timeout):
                await self._stream.send_all(data)

    async def _hear(self, ask: Ask) -> Heard:
        found: h11.Response | None = None
        body: list[bytes] = []
        left = ask.most
        limit = trio.current_time() + self._site.timeout
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                with trio.fail_at(min(limit, trio.current_time() + self._site.timeout)):
                    data = await receive(self._stream)
                self._begun = self._begun or bool(data)
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                found = event
                limit += _length(event) / _SLOWEST
            elif isinstance(event, h11.Data):
                left -= len(event.data)
                if left < 0:
                    raise h11.RemoteProtocolError("the answer is longer than what was asked for")
                body.append(event.data)
            elif isinstance(event, h11.EndOfMessage) and found is not None:
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("closed before the answer")
        headers = {name.decode(): value.decode("latin1") for name, value in found.headers}
        return Heard(found.status_code, headers, b"".join(body))


def _length(response: h11.Response) -> int:
    """What a response says of its body's length, which h11 has checked."""
    return int(dict(response.headers).get(b"content-length", b"0"))


def _pieces(parts: Sequence[Buffer]) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]
