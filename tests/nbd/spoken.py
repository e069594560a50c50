"""The client's side of the protocol, as bytes; and a parser for what a server answers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from stages.nbd import wire

NEWSTYLE = wire.CLIENT_FLAGS.pack(wire.FIXED_NEWSTYLE | wire.NO_ZEROES)


def option(number: int, data: bytes = b"") -> bytes:
    return wire.OPTION.pack(wire.OPTION_MAGIC, number, len(data)) + data


def go(name: str = "disk", *wanted: int, number: int = wire.OPT_GO) -> bytes:
    raw = name.encode()
    items = b"".join(struct.pack(">H", item) for item in wanted)
    return option(
        number, struct.pack(">I", len(raw)) + raw + struct.pack(">H", len(wanted)) + items
    )


def meta(number: int, name: str, *queries: str) -> bytes:
    parts = [struct.pack(">I", len(name.encode())), name.encode(), struct.pack(">I", len(queries))]
    for query in queries:
        parts += [struct.pack(">I", len(query.encode())), query.encode()]
    return option(number, b"".join(parts))


def request(
    command: int, offset: int = 0, length: int = 0, *, cookie: int = 7, flags: int = 0
) -> bytes:
    return wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, command, cookie, offset, length)


def write(offset: int, data: bytes, *, cookie: int = 7, flags: int = 0) -> bytes:
    return request(wire.CMD_WRITE, offset, len(data), cookie=cookie, flags=flags) + data


@dataclass(frozen=True)
class OptionReply:
    option: int
    kind: int
    data: bytes


def option_replies(stream: bytes) -> list[OptionReply]:
    """All replies of a negotiation; fails if a part is left."""
    found = []
    while stream:
        magic, number, kind, length = wire.OPTION_REPLY.unpack_from(stream)
        assert magic == wire.OPTION_REPLY_MAGIC
        end = wire.OPTION_REPLY.size + length
        assert len(stream) >= end
        found.append(OptionReply(number, kind, stream[wire.OPTION_REPLY.size : end]))
        stream = stream[end:]
    return found


@dataclass(frozen=True)
class Reply:
    """A reply: ``chunk`` is None for a simple one, else the chunk's type."""

    cookie: int
    error: int
    chunk: int | None
    data: bytes


def replies(stream: bytes, reads: dict[int, int] | None = None) -> list[Reply]:
    """All replies of a transmission; ``reads`` gives the lengths of reads answered simply."""
    found = []
    while stream:
        (magic,) = struct.unpack_from(">I", stream)
        if magic == wire.SIMPLE_REPLY_MAGIC:
            _, error, cookie = wire.SIMPLE_REPLY.unpack_from(stream)
            end = wire.SIMPLE_REPLY.size + (0 if error else (reads or {}).get(cookie, 0))
            found.append(Reply(cookie, error, None, stream[wire.SIMPLE_REPLY.size : end]))
        else:
            assert magic == wire.STRUCTURED_REPLY_MAGIC
            _, flags, kind, cookie, length = wire.STRUCTURED_REPLY.unpack_from(stream)
            assert flags == wire.REPLY_FLAG_DONE
            end = wire.STRUCTURED_REPLY.size + length
            body = stream[wire.STRUCTURED_REPLY.size : end]
            found.append(_structured(cookie, kind, body))
        assert len(stream) >= end
        stream = stream[end:]
    return found


def _structured(cookie: int, kind: int, body: bytes) -> Reply:
    if kind == wire.CHUNK_ERROR:
        error, length = wire.ERROR_CHUNK.unpack_from(body)
        assert len(body) == wire.ERROR_CHUNK.size + length
        return Reply(cookie, error, kind, body[wire.ERROR_CHUNK.size :])
    return Reply(cookie, 0, kind, body)
