"""Reasons: thresholds of the reference, worst wins, more trouble never looks better."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.model import Health
from pipeline.health.facts import DaemonFacts, MachineFacts, Thresholds
from pipeline.health.judge import RANK, judge_daemon, judge_machine, worst

LIMITS = Thresholds()
WELL = MachineFacts(
    rpo_seconds=0, consistent_age=1, journal_used=0, journal_limit=100, drain_seconds=0
)


def _levels(facts: MachineFacts) -> dict[str, Health]:
    return {reason.code: reason.health for reason in judge_machine(facts, LIMITS)}


def test_a_machine_that_is_well_has_no_reasons() -> None:
    assert judge_machine(WELL, LIMITS) == ()
    assert worst(()) is Health.NORMAL


@pytest.mark.parametrize(
    ("field", "value", "code", "health"),
    [
        ("rpo_seconds", 60, "rpo", None),
        ("rpo_seconds", 60.1, "rpo", Health.WARNING),
        ("rpo_seconds", 900, "rpo", Health.WARNING),
        ("rpo_seconds", 901, "rpo", Health.CRITICAL),
        ("journal_used", 70, "journal-space", None),
        ("journal_used", 71, "journal-space", Health.WARNING),
        ("journal_used", 75, "journal-space", Health.WARNING),
        ("journal_used", 76, "journal-space", Health.CRITICAL),
        ("journal_used", 200, "journal-space", Health.CRITICAL),
        ("drain_seconds", 1801, "drain", Health.WARNING),
        ("drain_seconds", 2701, "drain", Health.CRITICAL),
        ("consistent_age", None, "no-point", Health.CRITICAL),
        ("initial", True, "initial-replication", Health.WARNING),
        ("gap", "a disk is new", "gap", Health.WARNING),
        ("tracking", "the journal is full", "tracking", Health.CRITICAL),
        ("key_drilled", False, "key-not-drilled", Health.WARNING),
        ("points_verified", False, "points-not-verified", Health.WARNING),
        ("scrub_mismatches", 1, "scrub-mismatch", Health.CRITICAL),
        ("scrub_doubted", 1, "scrub-doubt", Health.WARNING),
        ("attempt", 1, "delivery-retry", Health.WARNING),
        ("heartbeat_ages", {"intake": 31}, "heartbeat", Health.WARNING),
        ("heartbeat_ages", {"intake": 121}, "heartbeat", Health.CRITICAL),
    ],
)
def test_thresholds_of_machines(
    field: str, value: object, code: str, health: Health | None
) -> None:
    facts = replace(WELL, **{field: value})  # type: ignore[arg-type]
    assert _levels(facts).get(code) is health


@pytest.mark.parametrize(
    ("facts", "code", "health"),
    [
        (DaemonFacts(state_free=30, state_total=100), "state-disk", None),
        (DaemonFacts(state_free=29, state_total=100), "state-disk", Health.WARNING),
        (DaemonFacts(state_free=24, state_total=100), "state-disk", Health.CRITICAL),
        (DaemonFacts(cpu_share=0.81), "cpu", Health.WARNING),
        (DaemonFacts(cpu_share=0.96), "cpu", Health.CRITICAL),
        (DaemonFacts(memory_share=0.8), "memory", None),
        (DaemonFacts(memory_share=0.96), "memory", Health.CRITICAL),
        (DaemonFacts(heartbeat_ages={"intake": 200}), "heartbeat", Health.CRITICAL),
    ],
)
def test_thresholds_of_the_daemon(facts: DaemonFacts, code: str, health: Health | None) -> None:
    found = {reason.code: reason.health for reason in judge_daemon(facts, LIMITS)}
    assert found.get(code) is health


def test_what_cannot_be_retried_is_critical() -> None:
    facts = replace(WELL, problem="fenced", hint="fail back", recoverable=False, attempt=1)
    (reason,) = judge_machine(facts, LIMITS)
    assert (reason.code, reason.health, reason.hint) == (
        "delivery-stopped",
        Health.CRITICAL,
        "fail back",
    )


def test_a_machine_that_should_not_replicate_is_not_late() -> None:
    facts = replace(WELL, replicating=False, rpo_seconds=9999, consistent_age=None)
    assert judge_machine(facts, LIMITS) == ()


def test_an_old_point_while_nothing_is_written_is_no_trouble() -> None:
    assert judge_machine(replace(WELL, consistent_age=10**6), LIMITS) == ()
    assert "stale-point" in _levels(replace(WELL, consistent_age=10**6, gap="a crash"))


FACTS = st.builds(
    MachineFacts,
    replicating=st.booleans(),
    initial=st.booleans(),
    rpo_seconds=st.none() | st.floats(0, 1e7),
    consistent_age=st.none() | st.floats(0, 1e7),
    journal_used=st.none() | st.integers(0, 2**50),
    journal_limit=st.none() | st.integers(0, 2**50),
    drain_seconds=st.none() | st.floats(0, allow_infinity=True, allow_nan=False),
    gap=st.sampled_from(["", "crash"]),
    tracking=st.sampled_from(["", "full"]),
    attempt=st.integers(0, 9),
    problem=st.sampled_from(["", "vault"]),
    recoverable=st.booleans(),
    key_drilled=st.booleans(),
    points_verified=st.booleans(),
    scrub_mismatches=st.integers(0, 3),
    scrub_doubted=st.integers(0, 3),
    heartbeat_ages=st.dictionaries(st.sampled_from(["intake", "delivery"]), st.floats(0, 1e6)),
)


@given(FACTS)
def test_reasons_are_in_order_and_say_something(facts: MachineFacts) -> None:
    reasons = judge_machine(facts, LIMITS)
    ranks = [RANK[reason.health] for reason in reasons]
    assert ranks == sorted(ranks, reverse=True)
    assert all(reason.health is not Health.NORMAL and reason.message for reason in reasons)
    assert worst(reasons) is (reasons[0].health if reasons else Health.NORMAL)


WORSE = {
    "rpo_seconds": lambda facts: replace(facts, rpo_seconds=(facts.rpo_seconds or 0) * 2 + 1),
    "drain": lambda facts: replace(facts, drain_seconds=(facts.drain_seconds or 0) * 2 + 1),
    "drilled": lambda facts: replace(facts, key_drilled=False),
    "verified": lambda facts: replace(facts, points_verified=False),
    "scrub": lambda facts: replace(facts, scrub_mismatches=facts.scrub_mismatches + 1),
    "tracking": lambda facts: replace(facts, tracking="full"),
    "fatal": lambda facts: replace(facts, problem="x", recoverable=False),
}


@given(FACTS, st.sampled_from(sorted(WORSE)))
def test_more_trouble_never_looks_better(facts: MachineFacts, what: str) -> None:
    before = worst(judge_machine(facts, LIMITS))
    after = worst(judge_machine(WORSE[what](facts), LIMITS))
    assert RANK[after] >= RANK[before]
