"""What intake and delivery last said of one machine, and whether that is news."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.supervisor.arranging import arranged
from pipeline.supervisor.facts import Look
from pipeline.supervisor.rpo import Rpo
from stages.stream import Position

_NEVER = Look(float("-inf"), None)


class Reports:
    """``look``: intake's last word; ``said``: delivery's."""

    def __init__(self) -> None:
        self.look = _NEVER
        self.said: Mapping[str, Any] = {}
        self.rpo = Rpo()
        self._unheard: Mapping[str, Any] | None = None
        self._settled = float("-inf")  # looks that began before this are too old
        self._shown: object = None  # of the look that was reacted to last
        self._reacted = float("-inf")  # when that look was
        self._scan_from: tuple[float, int] | None = None  # when it was seen first, and how far

    def looked(self, look: Look) -> bool:
        """What intake said. True if it is news: of hundreds of machines that are looked at each
        second, most have nothing to react to."""
        self.look = look
        if look.row is not None:
            head, committed = Position(*look.row["head"]), Position(*look.row["committed"])
            self.rpo.look(look.at, head, committed)
        if look.capture != "scanning":
            self._scan_from = None
        elif self._scan_from is None and look.row is not None:
            self._scan_from = look.at, int(look.row["scan_done"])
        before, self._shown = self._shown, look.row and (look.capture, *arranged(look.row))
        return self._shown != before or self._settled >= self._reacted

    def heard(self, said: Mapping[str, Any]) -> None:
        """What delivery said. Errors are not lost behind what is said next."""
        self.said = said
        if (
            self._unheard is None
            or self._unheard.get("state") not in ("failed", "waiting")
            or said.get("state") != "paused"
        ):
            self._unheard = said

    def react(self) -> Mapping[str, Any] | None:
        """The last look is being reacted to; what delivery said that nobody has heard yet."""
        self._reacted = self.look.at
        said, self._unheard = self._unheard, None
        return said

    def unheard(self, said: Mapping[str, Any]) -> None:
        """What ``react`` gave is to be given again."""
        self._unheard = said

    def settle(self, now: float) -> None:
        """Something was done: what was seen before says nothing any more."""
        self._settled = now

    @property
    def current(self) -> Look:
        """The last look, unless it is older than what was done last."""
        return self.look if self.look.at > self._settled else _NEVER

    def eta(self) -> float | None:
        """Seconds that the scan under way still takes, at its speed until now."""
        row = self.look.row
        if self._scan_from is None or row is None:
            return None
        since, before = self._scan_from
        done = int(row["scan_done"]) - before
        left = int(row["scan_total"]) - int(row["scan_done"])
        return left * (self.look.at - since) / done if done > 0 else None
