"""The recovery point objective as it stands (R19): the age of the oldest write that is not in the
vault. Pure; made of looks at the stream's head, so exact to the time between two of them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from stages.stream import Position

_Head = tuple[float, Position]
_MOST = 4096  # heads remembered: beyond that neighbours become one, as old as the older


class Rpo:
    """Fed with heads and committed positions of one machine, with monotonic times."""

    def __init__(self) -> None:
        self._heads: list[_Head] = []  # by position: when the stream had not come so far yet
        self._looked: tuple[float, Position] | None = None
        self._behind = False

    def look(self, at: float, head: Position, committed: Position) -> None:
        """Intake's answer to a question of that time."""
        if self._looked is None:
            self._heads.append((-math.inf, head))  # nobody knows since when
        elif head > self._looked[1]:
            self._heads.append((self._looked[0], head))
        self._looked = at, head
        del self._heads[: bisect_right(self._heads, committed, key=_position)]
        self._behind = committed < head
        if len(self._heads) > _MOST:
            self._heads = [(early[0], late[1]) for early, late in _pairs(self._heads)]

    def seconds(self, now: float) -> float | None:
        """The age at ``now``; None if nobody knows: before the first look, or since before it."""
        if self._looked is None:
            return None
        if not self._behind:
            return 0.0
        since = self._heads[0][0]
        return None if since == -math.inf else max(0.0, now - since)


def _position(head: _Head) -> Position:
    return head[1]


def _pairs(heads: list[_Head]) -> Iterator[tuple[_Head, _Head]]:
    """Neighbours; the last one is its own if it has none."""
    for at in range(0, len(heads), 2):
        yield heads[at], heads[min(at + 1, len(heads) - 1)]
