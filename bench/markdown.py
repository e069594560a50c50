"""The report as Markdown, for a README: the same tables and goals, shortfalls first."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from bench.record import Result
from bench.results import Outcome
from bench.table import goal_line, limits, table_of

_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\|*_<>[]`~#"})


def markdown(result: Result) -> str:
    """One section for each scenario, after the machine and the command."""
    parts = [_head(result), *(_section(outcome) for outcome in result.scenarios)]
    return "\n\n".join(parts) + "\n"


def _head(result: Result) -> str:
    machine = result.machine
    facts = (
        machine.cpu,
        f"{machine.cores} cores",
        f"{machine.memory / (1 << 30):.1f} GiB",
        machine.file_system,
        machine.system,
        f"kernel {machine.kernel}",
        f"Python {machine.python}",
    )
    arguments = result.command[1:] if result.command[:1] == ("bench",) else result.command
    loads = " and ".join(f"{found[0]:g}" for found in (result.load_before, result.load_after))
    lines = [
        f"    {shlex.join(('backstay', 'bench', *arguments))}",
        "",
        f"{plain(', '.join(facts))}. Began {plain(result.began)}; load {loads} before and after.",
        plain("; ".join(f"{name}: {text}" for name, text in machine.programs.items())),
    ]
    if machine.missing:
        lines.append(f"Not installed, left out: {plain(', '.join(machine.missing))}.")
    short = [
        f"- {plain(outcome.title)}: {plain(goal_line(goal))}"
        for outcome in result.scenarios
        for goal in outcome.goals
        if goal.verdict == "short"
    ]
    return "\n".join([*lines, "", "Short of the goal:", "", *(short or ["- nothing"])])


def _section(outcome: Outcome) -> str:
    found = table_of(outcome)
    parts = [f"### {plain(outcome.title)}"]
    if found.rows:
        rows = ((row.subject, *row.cells) for row in found.rows)
        parts.append(table(("subject", *found.headings), rows))
    if outcome.goals:
        verdicts = ((goal_line(goal), goal.verdict) for goal in outcome.goals)
        parts.append(table(("goal", "verdict"), verdicts))
    loud = [
        *(f"**WRONG DATA**: {plain(line)}" for line in outcome.wrong),
        *(f"did not run: {plain(line)}" for line in outcome.failed),
    ]
    quiet = (plain(line) for line in (*limits(outcome), *outcome.notes))
    if lines := [f"- {line}" for line in (*loud, *quiet)]:
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Made of any texts; the first column is to the left."""
    marks = "|---" + "|--:" * (len(headings) - 1) + "|"
    return "\n".join([_row(headings), marks, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(plain, cells))} |"


def plain(text: str) -> str:
    """On one line, without anything that Markdown would take for its own."""
    return " ".join(text.split()).translate(_SPECIAL)
