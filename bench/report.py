"""Outcomes on the terminal: table, goals, what holds it back, notes, and loudly what was wrong."""

from __future__ import annotations

from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from bench.results import Outcome
from bench.table import Table, goal_line, limits, narrow, table_of

_COLOURS = {"reached": "green", "short": "yellow", "not measured": "dim"}


def show(console: Console, outcome: Outcome) -> None:
    """Print one outcome."""
    console.print()
    console.print(outcome.title, style="italic", markup=False, highlight=False)
    for part in narrow(table_of(outcome), console.width):
        console.print(_table(part))
    for goal in outcome.goals:
        colour = _COLOURS[goal.verdict]
        text = Text(f"  {goal.verdict:>12}  ", style=colour)
        console.print(text.append(goal_line(goal), style="default"))
    for line in limits(outcome):
        console.print(f"  {line}", markup=False, highlight=False)
    for note in outcome.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    for line in outcome.failed:
        console.print(f"  did not run: {line}", style="yellow", markup=False, highlight=False)
    for line in outcome.wrong:
        console.print(f"  WRONG DATA: {line}", style="bold red", markup=False, highlight=False)


def _table(found: Table) -> rich_table.Table:
    table = rich_table.Table(pad_edge=False)
    table.add_column("subject")
    for heading in found.headings:
        table.add_column(heading, justify="right")
    for row in found.rows:
        style = "bold" if row.leads else None
        table.add_row(Text(row.subject), *map(Text, row.cells), style=style)
    return table
