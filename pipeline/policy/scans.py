"""When a scan may run. Pure.

What is known to be touched (hot regions after an unclean stop, what was tracked while the journal
was full) is little and is compared at once, and so is what a person orders, or an initial
replication whose time has come. A full scan reads whole disks and keeps to the policy's window,
except when that would leave the machine without a consistent point for too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.policy.window import Window

OVERRIDE_SECONDS = 4 * 3600.0  # without a consistent point


class ScanKind(StrEnum):
    """Why there is something to scan."""

    HOT = "hot regions"
    TOUCHED = "touched regions"
    FULL = "everything"
    INITIAL = "initial replication"
    ORDERED = "ordered by a person"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``go``, or look again at ``at_us`` at the latest (microseconds since 1970 UTC).

    ``overrides``: it goes although the window is closed. ``because``: for people.
    """

    go: bool
    because: str
    at_us: int = 0
    overrides: bool = False


def may_scan(
    kind: ScanKind,
    window: Window,
    now_us: int,
    *,
    inconsistent_seconds: float | None,
    begin_us: int | None = None,
) -> Verdict:
    """May a scan of this kind run, or go on, now?

    ``inconsistent_seconds``: the age of the last consistent point by a monotonic clock; None if
    there has never been one. ``begin_us``: when initial replication is to begin; None for at once.
    """
    if kind is ScanKind.INITIAL:
        if begin_us is None or now_us >= begin_us:
            return Verdict(True, "initial replication begins")
        return Verdict(False, "initial replication waits for its time", begin_us)
    if kind is not ScanKind.FULL:
        return Verdict(True, f"{kind.value}: compared at once")
    if window.is_open(now_us):
        return Verdict(True, "the resync window is open")
    if inconsistent_seconds is None:
        return Verdict(True, "there is no consistent point yet", overrides=True)
    left = OVERRIDE_SECONDS - inconsistent_seconds
    if left <= 0:
        hours = f"{OVERRIDE_SECONDS / 3600:g}"
        return Verdict(True, f"no consistent point for more than {hours} h", overrides=True)
    opens = window.next_opening(now_us)
    return Verdict(False, "waits for the resync window", min(opens, now_us + int(left * 1e6) + 1))
