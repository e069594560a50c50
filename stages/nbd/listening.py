"""Where a server listens: a Unix socket of its own, or the loopback interface. Nothing else.

NBD has no authentication here: a Unix socket is guarded by its mode 0600, and beyond the machine
NBD would need TLS. The socket's file is handled through ``trio.Path``: it is part of the socket,
not of the files a simulation replaces.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote

import trio

from stages.errors import UsageError

_BACKLOG = 512  # clients that connect at the same moment
_SUN_PATH = 107  # bytes of a Unix socket's path, unix(7)
_OPERATION = "listen for NBD"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path in the file system."""

    path: str

    def uri(self, export: str) -> str:
        """As NBD clients take it."""
        return f"nbd+unix:///{quote(export, safe='')}?socket={quote(self.path)}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A loopback address; port 0 takes a free one."""

    host: str
    port: int

    def uri(self, export: str) -> str:
        """As NBD clients take it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nbd://{host}:{self.port}/{quote(export, safe='')}"


Address: TypeAlias = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """``unix:PATH``, ``HOST:PORT`` or ``[HOST]:PORT``; ``UsageError`` for anything else."""
    if text.startswith("unix:"):
        return _checked(UnixAddress(text.removeprefix("unix:")))
    host, colon, port = text.removeprefix("tcp:").rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise _usage(text, "not an address", "unix:PATH or 127.0.0.1:PORT")
    return _checked(TcpAddress(host.removeprefix("[").removesuffix("]"), int(port)))


@asynccontextmanager
async def listening(address: Address) -> AsyncIterator[tuple[trio.SocketListener, Address]]:
    """Listen; gives the listener and the address with its real port. The socket's file is removed
    at the end. ``UsageError`` if the place is taken or not local."""
    address = _checked(address)
    if isinstance(address, TcpAddress):
        with await _bind_tcp(address) as sock:
            port = sock.getsockname()[1]
            yield trio.SocketListener(sock), TcpAddress(address.host, port)
        return
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        await _bind_unix(sock, address.path)
        with trio.CancelScope(shield=True):
            inode = await _guard(address.path)
        try:
            sock.listen(_BACKLOG)
            yield trio.SocketListener(sock), address
        finally:
            with trio.CancelScope(shield=True):
                await _remove(address.path, inode)


def _checked(address: Address) -> Address:
    if isinstance(address, UnixAddress):
        if not 0 < len(address.path.encode()) <= _SUN_PATH or "\0" in address.path:
            hint = f"a socket's path has 1 to {_SUN_PATH} bytes: use a shorter or relative one"
            raise _usage(address.path, "not a path for a socket", hint)
        return address
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        hint = "listen on a Unix socket or 127.0.0.1 and forward it with ssh"
        raise _usage(address.host, "not a loopback address, and NBD has no TLS here", hint)
    if not 0 <= address.port < 65536:
        raise _usage(str(address.port), "not a port", "0 to 65535")
    return TcpAddress(host, address.port)


async def _bind_tcp(address: TcpAddress) -> trio.socket.SocketType:
    family = trio.socket.AF_INET6 if ":" in address.host else trio.socket.AF_INET
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await sock.bind((address.host, address.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        subject = f"{address.host}:{address.port}"
        raise _usage(subject, error.strerror or "cannot bind", "choose another port") from error
    return sock


async def _bind_unix(sock: trio.socket.SocketType, path: str) -> None:
    await _clear_stale(path)
    try:
        await sock.bind(path)
    except OSError as error:
        raise _usage(path, error.strerror or "cannot bind", "choose another path") from error


async def _guard(path: str) -> int:
    """Make the socket's file ours alone, before it listens; return its inode."""
    place = trio.Path(path)
    await place.chmod(0o600)
    return (await place.stat()).st_ino


async def _clear_stale(path: str) -> None:
    place = trio.Path(path)
    try:
        if not await place.is_socket():
            if await place.exists():
                raise _usage(path, "exists and is not a socket", "choose another path")
            return
        probe = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        with probe:
            await probe.connect(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        if error.errno != errno.ECONNREFUSED:
            raise _usage(path, error.strerror or "cannot be used", "choose another path") from error
        with suppress(FileNotFoundError):
            await place.unlink()  # its server was killed
        return
    raise _usage(path, "a server is listening here", "stop it or choose another path")


async def _remove(path: str, inode: int) -> None:
    place = trio.Path(path)
    with suppress(FileNotFoundError):
        if (await place.stat()).st_ino == inode:  # not one that replaced ours
            await place.unlink()


def _usage(subject: str, message: str, hint: str) -> UsageError:
    return UsageError(message, operation=_OPERATION, subject=subject, hint=hint)
