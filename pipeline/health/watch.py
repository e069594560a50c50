"""Health of one machine over time: from what intake and delivery say to facts, reasons, changes.

Pure: whoever asks the processes feeds it, every few seconds, with a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.policy import Policy
from pipeline.control.model import Ladder
from pipeline.health.calm import Calm, Change
from pipeline.health.facts import MachineFacts, Thresholds
from pipeline.health.judge import judge_machine
from pipeline.health.measure import Drain


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a machine at ``now`` (monotonic seconds).

    ``live``: ``IntakeStatus.as_fields``, None if intake does not answer or does not know it;
    ``rpo``: seconds as it is shown, None if nobody knows;
    ``heard``: by part, seconds since it was heard of. ``consistent_age``: of the newest consistent
    point, None for none.
    """

    now: float
    live: Mapping[str, Any] | None
    rpo: float | None = None
    replicating: bool = True
    initial: bool = False
    consistent_age: float | None = None
    ladder: Ladder = field(default_factory=Ladder)
    key_drilled: bool = True
    points_verified: bool = True
    heard: Mapping[str, float] = field(default_factory=dict)


def thresholds_of(policy: Policy) -> Thresholds:
    """Those of the reference, with the policy's RPO."""
    return Thresholds(rpo_warning=policy.rpo.warning, rpo_critical=policy.rpo.critical)


@dataclass
class MachineWatch:
    """``drain_seconds``: as of the last check, None while intake says nothing."""

    calm: Calm = field(default_factory=Calm)
    drain_seconds: float | None = None
    _drain: Drain = field(default_factory=Drain)

    def check(self, seen: Seen, limits: Thresholds) -> Change | None:
        """One check; how health has changed by it, if it has."""
        return self.calm.check(judge_machine(self.facts(seen), limits))

    def facts(self, seen: Seen) -> MachineFacts:
        """What is judged. Also takes the samples: once for each check."""
        live, problem = seen.live, seen.ladder.last
        state = "" if live is None else str(live["state"])
        reason = "" if live is None else str(live["reason"]) or state
        scrub: Mapping[str, Any] = {} if live is None else live.get("scrub") or {}
        self._measure(seen)
        return MachineFacts(
            replicating=seen.replicating,
            initial=seen.initial,
            rpo_seconds=seen.rpo,
            consistent_age=seen.consistent_age,
            journal_used=None if live is None else int(live["journal_bytes"]),
            journal_limit=None if live is None else int(live["journal_limit"]),
            drain_seconds=self.drain_seconds,
            gap=reason if state in ("scanning", "waiting to scan") else "",
            tracking=reason if state == "tracking" else "",
            attempt=seen.ladder.attempt,
            problem="" if problem is None else problem.message,
            hint="" if problem is None else problem.hint,
            recoverable=problem is None or problem.recoverable,
            key_drilled=seen.key_drilled,
            points_verified=seen.points_verified,
            scrub_mismatches=int(scrub.get("uncorrected", 0)),
            scrub_doubted=int(scrub.get("doubted", 0)),
            heartbeat_ages=dict(seen.heard),
        )

    def _measure(self, seen: Seen) -> None:
        if seen.live is None or not seen.replicating:  # nothing is known, or to be shipped, now
            self._drain, self.drain_seconds = Drain(), None
            return
        (run, head), (committed_run, committed) = seen.live["head"], seen.live["committed"]
        same = int(run) == int(committed_run)
        waiting = int(head) - int(committed) if same else int(seen.live["journal_bytes"])
        self.drain_seconds = self._drain.sample(seen.now, int(committed), max(0, waiting))
