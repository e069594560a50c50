"""Tables and times as the daemon's commands print them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_COLOUR = {"normal": "green", "warning": "yellow", "critical": "bold red"}
_STATE = {"succeeded": "green", "failed": "bold red", "cancelled": "yellow", "in progress": "cyan"}
_WIDE = 240  # columns where nobody looks: lines are not broken for a pipe


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without a frame, whose cells are plain text but for the colours below."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for head in heads:
        right = head in ("RPO", "POINT", "JOURNAL", "SHIPPED", "JOB", "#", "%")
        found.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in rows:
        styled = (Text(cell, _COLOUR.get(cell, "") or _STATE.get(cell, "")) for cell in row)
        found.add_row(*styled)
    return found


def show(*parts: Any) -> None:
    """Print tables and texts; what is not a terminal gets no colours and wide lines."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _WIDE, soft_wrap=False)
    for part in parts:
        console.print(part, markup=False, highlight=False)


def moment(stamp: int | None) -> str:
    """A time in UTC, from microseconds."""
    if stamp is None:
        return "-"
    return f"{datetime.fromtimestamp(stamp / 1e6, UTC):%Y-%m-%d %H:%M:%S}Z"


def span(seconds: float | None) -> str:
    """A duration in its two largest units; "-" for None."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    if left < 60:
        return f"{max(0.0, seconds):.1f} s" if left < 10 else f"{left} s"
    for unit, size, small, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if left >= size:
            return f"{left // size} {unit} {left % size // part} {small}"
    return f"{left} s"


def percent(value: float | None) -> str:
    """Of a job or task."""
    return "-" if value is None else f"{value:.0f}%"
