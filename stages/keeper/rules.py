"""What a run of the keeper goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.keeper.retain import Retention

GRACE = 86_400.0
CLOCKS_APART = 3600.0  # seconds between the store's clock and this machine's
FILL = 0.85  # objects of which less is needed are worth moving
MOST_MOVED = 256 << 30
MOST_ROLLED = 256  # rollups made in one run: each takes as many gets

PolicyOf = Callable[[str], Retention | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """``policy``: by a machine's name what to keep, None to leave it alone. ``grace`` in seconds.

    ``only``: groups to look at; all of them if empty.
    """

    policy: PolicyOf
    grace: float = GRACE
    fill: float = FILL
    most_moved: int = MOST_MOVED
    only: frozenset[bytes] = frozenset()
