"""What the supervisor sees of a machine, and what that means for its lifecycle. Pure.

Facts are levels, not edges: what was missed while nobody looked is still to be seen. Looks that
began before the supervisor last changed something are too old to go by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.control.model import Direction, State
from pipeline.lifecycle.events import Happening
from pipeline.lifecycle.rules import Situation

_DELIVERED = (
    State.INITIAL_REPLICATION,
    State.FINALIZING,
    State.REPLICATING,
    State.WAITING_FOR_RESYNC,
    State.RESYNCHRONIZING,
    State.CRITICAL,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What intake said of a machine when asked at ``at`` (monotonic); None: it is not there."""

    at: float
    row: Mapping[str, Any] | None

    @property
    def capture(self) -> str:
        """``replicating``, ``scanning``, ``waiting to scan``, ``tracking``, or "" if unknown."""
        return "" if self.row is None else str(self.row["state"])


def seen(now: Situation, look: Look) -> Happening | None:
    """What has happened, by what intake says."""
    if now.direction is Direction.REVERSE or not look.capture:
        return None
    whole = look.capture == "replicating"
    match now.state:
        case State.REPLICATING | State.SUSPENDED if not whole:
            return Happening.GAP_OPENED
        case State.RESYNCHRONIZING if look.capture == "tracking":
            return Happening.GAP_OPENED
        case State.WAITING_FOR_RESYNC if whole:
            return Happening.GAP_CLOSED
        case State.WAITING_FOR_RESYNC if look.capture == "scanning":
            return Happening.RESYNC_BEGUN
    return None


def heard(now: Situation, said: Mapping[str, Any], look: Look, *, whole: bool) -> Happening | None:
    """What has happened, by what delivery says. ``whole``: there has been a consistent point."""
    if now.direction is Direction.REVERSE or now.state not in _DELIVERED:
        return None
    match said.get("state"):
        case "waiting":
            return Happening.RECOVERABLE_ERROR
        case "failed":
            return Happening.NON_RECOVERABLE_ERROR
        case "delivering" | "committed" if now.state is State.CRITICAL:
            if not whole:
                return Happening.RECOVERED_INITIAL
            in_gap = look.capture not in ("replicating", "")
            return Happening.RECOVERED_IN_GAP if in_gap else Happening.RECOVERED
    return None
