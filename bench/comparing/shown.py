"""A comparison for people, as a table, and for machines, as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.comparing.ranks import least_p, turns_needed
from bench.comparing.verdicts import Comparison, Line, Verdict
from bench.results import MIB
from bench.table import number

_COLOURS = {
    Verdict.FASTER: "green",
    Verdict.LESS: "green",
    Verdict.SLOWER: "bold red",
    Verdict.MORE: "yellow",
}
LOOSEST = 0.5  # the greatest alpha that is taken
_BYTES = ("peak", "stored")


def show(console: Console, found: Comparison) -> None:
    """A table for each scenario, then what the verdicts rest on."""
    for scenario in dict.fromkeys(line.scenario for line in found.lines):
        console.print()
        console.print(_table(scenario, found))
    for label, names in (("old", found.only_old), ("new", found.only_new)):
        if names:
            text = f"only in the {label} file: {', '.join(names)}"
            console.print(text, markup=False, highlight=False)
    console.print(_rests_on(found), markup=False, highlight=False)


def as_fields(found: Comparison) -> dict[str, Any]:
    """Everything; medians in seconds, bytes, or what the figure counts."""
    return {
        **asdict(found),
        "tested": found.tested,
        "slower": len(found.slower),
        "few": [
            {"turns": turns, "least_p": least_p(*turns), "needed": turns_needed(found.alpha)}
            for turns in few(found)
        ],
    }


def _table(scenario: str, found: Comparison) -> Table:
    table = Table(title=scenario, title_justify="left", pad_edge=False)
    table.add_column("subject")
    for heading in ("figure", "old", "new", "change", "turns", "p", "verdict"):
        table.add_column(heading, justify="left" if heading in ("figure", "verdict") else "right")
    for line in found.lines:
        if line.scenario == scenario:
            verdict = Text(line.verdict.value, style=_COLOURS.get(line.verdict, "dim"))
            table.add_row(*map(Text, _cells(line)), verdict)
    return table


def _cells(line: Line) -> tuple[str, ...]:
    beside = f" beside {line.against}" if line.against else ""
    unit = " MiB" if line.figure in _BYTES else ""
    scale = MIB if line.figure in _BYTES else 1
    return (
        line.subject,
        f"{line.figure}{unit}",
        number(line.old / scale),
        number(line.new / scale),
        f"{(line.change - 1) * 100:+.1f}%{beside}",
        f"{line.turns[0]}, {line.turns[1]}",
        f"{line.p:.3f}",
    )


def _rests_on(found: Comparison) -> str:
    """What the verdicts can be trusted with, and what it takes where there can be none."""
    lines = []
    if found.tested:
        chance = found.tested * found.alpha
        lines.append(
            f"{found.tested} figures tested, each at {found.alpha:g} (exact rank-sum test): noise "
            f"alone would give about {chance:.1f} verdicts"
        )
    for one, other in few(found):
        needed, least = turns_needed(found.alpha), least_p(one, other)
        enough = math.ceil(least * 1000) / 1000
        looser = f", or --alpha {enough:g} for weaker verdicts" if enough <= LOOSEST else ""
        lines.append(
            f"{one} old and {other} new turns can reach p = {least:.3g} at best, never "
            f"{found.alpha:g}: nothing can be told from them; {needed} turns of each are needed "
            f"(measure both again with --repeat {needed}{looser})"
        )
    return "\n".join(lines) or "nothing to compare"


def few(found: Comparison) -> list[tuple[int, int]]:
    """Numbers of turns, old and new, with which no figure can have a verdict."""
    return sorted({line.turns for line in found.lines if line.verdict is Verdict.FEW})
