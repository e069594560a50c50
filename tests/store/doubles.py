"""A clock that only moves when someone sleeps, and entropy that is no surprise."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio


@dataclass
class StillClock:
    """Sleeping takes no real time; ``sleeps`` keeps what was asked for."""

    now: float = 1000.0
    sleeps: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.now * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self.sleeps.append(seconds)
        self.now += seconds


@dataclass
class SameByte:
    """Every random byte is this one."""

    byte: int = 0xFF

    def token(self, size: int) -> bytes:
        return bytes([self.byte]) * size
