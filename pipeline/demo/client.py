"""A small NBD client on a Unix socket: fixed newstyle, simple replies, blocking, strict.

Writes may be in flight side by side; everything else waits for its own reply. A server that hangs
up is a ``ConnectionError``, one that does not answer a ``TimeoutError``; one that breaks the
protocol a ``ProtocolError``; one that answers with an error a ``SourceIO``.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn, Self

from stages.errors import NotFound, ProtocolError, SourceIO
from stages.nbd import wire
from stages.ports import Buffer

_PATIENCE = 60.0  # seconds for anything the server has to do
_OPERATION = "use an NBD disk"


class NbdClient:
    """The export ``name`` at the Unix socket ``path``; ``size`` in bytes, ``read_only``."""

    def __init__(self, path: str, name: str):
        self._subject = f"{name} at {path}"
        self._cookie = 0
        self._writing: dict[int, tuple[int, int]] = {}  # offset and length, by cookie
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.connect(path)
            self.size, flags = self._negotiate(name.encode())
        except BaseException:
            self._socket.close()
            raise
        self.read_only = bool(flags & wire.READ_ONLY)
        self._can_flush = bool(flags & wire.SEND_FLUSH)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    @property
    def in_flight(self) -> int:
        """Writes that were begun and not answered yet."""
        return len(self._writing)

    def begin_write(self, offset: int, data: Buffer) -> None:
        """Send a write; ``finish_write`` hears how it went."""
        length = memoryview(data).nbytes
        self._check(offset, length)
        self._writing[self._request(wire.CMD_WRITE, offset, length, data)] = (offset, length)

    def finish_write(self) -> tuple[int, int]:
        """Wait until one of the writes in flight is acknowledged: its offset and length."""
        cookie, error = self._reply()
        if cookie not in self._writing:
            self._broken(f"a reply to {cookie}, which was not asked")
        offset, length = self._writing.pop(cookie)
        self._succeeded(error, f"write at {offset}")
        return offset, length

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the disk."""
        self._check(offset, length)
        self._alone(self._request(wire.CMD_READ, offset, length), f"read at {offset}")
        return self._exactly(length)

    def flush(self) -> None:
        """All acknowledged writes are on stable storage when this returns."""
        if not self._can_flush:
            self._broken("it cannot flush")
        self._alone(self._request(wire.CMD_FLUSH, 0, 0), "flush")

    def close(self) -> None:
        """Disconnect in order; nothing is in flight."""
        try:
            self._request(wire.CMD_DISC, 0, 0)
        finally:
            self._socket.close()

    def abandon(self) -> None:
        """Hang up, whatever is in flight; also if the server has gone."""
        self._writing.clear()
        self._socket.close()

    # negotiation

    def _negotiate(self, name: bytes) -> tuple[int, int]:
        """Choose the export; its size and transmission flags."""
        magic, option_magic, flags = wire.GREETING.unpack(self._exactly(wire.GREETING.size))
        if (magic, option_magic) != (wire.NBD_MAGIC, wire.OPTION_MAGIC):
            self._broken("not an NBD server")
        if not flags & wire.FIXED_NEWSTYLE:
            self._broken("too old: no fixed newstyle")
        mine = flags & (wire.FIXED_NEWSTYLE | wire.NO_ZEROES)
        data = wire.U32.pack(len(name)) + name + wire.U16.pack(0)
        head = wire.OPTION.pack(wire.OPTION_MAGIC, wire.OPT_GO, len(data))
        self._socket.sendall(wire.CLIENT_FLAGS.pack(mine) + head + data)
        found: tuple[int, int] | None = None
        for kind, said in self._option_replies(wire.OPT_GO):
            if kind == wire.REP_ERR_UNKNOWN:
                raise NotFound("no such export", operation=_OPERATION, subject=self._subject)
            if kind & wire.REP_ERR:
                text = said.decode(errors="replace")
                self._broken(f"negotiation: error {kind & ~wire.REP_ERR}: {text}")
            if kind == wire.REP_INFO and wire.U16.unpack_from(said)[0] == wire.INFO_EXPORT:
                _, size, transmission = wire.INFO_EXPORT_REPLY.unpack(said)
                found = size, transmission
        if found is None:
            self._broken("it does not say how large the disk is")
        return found

    def _option_replies(self, asked: int) -> Iterator[tuple[int, bytes]]:
        """Kind and data of each reply, up to the acknowledgement."""
        while True:
            head = self._exactly(wire.OPTION_REPLY.size)
            magic, option, kind, length = wire.OPTION_REPLY.unpack(head)
            if (magic, option) != (wire.OPTION_REPLY_MAGIC, asked) or length > wire.MAX_OPTION:
                self._broken("not a reply to an option")
            said = self._exactly(length)
            if kind == wire.REP_ACK:
                return
            if kind == wire.REP_INFO and length < wire.U16.size:
                self._broken("an information that is none")
            yield kind, said

    # transmission

    def _request(self, command: int, offset: int, length: int, data: Buffer = b"") -> int:
        self._cookie += 1
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, command, self._cookie, offset, length)
        self._socket.sendall(b"".join((head, data)))
        return self._cookie

    def _reply(self) -> tuple[int, int]:
        """Cookie and error."""
        head = self._exactly(wire.SIMPLE_REPLY.size)
        magic, error, cookie = wire.SIMPLE_REPLY.unpack(head)
        if magic != wire.SIMPLE_REPLY_MAGIC:
            self._broken(f"a reply starts with {magic:#x}")
        return cookie, error

    def _alone(self, asked: int, what: str) -> None:
        """The reply to the only request there is: one in flight beside it would be an error."""
        cookie, error = self._reply()
        if cookie != asked:
            self._broken(f"a reply to {cookie} instead of {asked}")
        self._succeeded(error, what)

    def _check(self, offset: int, length: int) -> None:
        if not (offset >= 0 and 0 < length <= wire.MAX_PAYLOAD and offset + length <= self.size):
            raise ValueError(f"{length} bytes at {offset} of a disk of {self.size}")

    def _exactly(self, count: int) -> bytes:
        found = bytearray(count)
        view = memoryview(found)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            view = view[got:]
        return bytes(found)

    def _succeeded(self, error: int, what: str) -> None:
        if error:
            raise SourceIO(
                f"{what}: {os.strerror(error)}", operation=_OPERATION, subject=self._subject
            )

    def _broken(self, what: str) -> NoReturn:
        raise ProtocolError(what, operation=_OPERATION, subject=self._subject)
