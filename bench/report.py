"""Outcomes for people, as tables, and for machines, as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import MIB, Entry, Goal, Outcome, Spread, ratio

_HEADINGS = (
    "seconds",
    "inside",
    "to disk",
    "CPU s",
    "peak MiB",
    "(PSS)",
    "stored MiB",
    "time ×",
)
_COLOURS = {"reached": "green", "short": "yellow", "not measured": "dim"}


def show(console: Console, outcome: Outcome) -> None:
    """Print one outcome: table, goals, notes, and loudly what was wrong."""
    console.print()
    console.print(_table(outcome))
    for goal in outcome.goals:
        colour = _COLOURS[goal.verdict]
        text = Text(f"  {goal.verdict:>12}  ", style=colour).append(_goal(goal), style="default")
        console.print(text)
    for note in outcome.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    for line in outcome.failed:
        console.print(f"  did not run: {line}", style="yellow", markup=False, highlight=False)
    for line in outcome.wrong:
        console.print(f"  WRONG DATA: {line}", style="bold red", markup=False, highlight=False)


def as_fields(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, samples included; seconds and bytes."""
    return {
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        },
        "scenarios": [_outcome_fields(outcome) for outcome in outcomes],
    }


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    fields = asdict(outcome)
    fields["goals"] = [{**asdict(goal), "verdict": goal.verdict} for goal in outcome.goals]
    for entry, target in zip(outcome.entries, fields["entries"], strict=True):
        target["median"] = {
            name: entry.median(name) for name in ("seconds", "durable", "inner", "cpu", "stored")
        }
    return fields


def _table(outcome: Outcome) -> Table:
    table = Table(title=outcome.title, title_justify="left", pad_edge=False)
    table.add_column("subject")
    reference = outcome.entry(outcome.reference)
    rows = [_cells(outcome, entry, reference) for entry in outcome.entries]
    headings = (*_HEADINGS, *(heading for _, heading in outcome.columns))
    shown = [at for at in range(len(headings)) if not rows or any(row[at] for row in rows)]
    for at in shown:
        table.add_column(headings[at], justify="right")
    for entry, row in zip(outcome.entries, rows, strict=True):
        style = "bold" if _is(entry, outcome.reference) else None
        table.add_row(Text(entry.subject), *(row[at] for at in shown), style=style)
    return table


def _cells(outcome: Outcome, entry: Entry, reference: Entry | None) -> list[str]:
    """One for each heading, empty where there is no figure."""
    relative = ratio(entry.median("seconds"), reference.median("seconds") if reference else None)
    return [
        _spread(entry.spread("seconds")),
        _number(entry.median("inner")),
        _number(entry.median("durable")),
        _number(entry.median("cpu")),
        _mib(entry.spread("peak"), greatest=True),
        _mib(entry.spread("shared_out"), greatest=True),
        _mib(entry.spread("stored")),
        _number(relative),
        *(_number(entry.median(name), 3) for name, _ in outcome.columns),
    ]


def _is(entry: Entry, name: str) -> bool:
    return entry.subject == name


def _spread(found: Spread | None) -> str:
    if found is None:
        return ""
    if found.low == found.high:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.low)}–{_number(found.high)})"


def _mib(found: Spread | None, *, greatest: bool = False) -> str:
    if found is None:
        return ""
    value = (found.high if greatest else found.median) / MIB
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return ""
    return (
        f"{value:.{digits if value < 100 else 0}f}"  # more digits than there is noise help nobody
    )


def _goal(goal: Goal) -> str:
    unit = f" {goal.unit}" if goal.unit else ""
    sign = "≥" if goal.at_least else "≤"
    measured = "–" if goal.measured is None else f"{goal.measured:.2f}{unit}"
    return f"{goal.text}: {measured}, goal {sign} {goal.target:g}{unit}"
