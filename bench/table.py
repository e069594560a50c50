"""What a report says of an outcome, as rows and lines of text, for the terminal and the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.results import MIB, Entry, Goal, Outcome, Spread, ratio
from bench.roles import TURNS, Role, held_back, of_ceiling, role_of, shares, to_peer

_HEADINGS = (
    "seconds",
    "inside",
    "to disk",
    "CPU s",
    "peak MiB",
    "(PSS)",
    "stored MiB",
)
_BUSY = 0.5  # share of the time from which a stage is said to hold back what comes before it


@dataclass(frozen=True, slots=True)
class Row:
    """One subject; ``leads``: the others are compared with it."""

    subject: str
    cells: tuple[str, ...]
    leads: bool
    role: Role


@dataclass(frozen=True, slots=True)
class Table:
    """Headings of the columns that have any figure, and a row for each subject."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def table_of(outcome: Outcome) -> Table:
    """Columns without a single figure are left out."""
    found = [_cells(outcome, entry) for entry in outcome.entries]
    headings = (
        *_HEADINGS,
        f"speed, of {outcome.peer}" if outcome.peer else "time ×",
        "of ceiling",
        "held back by",
        *(heading for _, heading in outcome.columns),
    )
    shown = [at for at in range(len(headings)) if not found or any(cells[at] for cells in found)]
    rows = tuple(
        Row(
            entry.subject,
            tuple(cells[at] for at in shown),
            entry.subject == outcome.reference,
            role_of(outcome, entry.subject),
        )
        for entry, cells in zip(outcome.entries, found, strict=True)
    )
    return Table(tuple(headings[at] for at in shown), rows)


def narrow(table: Table, width: int) -> list[Table]:
    """The same in tables of at most ``width`` columns of text each, the subjects in all of them."""
    room = width - max((len(row.subject) for row in table.rows), default=0) - 4
    parts: list[list[int]] = [[]]
    used = 0
    for at, heading in enumerate(table.headings):
        wide = 3 + max(len(heading), *(len(row.cells[at]) for row in table.rows), 0)
        if parts[-1] and used + wide > room:
            parts.append([])
            used = 0
        parts[-1].append(at)
        used += wide
    return [
        Table(
            tuple(table.headings[at] for at in part),
            tuple(replace(row, cells=tuple(row.cells[at] for at in part)) for row in table.rows),
        )
        for part in parts
    ]


def goal_line(goal: Goal) -> str:
    """The figure beside what it should be."""
    unit = f" {goal.unit}" if goal.unit else ""
    sign = "≥" if goal.at_least else "≤"
    measured = "–" if goal.measured is None else f"{goal.measured:.2f}{unit}"
    return f"{goal.text}: {measured}, goal {sign} {goal.target:g}{unit}"


def limits(outcome: Outcome) -> tuple[str, ...]:
    """A line for each subject whose stages were watched, and one that names the ceiling."""
    found = [f"ceiling: {outcome.ceiling.removeprefix('ceiling: ')}"] if outcome.ceiling else []
    stages = (
        f"{entry.subject}: {_stages(entry, *back)}"
        for entry in outcome.entries
        if (back := held_back(entry))
    )
    return (*found, *stages)


def _stages(entry: Entry, stage: str, busy: float) -> str:
    others = ", ".join(
        f"{name} {percent(kinds['busy'])}"
        for name, kinds in shares(entry).items()
        if name != stage and "busy" in kinds
    )
    if busy < _BUSY:
        told = f"no stage holds it back: the busiest is {stage} ({percent(busy)} busy)"
    else:
        told = f"held back by: {stage} ({percent(busy)} busy)"
    return f"{told}; others: {others}" if others else told


def _cells(outcome: Outcome, entry: Entry) -> tuple[str, ...]:
    """One for each heading, empty where there is no figure."""
    back = held_back(entry)
    timed = role_of(outcome, entry.subject) is not Role.MEMORY
    shown = any(name == TURNS for name, _ in outcome.columns)  # the scenario has it by turns
    share = of_ceiling(outcome, entry)
    return (
        spread(entry.spread("seconds")) if timed else "",
        number(entry.median("inner")),
        number(entry.median("durable")),
        number(entry.median("cpu")),
        _mib(entry.spread("peak"), greatest=True),
        _mib(entry.spread("shared_out"), greatest=True),
        _mib(entry.spread("stored")),
        "" if shown else number(_relative(outcome, entry)),
        "" if share is None else percent(share),
        f"{back[0]} {percent(back[1])}" if back and back[1] >= _BUSY else "",
        *(compact(entry.median(name)) for name, _ in outcome.columns),
    )


def _relative(outcome: Outcome, entry: Entry) -> float | None:
    """How many times as fast as the peer, or, without one, as long as the reference."""
    if outcome.peer:
        return to_peer(outcome, entry)
    reference = outcome.entry(outcome.reference)
    return ratio(entry.median("seconds"), reference.median("seconds") if reference else None)


def spread(found: Spread | None) -> str:
    """The median, and in brackets the least and the greatest."""
    if found is None:
        return ""
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def number(value: float | None, digits: int = 2) -> str:
    """More digits than there is noise help nobody."""
    if value is None:
        return ""
    return f"{value:.{digits if abs(value) < 100 else 0}f}"


def compact(value: float | None) -> str:
    """Three or four digits that count; large ones in groups of three."""
    if value is None:
        return ""
    size = abs(value)
    if size >= 10 and value == int(value):
        return f"{value:,.0f}"  # a count
    return f"{value:,.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


def percent(share: float) -> str:
    """A share in whole percents."""
    return f"{share * 100:.0f}%"


def _mib(found: Spread | None, *, greatest: bool = False) -> str:
    if found is None:
        return ""
    value = (found.high if greatest else found.median) / MIB
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"
