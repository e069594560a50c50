"""The data of the options that carry any, parsed and bounded."""

from __future__ import annotations

from stages.nbd import wire


class Malformed(Exception):
    """An option's data is not what the protocol says; answered, the negotiation goes on."""


class _Reader:
    """Walks over an option's data; every read is checked against what is left."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise Malformed("shorter than it says")
        self._at += count
        return self._data[self._at - count : self._at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> str:
        return parse_name(self.take(self.u32()))

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed("longer than it says")


def parse_name(data: bytes) -> str:
    """A string of the protocol: UTF-8, no NUL, at most 4096 bytes."""
    if len(data) > wire.MAX_STRING or b"\0" in data:
        raise Malformed("a string has a NUL or is too long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not UTF-8") from None


def parse_info(data: bytes) -> tuple[str, frozenset[int]]:
    """INFO and GO: the export's name and the kinds of information asked for."""
    reader = _Reader(data)
    name = reader.string()
    wanted = frozenset(reader.u16() for _ in range(reader.u16()))
    reader.end()
    return name, wanted


def parse_meta_context(data: bytes) -> tuple[str, tuple[str, ...]]:
    """LIST_META_CONTEXT and SET_META_CONTEXT: the export's name and the queries."""
    reader = _Reader(data)
    name = reader.string()
    count = reader.u32()
    if count > wire.MAX_QUERIES:
        raise Malformed(f"more than {wire.MAX_QUERIES} queries")
    queries = tuple(reader.string() for _ in range(count))
    reader.end()
    return name, queries
