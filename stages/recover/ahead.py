"""Points whose times lie ahead of this machine's clock: one of two clocks is wrong, or was.

Times of points never go back (a daemon whose clock was set back gives each a time just after the
last one), so who goes by the clock, with ``--at`` or by a point's age, has to be told.
"""

from __future__ import annotations

_TOLERATED_US = 60_000_000  # clocks that nobody looks after differ by seconds


def seconds_ahead(stamp: int, now: int) -> float:
    """How far a point's time lies ahead, both in µs; 0.0 for what two good clocks may differ by."""
    ahead = stamp - now
    return ahead / 1e6 if ahead > _TOLERATED_US else 0.0


def clock_note(seq: int, stamp: int, now: int) -> str:
    """What a person is told of the newest point; "" if there is nothing to tell."""
    ahead = seconds_ahead(stamp, now)
    if not ahead:
        return ""
    return (
        f"the time of point #{seq} lies {ahead / 60:.0f} min ahead of this machine's clock: one of "
        "two clocks is wrong, or was; go by the numbers of points, not by their times"
    )
