"""How a daemon's counters become shares of the time."""

from __future__ import annotations

import pytest

from bench.told import INTAKE, _Look, shares_between


def look(at: float, intake: float = 0.0, **spent: tuple[float, float, float]) -> _Look:
    """At a moment; of each stage worker-seconds busy, waiting for input, for the next."""
    kinds = ("busy", "wait_in", "wait_out")
    return _Look(
        {stage: dict(zip(kinds, found, strict=True)) for stage, found in spent.items()},
        {stage: 2 if stage == "compress" else 1 for stage in spent},
        intake,
        at,
    )


def test_shares_are_of_what_was_counted_between_two_looks() -> None:
    before = look(100.0, 5.0, cache=(10.0, 30.0, 0.0), compress=(4.0, 0.0, 0.0))
    after = look(110.0, 9.0, cache=(14.0, 33.0, 1.0), compress=(8.0, 10.0, 0.0))
    found = shares_between(before, after)  # 8 s passed between the commits, 10 between the looks
    assert found[INTAKE] == {"busy": pytest.approx(0.4)}
    assert found["cache"] == pytest.approx({"busy": 0.5, "wait_in": 0.375, "wait_out": 0.125})
    passed = 8.0
    assert found["compress"]["busy"] == pytest.approx(4.0 / (2 * passed))


def test_counters_that_were_begun_anew_count_from_nothing() -> None:
    before = look(0.0, cache=(10.0, 30.0, 0.0))
    found = shares_between(before, look(50.0, cache=(1.0, 3.0, 0.0)))
    assert found["cache"] == pytest.approx({"busy": 0.25, "wait_in": 0.75, "wait_out": 0.0})


def test_without_a_commit_only_intake_is_known() -> None:
    same = look(0.0, cache=(10.0, 30.0, 0.0))
    assert list(shares_between(same, look(5.0, 9.0, cache=(10.0, 30.0, 0.0)))) == [INTAKE]
    assert shares_between(look(0.0), look(5.0, 9.0)) == {INTAKE: {"busy": 1.0}}
