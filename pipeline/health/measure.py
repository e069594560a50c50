"""What health needs and nobody can read off: how long draining will take. Pure.

It is fed by samples of one machine, every few seconds, with a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_MOST = 2048  # samples kept
_WINDOW = 15 * 60.0  # seconds over which the rate of shipping is taken


@dataclass
class Drain:
    """How long shipping what waits will take, at the rate of the last 15 minutes in which anything
    waited: an idle machine's rate says nothing."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)  # busy seconds, shipped
    _busy: float = 0.0
    _last: tuple[float, int] | None = None  # when, and what waited

    def sample(self, now: float, shipped_bytes: int, waiting_bytes: int) -> float | None:
        """Seconds; None as long as no rate is known: RPO says that nothing is shipped at all.

        ``shipped_bytes``: of the stream, ever; one that falls begins anew.
        """
        samples = self._samples
        if samples and shipped_bytes < samples[-1][1]:
            samples.clear()
        if self._last is not None and self._last[1]:
            self._busy += now - self._last[0]
        self._last = now, waiting_bytes
        samples.append((self._busy, shipped_bytes))
        while len(samples) > 2 and self._busy - samples[1][0] >= _WINDOW:
            samples.popleft()
        if len(samples) > _MOST:
            del samples[1]
        if not waiting_bytes:
            return 0.0
        began, shipped = samples[0]
        if self._busy - began < 60:
            return None
        rate = (shipped_bytes - shipped) / (self._busy - began)
        return waiting_bytes / rate if rate else None
