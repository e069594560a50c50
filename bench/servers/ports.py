"""Ports of the loopback, and servers that come up on them."""

from __future__ import annotations

import socket
import subprocess
import time

PATIENCE = 60.0  # seconds; only reached when something is wrong


class ServerFailed(Exception):
    """A server does not come up, or does not do what it is for."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens on ``port``. Raises ``ServerFailed``."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)  # another program comes up
    raise ServerFailed(f"nothing listens on port {port}")
