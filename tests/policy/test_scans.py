"""When scans may run."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Policy
from pipeline.policy.resolved import Resolved
from pipeline.policy.scans import OVERRIDE_SECONDS, ScanKind, Verdict, may_scan
from pipeline.policy.window import Window

NIGHT = Window(1110, 360, UTC)
NOON = int(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp() * 1e6)
EVENING = NOON + int(6.5 * 3600e6)


def _full(now_us: int, age: float | None) -> Verdict:
    return may_scan(ScanKind.FULL, NIGHT, now_us, inconsistent_seconds=age)


@pytest.mark.parametrize("kind", [ScanKind.HOT, ScanKind.TOUCHED, ScanKind.ORDERED])
def test_what_is_little_or_ordered_goes_at_once(kind: ScanKind) -> None:
    verdict = may_scan(kind, NIGHT, NOON, inconsistent_seconds=0)
    assert verdict.go
    assert not verdict.overrides


def test_full_scans_keep_to_the_window() -> None:
    verdict = _full(NOON, 3 * 3600)
    assert not verdict.go
    assert verdict.at_us == NOON + 3600_000_000 + 1  # the override comes before the window
    near = _full(EVENING - 60_000_000, 10)
    assert (near.go, near.at_us) == (False, EVENING)
    assert _full(EVENING, 10) == Verdict(True, "the resync window is open")


def test_four_hours_without_a_consistent_point_override_it() -> None:
    assert _full(NOON, OVERRIDE_SECONDS).overrides
    assert not _full(NOON, OVERRIDE_SECONDS - 1).go
    assert _full(NOON, None).overrides


def test_initial_replication_has_its_own_time() -> None:
    def initial(begin: int | None) -> Verdict:
        return may_scan(ScanKind.INITIAL, NIGHT, NOON, inconsistent_seconds=None, begin_us=begin)

    assert initial(None).go
    assert initial(NOON).go
    assert initial(NOON + 5) == Verdict(False, "initial replication waits for its time", NOON + 5)


@given(st.integers(0, 2**52), st.floats(0, 1e6), st.integers(0, 1439), st.integers(0, 1440))
def test_waiting_ends(now_us: int, age: float, start: int, stop: int) -> None:
    """Looking again when told to ends in a scan, within 4 hours of waiting."""
    window = Window(start, stop if stop != start else 1440, UTC)
    waited = 0
    for _ in range(3):
        verdict = may_scan(
            ScanKind.FULL, window, now_us + waited, inconsistent_seconds=age + waited / 1e6
        )
        if verdict.go:
            break
        assert verdict.at_us > now_us + waited
        waited = verdict.at_us - now_us
    else:
        pytest.fail("waits for ever")
    assert waited <= OVERRIDE_SECONDS * 1e6 + 2


def test_a_policy_is_resolved() -> None:
    policy = Policy(
        timezone="Europe/Berlin",
        resync_window="18:30-06:00",
        initial_replication="2026-12-01 22:00",
    )
    found = Resolved.of(policy)
    assert found.window == Window(1110, 360, ZoneInfo("Europe/Berlin"))
    assert found.begin_us == datetime(2026, 12, 1, 21, tzinfo=UTC).timestamp() * 1e6
    assert Resolved.of(Policy()).window.always
    assert Resolved.of(Policy()).begin_us is None
