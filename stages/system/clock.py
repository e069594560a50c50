"""The machine's clocks and its randomness."""

from __future__ import annotations

import secrets
import time

import trio


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.monotonic()

    def wall_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await trio.sleep(seconds)


class SystemEntropy:
    """The kernel's generator."""

    def token(self, size: int) -> bytes:
        """``size`` random bytes."""
        return secrets.token_bytes(size)
