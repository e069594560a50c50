"""What health needs and nobody can read off: RPO (R19), and how long draining will take. Pure.

Both are fed by samples of one machine, every few seconds, with a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

Place = tuple[int, int]  # a position: run, offset

_MOST = 2048  # samples kept; with more, neighbours are joined
_WINDOW = 15 * 60.0  # seconds over which the rate of shipping is taken


@dataclass
class Rpo:
    """The age of the oldest write that is not committed, between two samples at most too old.

    What was written between two samples is taken to have been written at the first of them, so it
    never says less than is true. While a gap is open or writes are only tracked, nothing written
    since is recoverable consistently: the age counts from when that began.
    """

    _seen: deque[tuple[float, Place]] = field(default_factory=deque)  # since when, heads rising
    _last: float | None = None
    _unsound: float | None = None

    def sample(self, now: float, head: Place, committed: Place, *, consistent: bool) -> float:
        """RPO in seconds now. ``consistent``: no gap is open and writes are journalled."""
        before = now if self._last is None else self._last
        self._last = now
        if head > committed and (not self._seen or head > self._seen[-1][1]):
            self._seen.append((before, head))
        while self._seen and (self._seen[0][1] <= committed or committed >= head):
            self._seen.popleft()
        if len(self._seen) > _MOST:
            self._thin()
        if consistent:
            self._unsound = None
        elif self._unsound is None:
            self._unsound = before
        since = now
        if self._seen:
            since = min(since, self._seen[0][0])
        if self._unsound is not None:
            since = min(since, self._unsound)
        return now - since

    def _thin(self) -> None:
        """Every second one goes; the writes of it count as old as those before."""
        kept = list(self._seen)
        self._seen.clear()
        for at in range(0, len(kept) - 1, 2):
            self._seen.append((kept[at][0], kept[at + 1][1]))
        if len(kept) % 2:
            self._seen.append(kept[-1])


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
