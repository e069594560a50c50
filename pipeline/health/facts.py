"""What health is judged by: plain snapshots. None means that it is not known or does not apply.

Durations are seconds, sizes bytes, shares 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When to warn and when it is critical. RPO comes from the policy; the others are those of the
    reference: cache free, processor and memory in use, time to drain."""

    rpo_warning: float = 60.0
    rpo_critical: float = 15 * 60.0
    free_warning: float = 0.30
    free_critical: float = 0.25
    load_warning: float = 0.80
    load_critical: float = 0.95
    drain_warning: float = 30 * 60.0
    drain_critical: float = 45 * 60.0
    heartbeat_warning: float = 30.0
    heartbeat_critical: float = 120.0
    stale_seconds: float = 3600.0  # since the last consistent point, whatever the RPO


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One machine. ``rpo_seconds`` as R19: 0 if committed equals head, else the age of the oldest
    write that is not committed. ``consistent_age``: of the newest consistent point; None if there
    is none. ``heartbeat_ages``: since each part (by name) was heard of.

    ``replicating``: it should be; not while it is suspended, failed over or not protected yet.
    ``initial``: it has not been replicated completely yet. ``gap``: why the newest state is not
    consistent; ``tracking``: why writes are only tracked; "" for neither. ``attempt``, ``problem``,
    ``hint``, ``recoverable``: where delivery stands on its ladder.
    ``scrub_mismatches``: blocks that the rolling scrub has found to differ and that no scan has
    corrected yet; ``scrub_doubted``: all since its last pass that found nothing.
    """

    replicating: bool = True
    initial: bool = False
    rpo_seconds: float | None = None
    consistent_age: float | None = None
    journal_used: int | None = None
    journal_limit: int | None = None
    drain_seconds: float | None = None
    gap: str = ""
    tracking: str = ""
    attempt: int = 0
    problem: str = ""
    hint: str = ""
    recoverable: bool = True
    key_drilled: bool = True
    points_verified: bool = True
    scrub_mismatches: int = 0
    scrub_doubted: int = 0
    heartbeat_ages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The daemon and its host."""

    state_free: int | None = None
    state_total: int | None = None
    cpu_share: float | None = None
    memory_share: float | None = None
    heartbeat_ages: dict[str, float] = field(default_factory=dict)
