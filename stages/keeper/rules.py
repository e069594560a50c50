"""What a run of the keeper goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.keeper.retain import Retention

GRACE = 5 * 3600.0  # runs that are six hours apart each find the floor of the one before of age
CLOCKS_APART = 3600.0  # seconds between the store's clock and this machine's
WASTE = 0.018  # what nobody needs in objects that stay, of what is needed: beyond, frames are moved
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
    waste: float = WASTE
    most_moved: int = MOST_MOVED
    only: frozenset[bytes] = frozenset()
