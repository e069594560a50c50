"""Unix sockets whose paths are longer than an address has room for. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SUN_PATH = 107  # bytes of a Unix socket's path, unix(7)


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """A name of the socket at ``path`` that a socket's address has room for: ``path`` itself, or
    one through a descriptor of its folder. ``OSError`` if there is no such folder."""
    if len(os.fsencode(path)) <= _SUN_PATH:
        yield path
        return
    folder, _, name = path.rpartition("/")
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
