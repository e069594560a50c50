"""The ladder: when delivery is tried again after an error. Pure.

After 1, 2, 4, 8, 10 minutes, and from then on every 30, as Azure Site Recovery does; a commit
begins it anew. While a step is waited for, a probe of the vault that succeeds twice in a row ends
the wait.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = (60.0, 120.0, 240.0, 480.0, 600.0)  # seconds
LAST = 1800.0
PROBE_SECONDS = 15.0
PROBES = 2


@dataclass(frozen=True, slots=True)
class Ladder:
    """``attempt``: failures since the last commit."""

    attempt: int = 0

    def failed(self) -> Ladder:
        """One more."""
        return Ladder(self.attempt + 1)

    @property
    def delay(self) -> float:
        """Seconds until the next attempt; 0 before the first failure."""
        if not self.attempt:
            return 0.0
        return STEPS[self.attempt - 1] if self.attempt <= len(STEPS) else LAST
