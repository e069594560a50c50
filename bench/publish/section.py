"""The section's text: of each result file the command, when and on what, every figure that has a
goal, what falls short, and the tables. Pure; the same files give the same text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from bench.machine import Machine
from bench.markdown import plain, table
from bench.page import headed
from bench.record import Result
from bench.results import Goal, Outcome
from bench.table import goal_line, limits, number, table_of

_MARKS = {"reached": "reached", "short": "SHORT", "not measured": "not measured"}


def section(results: Sequence[Result]) -> str:
    """Markdown, its headings from level 3 on; every file after the other."""
    parts: list[str] = []
    before: Machine | None = None
    for result in results:
        parts += [f"### {_heading(result)}", _origin(result, before)]
        before = result.machine
        parts += _goals(result)
        parts += [_scenario(one) for one in result.scenarios if one.entries or one.notes]
    return "\n\n".join(parts) + "\n"


def command_of(result: Result) -> str:
    """As it is typed."""
    words = result.command[1:] if result.command[:1] == ("bench",) else result.command
    return shlex.join(("backstay", "bench", *words))


def _heading(result: Result) -> str:
    if len(result.scenarios) == 1:
        return plain(headed(result.scenarios[0].title))
    names = ", ".join(one.scenario for one in result.scenarios)
    return plain(f"Measured: {names}")


def _origin(result: Result, before: Machine | None) -> str:
    loads = " and ".join(f"{found[0]:g}" for found in (result.load_before, result.load_after))
    lines = [
        f"    {command_of(result)}",
        "",
        f"Begun {plain(result.began)}; load {loads} before and after; {_turns(result)}.",
    ]
    if result.machine != before:
        lines += ["", plain(_machine(result.machine))]
    if result.machine.missing:
        lines += ["", f"Not installed, left out: {plain(', '.join(result.machine.missing))}."]
    return "\n".join(lines)


def _turns(result: Result) -> str:
    counts = [
        len(entry.samples)
        for outcome in result.scenarios
        for entry in outcome.entries
        if entry.samples
    ]
    most = max(counts, default=0)
    turns = "1 turn" if most == 1 else f"up to {most} turns"
    return f"{turns} of each, medians"


def _machine(machine: Machine) -> str:
    facts = (
        machine.cpu,
        f"{machine.cores} cores",
        f"{machine.memory / (1 << 30):.1f} GiB",
        f"copies on {machine.file_system}",
        machine.system,
        f"kernel {machine.kernel}",
        f"Python {machine.python}",
    )
    programs = "; ".join(text.strip("* ") for text in machine.programs.values())
    return f"{', '.join(facts)}. {programs}."


def _goals(result: Result) -> Iterator[str]:
    """All goals in one table, and how many are missed."""
    rows = [
        (outcome.title, goal.text, _measured(goal), _wanted(goal), _MARKS[goal.verdict])
        for outcome in result.scenarios
        for goal in outcome.goals
    ]
    if not rows:
        return
    yield table(("scenario", "figure", "measured", "goal", ""), rows)
    held = [(one, goal) for one in result.scenarios for goal in one.goals]
    short = [(one, goal) for one, goal in held if goal.verdict == "short"]
    if not short:
        yield f"None of the {len(held)} falls short."
        return
    lines = [f"- {plain(one.title)}: {plain(goal_line(goal))}" for one, goal in short]
    yield "\n".join((f"Goals and aims not reached, {len(short)} of {len(held)}:", "", *lines))


def _measured(goal: Goal) -> str:
    unit = f" {goal.unit}" if goal.unit else ""
    return "–" if goal.measured is None else f"{number(goal.measured)}{unit}"


def _wanted(goal: Goal) -> str:
    unit = f" {goal.unit}" if goal.unit else ""
    return f"{'≥' if goal.at_least else '≤'} {goal.target:g}{unit}"


def _scenario(outcome: Outcome) -> str:
    """Folded where pages can be: its title stands in the table of goals already."""
    found = table_of(outcome)
    parts = [f"<details><summary>{plain(headed(outcome.title))}: all figures</summary>"]
    if found.rows:
        rows = [(row.subject, *row.cells) for row in found.rows]
        parts.append(table(("subject", *found.headings), rows))
    loud = [f"**WRONG DATA**: {plain(line)}" for line in outcome.wrong]
    loud += [f"did not run: {plain(line)}" for line in outcome.failed]
    lines = [*loud, *map(plain, (*limits(outcome), *outcome.notes))]
    if lines:
        parts.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join((*parts, "</details>"))
