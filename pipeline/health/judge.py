"""From facts to reasons; the worst of them is the health. Pure.

The codes are stable: people filter and route alerts by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.control.model import Health, Reason
from pipeline.health.facts import DaemonFacts, MachineFacts, Thresholds

RANK = {Health.NORMAL: 0, Health.WARNING: 1, Health.CRITICAL: 2}


def worst(reasons: Sequence[Reason]) -> Health:
    """Normal if there is none."""
    return max((reason.health for reason in reasons), key=RANK.__getitem__, default=Health.NORMAL)


def judge_machine(facts: MachineFacts, limits: Thresholds) -> tuple[Reason, ...]:
    """Why a machine is not well, worst first; nothing if it is."""
    return _sorted(
        [
            *_recoverability(facts, limits),
            *_capture(facts, limits),
            *_delivery(facts, limits),
            *_heartbeats(facts.heartbeat_ages, limits),
            *_proofs(facts),
        ]
    )


def judge_daemon(facts: DaemonFacts, limits: Thresholds) -> tuple[Reason, ...]:
    """Why the daemon is not well, worst first."""
    return _sorted(
        [
            *_free_disk(facts, limits),
            *_load("cpu", "the processors are", facts.cpu_share, limits),
            *_load("memory", "memory is", facts.memory_share, limits),
            *_heartbeats(facts.heartbeat_ages, limits),
        ]
    )


def _recoverability(facts: MachineFacts, limits: Thresholds) -> Iterator[Reason]:
    """How much a disaster would cost now."""
    if not facts.replicating:
        return
    age, rpo = facts.consistent_age, facts.rpo_seconds
    if rpo is not None and (level := _above(rpo, limits.rpo_warning, limits.rpo_critical)):
        yield Reason(
            "rpo",
            level,
            f"the oldest write that is not protected yet is {_age(rpo)} old",
            "see the other reasons; the vault may be slow or out of reach",
        )
    if facts.initial:
        yield Reason("initial-replication", Health.WARNING, "it is not replicated completely yet")
    elif age is None:
        yield Reason("no-point", Health.CRITICAL, "there is no consistent point to recover")
    elif age > max(limits.stale_seconds, limits.rpo_critical) and (facts.gap or facts.tracking):
        yield Reason(
            "stale-point", Health.CRITICAL, f"the newest consistent point is {_age(age)} old"
        )
    yield from _scrubbed(facts)


def _scrubbed(facts: MachineFacts) -> Iterator[Reason]:
    """Damage stays a reason after its correction, until a whole pass has found nothing."""
    if facts.scrub_mismatches:
        yield Reason(
            "scrub-mismatch",
            Health.CRITICAL,
            f"the scrub found {facts.scrub_mismatches} blocks that differ from the vault without "
            "a write; points since an unknown time are wrong there",
            "they are being corrected by a scan; something wrote to the disk past Backstay, or "
            "the disk or memory is damaged: check both, and recover a point with care",
        )
    elif facts.scrub_doubted:
        yield Reason(
            "scrub-doubt",
            Health.WARNING,
            f"the scrub found {facts.scrub_doubted} blocks that had changed without a write; they "
            "are corrected, but earlier points may be wrong there",
            "find out what wrote to the disk past Backstay; this ends with the next pass of the "
            "scrub that finds nothing",
        )


def _capture(facts: MachineFacts, limits: Thresholds) -> Iterator[Reason]:
    if facts.tracking:
        yield Reason(
            "tracking",
            Health.CRITICAL,
            f"writes are only tracked, no points are made: {facts.tracking}",
            "points go on when the journal has room and what was touched is compared",
        )
    elif facts.gap and not facts.initial:
        yield Reason(
            "gap", Health.WARNING, f"it is being compared with the vault again: {facts.gap}"
        )
    used, limit = facts.journal_used, facts.journal_limit
    if used is None or not limit:
        return
    free = max(0.0, 1 - used / limit)
    if level := _below(free, limits.free_warning, limits.free_critical):
        yield Reason(
            "journal-space",
            level,
            f"{free:.0%} of the journal is free",
            "what is not shipped fills it; when it is full writes are only tracked",
        )


def _delivery(facts: MachineFacts, limits: Thresholds) -> Iterator[Reason]:
    if facts.attempt and facts.recoverable:
        yield Reason(
            "delivery-retry",
            Health.WARNING,
            f"shipping failed {facts.attempt} times: {facts.problem}",
            facts.hint,
        )
    elif facts.problem and not facts.recoverable:
        yield Reason(
            "delivery-stopped",
            Health.CRITICAL,
            f"shipping has stopped: {facts.problem}",
            facts.hint,
        )
    drain = facts.drain_seconds
    if drain is not None and (level := _above(drain, limits.drain_warning, limits.drain_critical)):
        yield Reason(
            "drain",
            level,
            f"what waits takes about {_age(drain)} to ship",
            "the vault or the network is slower than the disks are written",
        )


def _heartbeats(ages: dict[str, float], limits: Thresholds) -> Iterator[Reason]:
    for part, age in sorted(ages.items()):
        if level := _above(age, limits.heartbeat_warning, limits.heartbeat_critical):
            yield Reason("heartbeat", level, f"{part} has not been heard of for {_age(age)}")


def _proofs(facts: MachineFacts) -> Iterator[Reason]:
    """Nothing is called healthy whose recovery nobody has tried."""
    if not facts.key_drilled:
        yield Reason(
            "key-not-drilled",
            Health.WARNING,
            "nobody has shown yet that the key opens the vault",
            'run "backstay key drill"',
        )
    if not facts.points_verified and not facts.initial:
        yield Reason(
            "points-not-verified",
            Health.WARNING,
            "none of its points has been verified",
            'run "backstay verify"',
        )


def _free_disk(facts: DaemonFacts, limits: Thresholds) -> Iterator[Reason]:
    if facts.state_free is None or not facts.state_total:
        return
    free = facts.state_free / facts.state_total
    if level := _below(free, limits.free_warning, limits.free_critical):
        yield Reason(
            "state-disk",
            level,
            f"{max(0.0, free):.0%} of the state disk is free",
            "journals are there: give it room before they are full",
        )


def _load(code: str, what: str, share: float | None, limits: Thresholds) -> Iterator[Reason]:
    if share is not None and (level := _above(share, limits.load_warning, limits.load_critical)):
        yield Reason(code, level, f"{what} {share:.0%} in use")


def _above(value: float, warning: float, critical: float) -> Health | None:
    if value > critical:
        return Health.CRITICAL
    return Health.WARNING if value > warning else None


def _below(value: float, warning: float, critical: float) -> Health | None:
    if value < critical:
        return Health.CRITICAL
    return Health.WARNING if value < warning else None


def _sorted(reasons: list[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(reasons, key=lambda one: (-RANK[one.health], one.code, one.message)))


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"
