"""A verdict for people, and for machines."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

import click

from bench.tune.edit import difference
from bench.tune.plan import Step, Verdict
from bench.tune.runner import Budget
from bench.tune.space import Setting, option_named


def as_fields(start: Setting, verdict: Verdict, runs: int, written: Path | None) -> dict[str, Any]:
    """Everything."""
    changes = difference(start, verdict.setting)
    return {
        "changed": {name: {"before": a, "after": b} for name, (a, b) in changes.items()},
        "gain": verdict.gain,
        "low": verdict.low,
        "high": verdict.high,
        "sure": verdict.sure,
        "runs": runs,
        "pairs": verdict.pairs,
        "why": verdict.why,
        "late": verdict.late,
        "ratios": list(verdict.ratios),
        "steps": [
            {
                "option": one.option,
                "before": one.before,
                "after": one.after,
                "ratios": list(one.ratios),
                "taken": one.taken,
                "why": one.why,
            }
            for one in verdict.steps
        ],
        "written": None if written is None else str(written),
    }


def show(start: Setting, verdict: Verdict, runs: int, written: Path | None, budget: Budget) -> None:
    """What was tried, what came of it, how sure that is."""
    for one in verdict.steps:
        click.echo(_step(one))
    click.echo()
    if written is None:
        click.echo(f"nothing is changed: {verdict.why} ({runs} runs, each verified)")
        if verdict.ratios:
            click.echo(f"it looked {_gain(verdict)}; that is too little to go by")
    else:
        for name, (a, b) in difference(start, verdict.setting).items():
            option = option_named(name)
            click.echo(f"{name}: {option.shown(a)} → {option.shown(b)}")
        click.echo(
            f"{_gain(verdict)}; {len(verdict.ratios)} final pairs, {runs} runs in all, "
            "each verified"
        )
    if verdict.late and budget.seconds is not None:
        click.echo(_late(budget))
    if written is not None:
        click.echo(f"written: {written}")


def _step(one: Step) -> str:
    option = option_named(one.option)
    gained = f"{median(one.ratios):.3f}" if one.ratios else "-"
    before, after = option.shown(one.before), option.shown(one.after)
    said = "taken" if one.taken else one.why
    return f"{one.option:<18}{before:>8} → {after:<8} {gained:>7}  {said}"


def _gain(verdict: Verdict) -> str:
    return (
        f"{verdict.gain:.2f} times as fast (9 times of 10 between {verdict.low:.2f} and "
        f"{verdict.high:.2f}), {verdict.sure:.1%} sure that it is not noise"
    )


def _late(budget: Budget) -> str:
    each, count = budget.mean, budget.final + budget.row
    return (
        f"not all was tried: the {budget.seconds:g} s were over. A pair of runs took {each:.0f} s "
        f"here, a step and the final comparison take {count} pairs, "
        f"{math.ceil(each * count)} s: give --seconds more, or a smaller --size"
    )
