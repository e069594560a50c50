"""What systemd wants to be told by a service of ``Type=notify`` (sd_notify(3)), in a few lines.

Without ``NOTIFY_SOCKET`` in the environment nothing is sent. The watchdog is fed twice in the time
that systemd allows, and only while the one who feeds it says that all is well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import trio

from stages.ports import Clock

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Notifier:
    """``address``: of the datagram socket, "" for none; ``watchdog``: seconds, None for none."""

    address: str = ""
    watchdog: float | None = None

    @staticmethod
    def of(environment: Mapping[str, str], pid: int) -> Notifier:
        """What systemd has put into the environment of process ``pid``."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return Notifier()
        meant = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        given = environment.get("WATCHDOG_USEC", "")
        usec = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else 0
        return Notifier(address, usec / _US if usec and meant else None)

    def ready(self, status: str = "") -> None:
        """It serves; also when it has been reloaded."""
        self._send("READY=1", f"STATUS={status}" if status else "")

    def reloading(self, clock: Clock) -> None:
        """It reads its configuration again; ``ready`` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(clock.monotonic() * _US)}")

    def stopping(self) -> None:
        """It has begun to end."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ending takes up to this long from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * _US)}")

    def status(self, text: str) -> None:
        """A line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    async def feed(self, clock: Clock, well: Callable[[], bool]) -> None:
        """Feed the watchdog while ``well`` says so, until cancelled."""
        if self.watchdog is None:
            return
        while True:
            if well():
                self._send("WATCHDOG=1")
            await clock.sleep(self.watchdog / 2)

    def _send(self, *lines: str) -> None:
        """Nobody there, or a full queue: systemd's matter."""
        if not self.address:
            return
        said = "\n".join(line.replace("\n", " ") for line in lines if line)
        name = self.address.replace("@", "\0", 1) if self.address[0] == "@" else self.address
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
            sock.sendto(said.encode(), name)


def this_process() -> Notifier:
    """Of this process; its children are not to speak in its name."""
    found = Notifier.of(os.environ, os.getpid())
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
    return found


async def fed(notifier: Notifier, clock: Clock, well: Callable[[], bool]) -> None:
    """A task for a nursery."""
    await notifier.feed(clock, well)
    await trio.sleep_forever()
