"""When the policy of a machine lets it be scanned in full (``pipeline.policy.scans``).

Asked for each region of a long scan, so an answer holds for a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.config.model import Config
from pipeline.policy.resolved import Resolved
from pipeline.policy.scans import ScanKind, may_scan
from pipeline.state import StateFolder
from stages.errors import BackstayError
from stages.ports import Machine

HOLDS_SECONDS = 5.0


@dataclass
class Permits:
    """The ``Permit`` of one machine. ``config`` is asked for each time: it may be another one.

    When there was a consistent point is known from the note of the supervisor.
    """

    ports: Machine
    state: StateFolder
    name: str
    config: Callable[[], Config]
    _answers: dict[bool, tuple[float, str]] = field(default_factory=dict)
    _forced: bool = False
    _since: float | None = None  # monotonic, when it began to wait

    def force(self) -> None:
        """A person orders the scan: it goes at once, until the answer would be yes anyway."""
        self._forced = True
        self._answers.clear()

    async def __call__(self, fresh: bool) -> str:
        """See ``Permit``."""
        now = self.ports.clock.monotonic()
        asked, answer = self._answers.get(fresh, (0.0, ""))
        if fresh in self._answers and now - asked < HOLDS_SECONDS:
            return answer
        answer = await self._ask(fresh)
        self._answers[fresh] = now, answer
        return answer

    async def _ask(self, fresh: bool) -> str:
        config = self.config()
        if self.name not in config.machines:
            return ""
        policy = config.policy_of(config.machines[self.name])
        last_us, found = await self.ports.offload.run(
            lambda: (self._last_consistent(), Resolved.of(policy))
        )
        now, now_us = self.ports.clock.monotonic(), self.ports.clock.wall_us()
        self._since = now if self._since is None else self._since
        # The wall clock may have been set back: what was waited here counts in any case.
        age = None if last_us is None else max((now_us - last_us) / 1e6, now - self._since)
        kind = ScanKind.FULL
        if last_us is None or fresh:
            kind = ScanKind.INITIAL
        verdict = may_scan(
            kind,
            found.window,
            now_us,
            inconsistent_seconds=age,
            begin_us=found.begin_us if last_us is None else None,
        )
        if verdict.go:
            self._forced, self._since = False, None
        if verdict.go or self._forced:
            return ""
        at = datetime.fromtimestamp(verdict.at_us / 1e6, UTC)
        return f"{verdict.because} ({at:%Y-%m-%d %H:%M} UTC at the latest)"

    def _last_consistent(self) -> int | None:
        try:
            noted = self.state.noted(f"machines/{self.name}/last-point")
        except BackstayError:
            return None
        stamp = None if noted is None else noted.get("stamp")
        return stamp if type(stamp) is int else None
