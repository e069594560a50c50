from __future__ import annotations

import json

import pytest
from rich.console import Console

from bench.record import outcomes_as_fields
from bench.report import show
from bench.results import Entry, Goal, Outcome, Sample, peak_of, ratio, speedup
from bench.table import compact

QUICK = Entry("quick", (Sample(1.0, inner=0.5, peak=3 << 20), Sample(4.0), Sample(2.0)))
SLOW = Entry("slow", (Sample(8.0, figures={"sent": 5.0}),))


def test_medians_and_spread() -> None:
    spread = QUICK.spread("seconds")
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == (2.0, 1.0, 4.0)
    assert QUICK.median("inner") == 0.5
    assert QUICK.median("stored") is None
    assert SLOW.median("sent") == 5.0
    assert peak_of(QUICK) == 3.0
    assert peak_of(SLOW) is None


def test_speed_is_the_others_time_over_ones_own() -> None:
    assert speedup((QUICK, SLOW), "quick", "slow") == 4.0
    assert speedup((QUICK,), "quick", "slow") is None
    assert ratio(1.0, 0.0) is None


@pytest.mark.parametrize(
    ("measured", "at_least", "verdict"),
    [
        (2.5, True, "reached"),
        (2.49, True, "short"),
        (2.51, False, "short"),
        (2.5, False, "reached"),
        (None, True, "not measured"),
    ],
)
def test_verdicts_follow_what_was_measured(
    measured: float | None, at_least: bool, verdict: str
) -> None:
    assert Goal("speed", measured, 2.5, at_least).verdict == verdict


def test_a_report_shows_everything_and_is_json_too() -> None:
    outcome = Outcome(
        scenario="some",
        title="a title",
        entries=(QUICK, SLOW),
        goals=(Goal("speed", 4.0, 2.5, True), Goal("memory", 400.0, 300.0, False, "MiB")),
        notes=("a note [with brackets]",),
        reference="quick",
        wrong=("the copy of [slow]",),
        failed=("other: [no room]",),
        columns=(("sent", "sent"),),
    )
    console = Console(width=150)
    with console.capture() as capture:
        show(console, outcome)
    text = capture.get()
    for part in (
        "a title",
        "2.00 (1.00–4.00)",
        "reached  speed: 4.00, goal ≥ 2.5",
        "short  memory: 400.00 MiB, goal ≤ 300 MiB",
        "a note [with brackets]",
        "WRONG DATA: the copy of [slow]",
        "did not run: other: [no room]",
        "5.00│",
    ):
        assert part in text
    (scenario,) = json.loads(json.dumps(outcomes_as_fields([outcome])))
    assert [goal["verdict"] for goal in scenario["goals"]] == ["reached", "short"]
    assert scenario["entries"][0]["median"]["seconds"] == 2.0
    assert scenario["entries"][0]["samples"][1]["seconds"] == 4.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (0.12345, "0.123"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (17.0, "17"),
        (123.4, "123"),
        (44216.2, "44,216"),
        (0.0, "0.000"),
    ],
)
def test_figures_have_as_many_digits_as_count(value: float | None, shown: str) -> None:
    assert compact(value) == shown
