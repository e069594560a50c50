"""Sockets to listen on, and who is at their other end. Imports nothing heavy."""

from __future__ import annotations

import socket
import struct

from stages.errors import StateError

BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")


def listen_tcp(host: str, port: int, operation: str) -> socket.socket:
    """Listen on a TCP port. ``StateError``: it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StateError(
            error.strerror or "cannot listen",
            operation=operation,
            subject=f"{host}:{port}",
            hint="choose another port",
        ) from error
    return sock


def url_of(sock: socket.socket) -> str:
    """The https address of a socket that listens."""
    host, port, *_ = sock.getsockname()
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a Unix socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])
