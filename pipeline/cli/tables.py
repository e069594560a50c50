"""Tables and times as the daemon's commands print them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.cli.console import tell

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_COLOUR = {
    "normal": "green",
    "warning": "yellow",
    "critical": "bold red",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "in progress": "cyan",
}
_RIGHT = (
    "RPO", "POINT", "JOURNAL", "SHIPPED", "JOB", "%",
    "PUTS", "GETS", "LISTS", "DELETES", "ERRORS", "SENT", "PUT P99",
)  # fmt: skip
_GAP = 3  # characters beside a cell
_BETWEEN = "  "
_MANY = 100  # rows: more of them are printed plainly, which takes a tenth of the time


@dataclass(frozen=True, slots=True)
class Grid:
    """A table without a frame. Cells are plain text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def plain(self) -> str:
        """Lines of text, whatever their width."""
        heads = [self.heads] if any(self.heads) else []
        lines = [*heads, *self.rows]
        widths = (
            [max(len(row[at]) for row in lines) for at in range(len(self.heads))] if lines else []
        )
        return "\n".join(
            "  ".join(
                cell.rjust(width) if head in _RIGHT else cell.ljust(width)
                for cell, width, head in zip(row, widths, self.heads, strict=True)
            ).rstrip()
            for row in lines
        )

    @property
    def width(self) -> int:
        """Characters that a terminal takes for it if nothing is folded."""
        lines = [self.heads, *self.rows]
        columns = range(len(self.heads))
        return sum(max(len(row[at]) for row in lines) + _GAP for at in columns)

    def records(self, width: int) -> Text:
        """For a terminal that is too narrow for columns: a paragraph for each row, with what it has
        to say. A word is broken only where it is longer than a line."""
        from rich.text import Text

        made = Text()
        for row in self.rows:
            made.append(f"{self.heads[0]} " if self.heads[0] else "", "dim")
            made.append(f"{row[0]}\n", "bold")
            column = 0
            for head, cell in zip(self.heads[1:], row[1:], strict=True):
                if cell in ("", "-"):
                    continue
                length = len(head) + 1 + len(cell)
                if column and column + len(_BETWEEN) + length > width:
                    made.append("\n")
                    column = 0
                made.append(_BETWEEN)
                made.append(f"{head} ", "dim")
                made.append(cell, _COLOUR.get(cell, ""))
                column += len(_BETWEEN) + length
            made.append("\n" if column else "")
        made.rstrip()
        return made

    def rich(self) -> Table:
        """For a terminal: coloured, and folded to its width."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        shown = any(self.heads)
        found = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_header=shown)
        for head in self.heads:
            right = head in _RIGHT
            found.add_column(head, justify="right" if right else "left", overflow="fold")
        for row in self.rows:
            found.add_row(*(Text(cell, _COLOUR.get(cell, "")) for cell in row))
        return found


def show(*parts: Grid | str) -> None:
    """Print tables and lines."""
    many = any(isinstance(part, Grid) and len(part.rows) > _MANY for part in parts)
    if many or not sys.stdout.isatty():
        for part in parts:
            tell(part if isinstance(part, str) else part.plain())
        return
    from rich.console import Console

    console = Console()
    for part in parts:
        shown: object = part
        if isinstance(part, Grid):
            fits = part.width <= console.width or not any(part.heads)
            shown = part.rich() if fits else part.records(console.width)
        console.print(shown, markup=False, highlight=False)


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
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if left >= size:
            return f"{left // size} {unit} {left % size // part} {small}"
    return f"{left // 60} min {left % 60} s"


def percent(value: float | None) -> str:
    """Of a job or task."""
    return "-" if value is None else f"{value:.0f}%"
