"""The server's side of fixed newstyle negotiation, without I/O.

Feed what the client sent, send what ``replies`` yields (one item per option), until ``outcome`` is
set; what came after it belongs to transmission and is in ``unread``. ``ProtocolError`` ends the
connection. Held memory is bounded by ``wire.MAX_OPTION`` and what is fed at once.

::

    FLAGS ──client flags──▶ OPTIONS ──EXPORT_NAME, GO──▶ Selected
                              │  ▲ │
                   too large  ▼  │ └──────ABORT────────▶ Aborted
                             SKIPPING
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from stages.errors import ProtocolError
from stages.nbd import wire
from stages.nbd.device import DeviceInfo
from stages.nbd.options import Malformed, parse_info, parse_meta_context, parse_name
from stages.ports import Buffer


@dataclass(frozen=True, slots=True)
class Selected:
    """The client chose an export. ``allocation``: it may ask for block status."""

    info: DeviceInfo
    structured: bool
    allocation: bool


@dataclass(frozen=True, slots=True)
class Aborted:
    """The client ended the negotiation in good order."""


class Handshake:
    """One connection's negotiation over ``exports`` by name; ``default`` answers to ""."""

    def __init__(self, exports: Mapping[str, DeviceInfo], default: str | None = None):
        self.outcome: Selected | Aborted | None = None
        self._exports = exports
        self._default = default
        self._held = bytearray()
        self._skip = 0
        self._options = 0
        self._client_flags: int | None = None
        self._structured = False
        self._allocation_of: DeviceInfo | None = None

    @staticmethod
    def greeting() -> bytes:
        """What the server says first."""
        flags = wire.FIXED_NEWSTYLE | wire.NO_ZEROES
        return wire.GREETING.pack(wire.NBD_MAGIC, wire.OPTION_MAGIC, flags)

    @property
    def unread(self) -> bytes:
        """What was fed and not consumed."""
        return bytes(self._held)

    def feed(self, data: Buffer) -> None:
        """Take bytes from the client."""
        if self._skip:
            cut = min(self._skip, len(data))
            self._skip -= cut
            data = memoryview(data)[cut:]
        self._held += data

    def replies(self) -> Iterator[bytes]:
        """Answer the complete options; exhaust it before feeding more."""
        while self.outcome is None:
            if self._client_flags is None:
                if len(self._held) < wire.CLIENT_FLAGS.size:
                    return
                self._take_client_flags()
                continue
            reply = self._next_option()
            if reply is None:
                return
            if reply:
                yield reply

    def _take_client_flags(self) -> None:
        (flags,) = wire.CLIENT_FLAGS.unpack(self._take(wire.CLIENT_FLAGS.size))
        if flags & ~(wire.FIXED_NEWSTYLE | wire.NO_ZEROES):
            raise _broken(f"unknown client flags {flags:#x}")
        self._client_flags = flags

    def _next_option(self) -> bytes | None:
        """Answer one option; None if none is complete."""
        if self._skip or len(self._held) < wire.OPTION.size:
            return None
        magic, option, length = wire.OPTION.unpack_from(self._held)
        if magic != wire.OPTION_MAGIC:
            raise _broken(f"an option starts with {magic:#x}")
        if option == wire.OPT_EXPORT_NAME and length > wire.MAX_STRING:
            raise _broken(f"an export name of {length} bytes")
        if length > wire.MAX_OPTION:
            return self._skip_option(option, length)
        if len(self._held) < wire.OPTION.size + length:
            return None
        self._count()
        data = self._take(wire.OPTION.size + length)[wire.OPTION.size :]
        return self._answer(option, data)

    def _skip_option(self, option: int, length: int) -> bytes:
        if length > wire.MAX_SKIPPED:
            raise _broken(f"option {option} with {length} bytes")
        self._count()
        del self._held[: wire.OPTION.size]
        cut = min(length, len(self._held))
        del self._held[:cut]
        self._skip = length - cut
        return _error(option, wire.REP_ERR_TOO_BIG, f"at most {wire.MAX_OPTION} bytes")

    def _count(self) -> None:
        self._options += 1
        if self._options > wire.MAX_OPTIONS:
            raise _broken(f"more than {wire.MAX_OPTIONS} options")

    def _take(self, count: int) -> bytes:
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _answer(self, option: int, data: bytes) -> bytes:
        if option == wire.OPT_EXPORT_NAME:
            return self._export_name(data)
        if not self._has(wire.FIXED_NEWSTYLE):
            raise _broken(f"option {option} from a client without fixed newstyle")
        handler = _HANDLERS.get(option)
        if handler is None:
            return _error(option, wire.REP_ERR_UNSUP, "unknown option")
        try:
            return handler(self, option, data)
        except Malformed as error:
            return _error(option, wire.REP_ERR_INVALID, str(error))

    def _has(self, client_flag: int) -> bool:
        return bool((self._client_flags or 0) & client_flag)

    def _find(self, name: str) -> DeviceInfo | None:
        if not name and name not in self._exports and self._default is not None:
            name = self._default
        return self._exports.get(name)

    def _flags(self, info: DeviceInfo) -> int:
        return transmission_flags(info, structured=self._structured)

    def _select(self, info: DeviceInfo) -> None:
        # Contexts are chosen for one export; they do not carry over to another.
        allocation = self._structured and self._allocation_of is info
        self.outcome = Selected(info, self._structured, allocation)

    def _export_name(self, data: bytes) -> bytes:
        try:
            info = self._find(parse_name(data))
        except Malformed as error:
            raise _broken(str(error)) from None
        if info is None:
            raise _broken("no such export")  # this option has no error reply
        self._select(info)
        reply = wire.EXPORT_NAME_REPLY.pack(info.size, self._flags(info))
        if self._has(wire.NO_ZEROES):
            return reply
        return reply + bytes(wire.EXPORT_NAME_PADDING)

    def _abort(self, option: int, _data: bytes) -> bytes:
        self.outcome = Aborted()
        return _reply(option, wire.REP_ACK)

    def _list(self, option: int, data: bytes) -> bytes:
        _no_data(data)
        entries = []
        for name, info in self._exports.items():
            raw = name.encode()
            entry = wire.U32.pack(len(raw)) + raw + info.description.encode()
            entries.append(_reply(option, wire.REP_SERVER, entry))
        return b"".join(entries) + _reply(option, wire.REP_ACK)

    def _starttls(self, option: int, data: bytes) -> bytes:
        _no_data(data)
        return _error(option, wire.REP_ERR_UNSUP, "no TLS here: local connections only")

    def _structured_reply(self, option: int, data: bytes) -> bytes:
        _no_data(data)
        self._structured = True
        return _reply(option, wire.REP_ACK)

    def _info(self, option: int, data: bytes) -> bytes:
        name, wanted = parse_info(data)
        info = self._find(name)
        if info is None:
            return _error(option, wire.REP_ERR_UNKNOWN, "no such export")
        export = wire.INFO_EXPORT_REPLY.pack(wire.INFO_EXPORT, info.size, self._flags(info))
        items = [export, *_info_items(info, wanted)]
        if option == wire.OPT_GO:
            self._select(info)
        replies = [_reply(option, wire.REP_INFO, item) for item in items]
        return b"".join(replies) + _reply(option, wire.REP_ACK)

    def _meta_context(self, option: int, data: bytes) -> bytes:
        setting = option == wire.OPT_SET_META_CONTEXT
        if setting:
            self._allocation_of = None
        name, queries = parse_meta_context(data)
        if not self._structured:
            raise Malformed("structured replies come first")
        info = self._find(name)
        if info is None:
            return _error(option, wire.REP_ERR_UNKNOWN, "no such export")
        found = wire.BASE_ALLOCATION in queries
        if setting and found:
            self._allocation_of = info
        if not setting:  # listing has wildcards: no query at all, and a bare namespace
            found = found or not queries or "base:" in queries
        if not found:
            return _reply(option, wire.REP_ACK)
        context = wire.U32.pack(wire.ALLOCATION_ID if setting else 0)
        context += wire.BASE_ALLOCATION.encode()
        return _reply(option, wire.REP_META_CONTEXT, context) + _reply(option, wire.REP_ACK)


_HANDLERS: dict[int, Callable[[Handshake, int, bytes], bytes]] = {
    wire.OPT_ABORT: Handshake._abort,
    wire.OPT_LIST: Handshake._list,
    wire.OPT_STARTTLS: Handshake._starttls,
    wire.OPT_INFO: Handshake._info,
    wire.OPT_GO: Handshake._info,
    wire.OPT_STRUCTURED_REPLY: Handshake._structured_reply,
    wire.OPT_LIST_META_CONTEXT: Handshake._meta_context,
    wire.OPT_SET_META_CONTEXT: Handshake._meta_context,
}


def transmission_flags(info: DeviceInfo, *, structured: bool) -> int:
    """The 16 bits that tell a client what it may ask of this export."""
    can, writable = info.flags, not info.read_only
    chosen = (
        (True, wire.HAS_FLAGS),
        (info.read_only, wire.READ_ONLY),
        (can.flush, wire.SEND_FLUSH),
        (can.fua and writable, wire.SEND_FUA),
        (can.trim and writable, wire.SEND_TRIM),
        (can.write_zeroes and writable, wire.SEND_WRITE_ZEROES),
        (structured, wire.SEND_DF),
        (can.multi_conn, wire.CAN_MULTI_CONN),
    )
    return sum(bit for on, bit in chosen if on)


def _info_items(info: DeviceInfo, wanted: frozenset[int]) -> Iterator[bytes]:
    if wire.INFO_NAME in wanted:
        yield wire.U16.pack(wire.INFO_NAME) + info.name.encode()
    if wire.INFO_DESCRIPTION in wanted and info.description:
        yield wire.U16.pack(wire.INFO_DESCRIPTION) + info.description.encode()
    blocks = info.blocks
    # Also unasked: clients may ignore it, and all of them then know the largest request.
    yield wire.INFO_BLOCK_SIZE_REPLY.pack(
        wire.INFO_BLOCK_SIZE, blocks.minimum, blocks.preferred, blocks.maximum
    )


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _error(option: int, kind: int, message: str) -> bytes:
    return _reply(option, kind, message.encode())


def _no_data(data: bytes) -> None:
    if data:
        raise Malformed("this option carries no data")


def _broken(what: str) -> ProtocolError:
    return ProtocolError(what, operation="NBD negotiation")
