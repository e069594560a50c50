"""Replies as bytes, simple and structured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from stages.nbd import wire
from stages.nbd.device import Extent, Part
from stages.nbd.transmission import Request


class ReadSink(Protocol):
    """Where answers of reads are made of content that is there at once."""

    def place(self, length: int) -> memoryview | None:
        """Where ``length`` bytes of content may be put; None if they have no place now. ``keep``
        makes them an answer; without it, nothing has happened."""

    def keep(self, cookie: int, offset: int, length: int) -> None:
        """What was put into the newest ``place`` answers the read ``cookie``."""


class ReplySink(ReadSink, Protocol):
    """Where a handler puts answers: exactly one for each request, in any order. Never waits.

    Only ``BatchHandler.swift`` uses the half that is a ``ReadSink``.
    """

    def done(self, request: Request) -> None:
        """Success without data."""

    def done_all(self, requests: Sequence[Request]) -> None:
        """Success of many."""

    def done_now(self, requests: Sequence[Request]) -> None:
        """Success of many that a client waits for: sent before anything else is done, if the
        socket takes it."""

    def done_swiftly(self, cookies: Sequence[int]) -> None:
        """Success of writes that were executed as they were found (``BatchHandler.swift``)."""

    def data(self, request: Request, parts: Sequence[Part]) -> None:
        """A read's content; the parts must stay unchanged until they are sent."""

    def extents(self, request: Request, extents: Sequence[Extent]) -> None:
        """A block status, as from ``clip``."""

    def fail(self, request: Request, error: int, reason: str) -> None:
        """One of the protocol's errors, and why."""


def success(cookie: int) -> bytes:
    """Also where structured replies were negotiated: only reads must use them."""
    return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, cookie)


def successes(cookies: Iterable[int]) -> bytes:
    """Many at once."""
    pack, magic = wire.SIMPLE_REPLY.pack, wire.SIMPLE_REPLY_MAGIC
    return b"".join([pack(magic, 0, cookie) for cookie in cookies])


def read_head(request: Request, *, structured: bool) -> bytes:
    """What precedes a read's content; one chunk always, so "don't fragment" holds by itself."""
    if not structured:
        return success(request.cookie)
    return wire.DATA_REPLY.pack(
        wire.STRUCTURED_REPLY_MAGIC,
        wire.REPLY_FLAG_DONE,
        wire.CHUNK_OFFSET_DATA,
        request.cookie,
        request.length + 8,
        request.offset,
    )


def failure(cookie: int, error: int, reason: str, *, structured: bool) -> bytes:
    """An error, with its reason where the form has room for one."""
    if not structured:
        return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie)
    message = reason.encode("utf-8", "replace")[: wire.MAX_MESSAGE]
    message = message.decode("utf-8", "ignore").encode()  # not half a character
    body = wire.ERROR_CHUNK.pack(error, len(message)) + message
    return _chunk(wire.CHUNK_ERROR, cookie, body)


def block_status(cookie: int, extents: Sequence[Extent]) -> bytes:
    """Descriptors of ``base:allocation``."""
    body = [wire.U32.pack(wire.ALLOCATION_ID)]
    body += [extent.length.to_bytes(4, "big") + wire.U32.pack(extent.flags) for extent in extents]
    return _chunk(wire.CHUNK_BLOCK_STATUS, cookie, b"".join(body))


def clip(extents: Iterable[Extent], length: int, *, one: bool) -> list[Extent]:
    """Join neighbours of one kind, cut at ``length``; at most ``wire.MAX_EXTENTS``, or one."""
    most = 1 if one else wire.MAX_EXTENTS
    found: list[Extent] = []
    for extent in extents:
        size = min(extent.length, length)
        if size <= 0:
            continue
        if found and found[-1].flags == extent.flags:
            found[-1] = Extent(found[-1].length + size, extent.flags)
        elif len(found) == most:
            break
        else:
            found.append(Extent(size, extent.flags))
        length -= size
    return found


def _chunk(kind: int, cookie: int, body: bytes) -> bytes:
    head = wire.STRUCTURED_REPLY.pack(
        wire.STRUCTURED_REPLY_MAGIC, wire.REPLY_FLAG_DONE, kind, cookie, len(body)
    )
    return head + body
