"""From what the processes say to reasons and changes; and the host's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.policy import Policy, Rpo
from pipeline.control.model import Health, Ladder, Problem
from pipeline.health.host import HostSampler
from pipeline.health.watch import MachineWatch, Seen, thresholds_of

LIMITS = thresholds_of(Policy())


def _live(**more: Any) -> dict[str, Any]:
    found = {
        "state": "replicating",
        "reason": "",
        "head": [1, 1000],
        "committed": [1, 1000],
        "journal_bytes": 0,
        "journal_limit": 1000,
        "scrub": {"uncorrected": 0, "doubted": 0},
    }
    return found | more


def _codes(watch: MachineWatch) -> list[str]:
    return [reason.code for reason in watch.calm.reasons]


def test_a_vault_that_falls_behind() -> None:
    watch, changes = MachineWatch(), []
    for now in range(0, 1200, 10):
        live = _live(head=[1, 1000 + now], committed=[1, 1000])
        change = watch.check(Seen(now, live, float(now), consistent_age=now), LIMITS)
        if change is not None:
            changes.append((now, change.after))
    assert [after for _, after in changes] == [Health.WARNING, Health.CRITICAL]
    assert [now for now, _ in changes] == [80, 920]  # two checks beyond 60 and 900 seconds
    assert _codes(watch) == ["rpo"]
    for now in (1200, 1210, 1220):
        live = _live(head=[1, 9000], committed=[1, 9000])
        change = watch.check(Seen(now, live, 0.0, consistent_age=1), LIMITS) or change
    assert change is not None
    assert (change.after, _codes(watch)) == (Health.NORMAL, [])


def test_the_policys_rpo_is_used() -> None:
    limits = thresholds_of(Policy(rpo=Rpo(warning="5s", critical="10s")))  # type: ignore[arg-type]
    assert (limits.rpo_warning, limits.rpo_critical) == (5, 10)


@pytest.mark.parametrize(
    ("live", "code"),
    [
        (_live(state="tracking", reason="the journal is full"), "tracking"),
        (_live(state="scanning", reason="a crash"), "gap"),
        (_live(state="waiting to scan"), "gap"),
        (_live(journal_bytes=900), "journal-space"),
        (_live(scrub={"uncorrected": 2, "doubted": 2}), "scrub-mismatch"),
        (_live(scrub={"uncorrected": 0, "doubted": 2}), "scrub-doubt"),
    ],
)
def test_what_intake_says(live: dict[str, Any], code: str) -> None:
    watch = MachineWatch()
    for now in (0, 1):
        watch.check(Seen(now, live, consistent_age=1), LIMITS)
    assert code in _codes(watch)


def test_intake_that_does_not_answer() -> None:
    watch = MachineWatch()
    for now in (0, 200):
        watch.check(Seen(now, None, consistent_age=1, heard={"intake": 150.0}), LIMITS)
    assert _codes(watch) == ["heartbeat"]
    assert watch.drain_seconds is None


def test_the_ladder() -> None:
    problem = Problem("StoreUnreachable", "no route", "look", True, 8)
    watch = MachineWatch()
    for now in (0, 1):
        ladder = Ladder(2, problem, 5)
        watch.check(Seen(now, _live(), consistent_age=1, ladder=ladder), LIMITS)
    (reason,) = watch.calm.reasons
    assert (reason.code, reason.hint) == ("delivery-retry", "look")


def test_the_host(tmp_path: Path) -> None:
    files = {
        "stat": "cpu 10 0 10 80 0 0 0 0 0 0\n",
        "meminfo": "MemTotal: 100 kB\nMemAvailable: 5 kB",
    }
    sampler = HostSampler(str(tmp_path), files.__getitem__)
    first = sampler.sample()
    assert first.cpu_share is None
    assert first.memory_share == pytest.approx(0.95)
    assert first.state_total
    files["stat"] = "cpu 100 0 10 80 10 0 0 0 0 0\n"
    assert sampler.sample().cpu_share == pytest.approx(0.9)
    files["stat"] = "rubbish"
    files["meminfo"] = ""
    last = HostSampler("/nowhere/at/all", files.__getitem__).sample()
    assert (last.cpu_share, last.memory_share, last.state_free) == (None, None, None)


def test_this_host(tmp_path: Path) -> None:
    found = HostSampler(str(tmp_path)).sample()
    assert found.memory_share is not None
    assert 0 < found.memory_share <= 1
