"""What a captured group may take."""

from __future__ import annotations

from dataclasses import dataclass

from stages.capture.activity.log import STRETCH
from stages.capture.group.cooling import CYCLE_SECONDS
from stages.capture.splitter.gate import STALL_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. ``journal``: retained at most before writes are tracked or wait.
    ``stretch``: regions that become hot together. ``scrub``: in which everything is compared again,
    0 for never."""

    journal: int
    throttle: bool = False
    stall: float = STALL_SECONDS
    cool: float = CYCLE_SECONDS
    stretch: int = STRETCH
    scrub: float = 0.0
