"""Calls on sockets that never wait."""

from __future__ import annotations

import os
from collections.abc import Sequence

from stages.ports import Buffer


class SocketCalls:
    """Calls on non-blocking sockets (``stages.nbd.quick``)."""

    def receive(self, fd: int, target: memoryview) -> int:
        """readv(2)."""
        return os.readv(fd, [target])

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        """writev(2)."""
        return os.writev(fd, parts)

    def send_file(self, fd: int, file: int, offset: int, count: int) -> int:
        """sendfile(2)."""
        return os.sendfile(fd, file, offset, count)
