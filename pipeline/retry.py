"""The ladder: when delivery is tried again after an error. Pure.

After 1, 2, 4, 8, 10 minutes, and from then on every 30, as Azure Site Recovery does; a commit, and
nothing else, begins it anew. While a step is waited for, a probe of the vault that succeeds twice
in a row ends the wait. Where a machine stands on it is kept, so a restart does not begin it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

STEPS = (60.0, 120.0, 240.0, 480.0, 600.0)  # seconds
LAST = 1800.0
PROBE_SECONDS = 15.0
PROBES = 2
MAX_JITTER = 5.0  # seconds
_JITTER_SHARE = 0.1
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds to wait after the first errors, after each further one, and between two probes."""

    first: tuple[float, ...] = STEPS
    then: float = LAST
    probe: float = PROBE_SECONDS

    def after(self, attempt: int) -> float:
        """Seconds to wait after the error number ``attempt`` since the last commit; 0 for none."""
        if not attempt:
            return 0.0
        return self.first[attempt - 1] if attempt <= len(self.first) else self.then


@dataclass(frozen=True, slots=True)
class Ladder:
    """``attempt``: errors since the last commit. ``next_try_us``: wall time, None while nothing is
    waited for. ``wait``: seconds that the step had when it began. ``error``: the last one's fields,
    as they are shown."""

    attempt: int = 0
    next_try_us: int | None = None
    wait: float = 0.0
    error: dict[str, Any] | None = None

    def failed(self, wait: float | None, now_us: int, error: dict[str, Any]) -> Ladder:
        """One more error; ``wait`` seconds until it is tried again, None: not by itself."""
        again = None if wait is None else now_us + round(wait * _US)
        return Ladder(self.attempt + 1, again, wait or 0.0, error)

    def trying(self) -> Ladder:
        """The wait is over; only a commit forgets the errors."""
        return replace(self, next_try_us=None, wait=0.0)

    def left(self, now_us: int) -> float:
        """Seconds still to wait at this wall time, for a process that has just begun.

        The wall clock may have been stepped since: never more than the whole step, never less than
        nothing.
        """
        if self.next_try_us is None:
            return 0.0
        return min(max(0.0, (self.next_try_us - now_us) / _US), self.wait)

    def as_fields(self) -> dict[str, Any]:
        """For a note in the state folder."""
        return {
            "attempt": self.attempt,
            "next_try_us": self.next_try_us,
            "wait": self.wait,
            "error": self.error,
        }

    @staticmethod
    def of(fields: dict[str, Any]) -> Ladder:
        """Undo ``as_fields``; what is none is the bottom of the ladder."""
        match fields:
            case {
                "attempt": int(attempt),
                "next_try_us": int() | None as again,
                "wait": int() | float() as wait,
                "error": dict() | None as error,
            } if attempt >= 0 and wait >= 0:
                return Ladder(attempt, again, float(wait), error)
        return Ladder()


def jittered(wait: float, token: bytes) -> float:
    """``wait`` seconds and a little more, at most a tenth of it and 5 s: machines whose vault went
    away together do not come back together. ``token``: random bytes."""
    share = int.from_bytes(token) / float(256 ** len(token))
    return wait + share * min(MAX_JITTER, wait * _JITTER_SHARE)
