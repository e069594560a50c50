"""Memory in which the answers of reads are made: heads and content one after the other, sent whole.

A guest reads much in small pieces. Memory of its own for each would have to be found, emptied and
let go, and each answer would be two parts of what is sent; here content comes to lie where it is
sent from, behind its head.
"""

from __future__ import annotations

import mmap

from stages.nbd import wire

_SIZE = 256 << 10  # bytes: four reads of 64 KiB, about what a socket takes at once
_MOST = 16  # of a server: 4 MiB, of which only what was ever used is there


class Room:
    """Answers of one connection, until they are sent."""

    __slots__ = ("_data_head", "_view", "count", "filled")

    def __init__(self) -> None:
        self._view = memoryview(mmap.mmap(-1, _SIZE))
        self._data_head = 0
        self.open(structured=False)

    def open(self, *, structured: bool) -> None:
        """Empty it, for answers of this form."""
        self.filled = self.count = 0
        self._data_head = wire.DATA_REPLY.size if structured else 0

    def place(self, length: int) -> memoryview | None:
        """Where the content of the next answer goes; None if it has no place here."""
        start = self.filled + (self._data_head or wire.SIMPLE_REPLY.size)
        end = start + length
        return self._view[start:end] if end <= _SIZE else None

    def keep(self, cookie: int, offset: int, length: int) -> None:
        """What was put into the newest ``place`` answers the read ``cookie``."""
        view, at = self._view, self.filled
        if self._data_head:
            magic, flags, kind = _CHUNK
            head = wire.DATA_REPLY
            head.pack_into(view, at, magic, flags, kind, cookie, length + 8, offset)
        else:
            head = wire.SIMPLE_REPLY
            head.pack_into(view, at, wire.SIMPLE_REPLY_MAGIC, 0, cookie)
        self.filled = at + head.size + length
        self.count += 1

    @property
    def content(self) -> memoryview:
        """What is to be sent; valid until the room is given back."""
        return self._view[: self.filled]


_CHUNK = (wire.STRUCTURED_REPLY_MAGIC, wire.REPLY_FLAG_DONE, wire.CHUNK_OFFSET_DATA)


class Rooms:
    """The rooms of a server, for all its connections. Whoever gets none answers in another way, so
    nobody waits for clients that do not take their answers."""

    def __init__(self) -> None:
        self._free: list[Room] = []
        self._made = 0

    def take(self, *, structured: bool) -> Room | None:
        """An empty one, if there is one."""
        if self._free:
            room = self._free.pop()
        elif self._made < _MOST:
            self._made += 1
            room = Room()
        else:
            return None
        room.open(structured=structured)
        return room

    def give(self, room: Room) -> None:
        """It was sent, or never will be."""
        self._free.append(room)

    @property
    def free(self) -> int:
        """How many could be had now."""
        return _MOST - self._made + len(self._free)
