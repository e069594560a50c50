"""Listings that go on with the next page where the last one ended.

Azure's client knows no "after": each page of a walk would ask for all before it again, as many
requests as the square of the pages. So a listing that is not at its end is kept for the page that
follows; what this store changes itself ends that, so that a page always shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stages.ports import Clock
from stages.store.port import ObjectInfo

_MOST = 4  # listings kept, each with a page of the server: the oldest is forgotten
_FRESH = 60.0  # seconds: what others have changed meanwhile is seen after that at the latest


@dataclass
class Walk:
    """A listing of ``prefix``; ``entries`` are those after what was given out, None: not begun."""

    prefix: str
    entries: Iterator[ObjectInfo] | None
    began: float
    changes: int


class Walks:
    """Those that may be gone on with, by prefix and the last key that was given out."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._kept: dict[tuple[str, str], Walk] = {}
        self._changes = 0

    def take(self, prefix: str, after: str) -> Walk:
        """The listing that goes on after ``after``, for this caller alone; or a new one."""
        now = self._clock.monotonic()
        found = self._kept.pop((prefix, after), None)
        if found is None or found.began + _FRESH < now:
            return Walk(prefix, None, now, self._changes)
        return found

    def keep(self, walk: Walk, last: str) -> None:
        """For the page after ``last``, unless something was changed since it began."""
        if walk.changes != self._changes:
            return
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[walk.prefix, last] = walk

    def forget(self) -> None:
        """Something is about to be changed by this store."""
        self._changes += 1
        self._kept.clear()
