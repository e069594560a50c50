"""Calls on sockets that never wait."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from stages.ports import Buffer


class SocketCalls:
    """Calls on non-blocking sockets (``stages.nbd.quick``). One for all connections of an event
    loop: ``newest`` is the one that received last."""

    def __init__(self) -> None:
        self.newest: object = None

    def now(self) -> float:
        """Seconds of a monotonic clock."""
        return time.perf_counter()

    def receive(self, fd: int, target: memoryview) -> int:
        """readv(2)."""
        return os.readv(fd, [target])

    def look(self, fd: int, target: memoryview, seconds: float) -> int | None:
        """readv(2), again and again for so long. Each lets other threads have the interpreter."""
        parts, until = [target], time.perf_counter() + seconds
        while True:
            try:
                return os.readv(fd, parts)
            except BlockingIOError:
                if time.perf_counter() >= until:
                    return None

    def send(self, fd: int, parts: Sequence[Buffer]) -> int:
        """writev(2)."""
        return os.writev(fd, parts)

    def send_file(self, fd: int, file: int, offset: int, count: int) -> int:
        """sendfile(2)."""
        return os.sendfile(fd, file, offset, count)
