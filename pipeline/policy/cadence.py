"""When the next of a row of recovery points is due. Pure.

Inside one life of the daemon only the monotonic clock counts, so a wall clock that is set forward
or back changes nothing: never two within one interval, and never silence for longer than one. What
was before a start is known by the wall clock alone; if that is not credible (the last point lies in
the future) the next point is due within one interval from now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

RETRY_SECONDS = 60.0  # until a point that could not be made is tried again, or the interval


@dataclass(frozen=True, slots=True)
class Cadence:
    """A point every ``every`` seconds; the next one is due at ``due`` (monotonic seconds)."""

    every: float
    due: float

    @staticmethod
    def begin(every: float, now: float, wall_us: int, last_us: int | None) -> Cadence:
        """At a start; ``last_us``: the wall clock at the last point, None if there was none."""
        if last_us is None:
            return Cadence(every, now)
        ago = (wall_us - last_us) / 1_000_000
        left = every if ago < 0 else max(0.0, every - ago)
        return Cadence(every, now + left)

    def wait(self, now: float) -> float:
        """Seconds until it is due; 0 if it is."""
        return max(0.0, self.due - now)

    def made(self, now: float) -> Cadence:
        """One was made. The rhythm is kept; what was missed is not made up for."""
        following = self.due + self.every
        return replace(self, due=following if following > now else now + self.every)

    def failed(self, now: float) -> Cadence:
        """One could not be made: soon again, but not at once."""
        return replace(self, due=now + min(self.every, RETRY_SECONDS))

    def changed(self, every: float, now: float) -> Cadence:
        """Another interval, from a reload."""
        if every == self.every:
            return self
        return Cadence(every, min(self.due, now + every))
