"""Health that does not flap: a level, up or down, has to be seen in two checks in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.control.model import Health, Reason
from pipeline.health.judge import RANK, worst

CHECKS = 2  # in a row
IMMEDIATE = frozenset({"scrub-mismatch", "delivery-stopped"})  # no measurement that may pass


@dataclass(frozen=True, slots=True)
class Change:
    """Health went from ``before`` to ``after``, because of ``reasons`` (none: it is well)."""

    before: Health
    after: Health
    reasons: tuple[Reason, ...]


@dataclass
class Calm:
    """The health shown of one machine or of the daemon. Feed it every check.

    Each code has a level of its own; it rises, or falls, to the least level that the last two
    checks agree on. So one bad check changes nothing, one good check either, and a reason that
    comes does not shorten the way of another.
    """

    health: Health = Health.NORMAL
    reasons: tuple[Reason, ...] = ()
    _levels: dict[str, int] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _told: dict[str, Reason] = field(default_factory=dict)

    def check(self, found: Sequence[Reason]) -> Change | None:
        """What a check has found; the change of health that follows, or None."""
        now: dict[str, int] = {}
        for reason in found:
            key = reason.code
            if RANK[reason.health] >= now.get(key, 0):
                now[key] = RANK[reason.health]
                self._told[key] = reason
        levels = {}
        for code in now.keys() | self._levels.keys() | self._last.keys():
            shown = self._levels.get(code, 0)
            level = _agreed(shown, now.get(code, 0), self._last.get(code, 0))
            if code in IMMEDIATE and now.get(code, 0) > level:
                level = now[code]
            if level:
                levels[code] = level
        self._levels, self._last = levels, now
        self._told = {code: self._told[code] for code in levels.keys() | now.keys()}
        before, self.reasons = self.health, self._reasons()
        self.health = worst(self.reasons)
        if self.health is before:
            return None
        return Change(before, self.health, self.reasons)

    def _reasons(self) -> tuple[Reason, ...]:
        names = {rank: health for health, rank in RANK.items()}
        shown = [
            Reason(code, names[level], told.message, told.hint)
            for code, level in self._levels.items()
            for told in (self._told[code],)
        ]
        return tuple(sorted(shown, key=lambda one: (-RANK[one.health], one.code)))


def _agreed(shown: int, now: int, last: int) -> int:
    """Up to what both checks reach; down to what neither exceeds."""
    low, high = min(now, last), max(now, last)
    return min(max(shown, low), high)
