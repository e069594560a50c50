"""What a vault will be asked for in a month: requests by kind, and bytes. Pure.

From what was observed, once that is long enough to go by; before, from how machines are configured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MONTH_SECONDS = 30 * 86400.0
ENOUGH_SECONDS = 600.0  # of observation: a heartbeat of every idle machine is in it
WINDOW_SECONDS = 86400.0  # a day has its rhythm; what was before it counts no more
SAMPLE_SECONDS = 300.0
HEARTBEAT_SECONDS = 600.0

Totals = Mapping[str, int]
"""Running counts by what is counted: ``put``, ``get``, ``info``, ``list``, ``delete``, ``sent``,
``fetched``."""

COUNTED = ("put", "get", "info", "list", "delete", "sent", "fetched")


@dataclass(frozen=True, slots=True)
class Month:
    """Requests and bytes of 30 days. ``observed_seconds``: what it goes by; 0: the configuration,
    and then puts are those of machines that are written to all the time, and bytes are
    not known."""

    observed_seconds: float
    put: int
    get: int
    info: int
    list: int
    delete: int
    sent: int | None
    fetched: int | None

    @property
    def requests(self) -> int:
        """All of them."""
        return self.put + self.get + self.info + self.list + self.delete


def month_by_configuration(seal_seconds: Sequence[float]) -> Month:
    """At most, by the ages at which live machines' segments are sealed: each commit is one put, and
    one look whether a later term has begun (R12). A segment that does not fit into its commit costs
    another put, and what idle machines cost is less."""
    commits = round(sum(MONTH_SECONDS / seconds for seconds in seal_seconds))
    return Month(0.0, commits, 0, commits, 0, 0, None, None)


def idle_month(machines: int) -> int:
    """Puts of machines that nobody writes to: their heartbeats (R19)."""
    return round(machines * MONTH_SECONDS / HEARTBEAT_SECONDS)


@dataclass
class History:
    """Samples of the running counts of one vault, of a day at most."""

    _samples: deque[tuple[float, dict[str, int]]] = field(default_factory=deque)

    def note(self, now: float, totals: Totals) -> None:
        """At monotonic ``now``. Kept if it is not too soon after the one before."""
        if self._samples and now - self._samples[-1][0] < SAMPLE_SECONDS:
            return
        self._samples.append((now, {name: totals.get(name, 0) for name in COUNTED}))
        # The newest one that is a day old stays: what was counted since then is a whole day's.
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()

    def month(self, now: float, totals: Totals) -> Month | None:
        """From the rate since the oldest sample until ``now``; None: not long enough to say."""
        if not self._samples:
            return None
        began, before = self._samples[0]
        seconds = now - began
        if seconds < ENOUGH_SECONDS:
            return None
        share = MONTH_SECONDS / seconds
        found = {name: round((totals.get(name, 0) - before[name]) * share) for name in COUNTED}
        return Month(seconds, **found)
