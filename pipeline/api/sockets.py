"""The Unix socket of the API, for both of its sides. Imports nothing heavy: commands use it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from pipeline.https.sockets import BACKLOG
from pipeline.reach import reachable
from stages.errors import StateError, StateLocked


def listen_unix(path: str) -> socket.socket:
    """Listen at ``path``. The socket is its owner's alone (0600) from the moment that it exists.

    ``StateLocked``: another process listens there; ``StateError``: it cannot be made, or others
    can enter its folder and change it.
    """
    try:
        _check_folder(path)
        with reachable(path) as name:
            _clear(name, path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                os.fchmod(sock.fileno(), 0o600)  # Linux gives its mode to the file that bind makes
                sock.bind(name)
                sock.listen(BACKLOG)
            except BaseException:
                sock.close()
                raise
    except OSError as error:
        raise _wrong(path, error.strerror or "cannot listen", "choose another path") from error
    return sock


def _check_folder(path: str) -> None:
    folder = Path(path).parent
    if not folder.exists():
        folder.mkdir(mode=0o700)
    if folder.stat().st_mode & 0o022:
        raise _wrong(path, "others can change its folder", f"chmod go-w {folder}")


def _clear(name: str, path: str) -> None:
    """Remove the socket of a process that was killed."""
    place = Path(name)
    if not place.is_socket():
        if place.exists():
            raise _wrong(path, "exists and is not a socket", "choose another path")
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            place.unlink(missing_ok=True)
            return
    raise StateLocked(
        "another process is listening here",
        operation="serve the API",
        subject=path,
        hint="end it, or choose another path",
    )


def remove_unix(path: str, inode: int) -> None:
    """Remove a socket's file at the end, unless another took its place."""
    with suppress(OSError), reachable(path) as name:
        if Path(name).stat().st_ino == inode:
            Path(name).unlink()


def inode_of(path: str) -> int:
    """Which file is at ``path``."""
    with reachable(path) as name:
        return Path(name).stat().st_ino


def _wrong(subject: str, message: str, hint: str) -> StateError:
    return StateError(message, operation="serve the API", subject=subject, hint=hint)
