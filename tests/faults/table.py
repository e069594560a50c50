"""The table "fault, what the user sees, state afterwards, exit code, hint".

``test_table`` makes every row happen. ``python -m tests.faults.table`` prints it as Markdown.
"""

from __future__ import annotations

import re
import sys

from tests.faults import (
    rows_damage,
    rows_hook,
    rows_keys,
    rows_lost,
    rows_place,
    rows_point,
    rows_process,
    rows_source,
    rows_state,
    rows_target,
    rows_trust,
    rows_usage,
    rows_writer,
)
from tests.faults.row import Row

THEMES: dict[str, tuple[Row, ...]] = {
    "Keys and recipients": rows_keys.ROWS,
    "What is pinned of a vault": rows_trust.ROWS,
    "Places and space": rows_place.ROWS,
    "Versions and writers": rows_writer.ROWS,
    "Protected disks": rows_source.ROWS,
    "Snapshot hooks": rows_hook.ROWS,
    "State folder": rows_state.ROWS,
    "Configuration and command line": rows_usage.ROWS,
    "Machines, points, times": rows_point.ROWS,
    "Targets of a restore": rows_target.ROWS,
    "Data damaged or missing": rows_damage.ROWS,
    "Commits, records and keys damaged or missing": rows_lost.ROWS,
    "Signals and processes": rows_process.ROWS,
}
ROWS = tuple(row for rows in THEMES.values() for row in rows)
_HEAD = (
    "| Fault | What the user sees | State afterwards | Exit code | Hint |\n|---|---|---|---|---|"
)


def render() -> str:
    """The whole table. Words in capitals stand for ids, paths and numbers, … for anything."""
    parts = []
    for theme, rows in THEMES.items():
        parts.append(f"### {theme}\n\n{_HEAD}\n" + "\n".join(_line(row) for row in rows))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    seen = "\n".join(filter(None, (row.prints, row.sees.strip("\n"))))
    code = str(row.code) if row.code >= 0 else f"signal {-row.code}"
    cells = (row.fault, _code(seen), row.state, code, _code(row.hint))
    return "| " + " | ".join(cells) + " |"


def _code(text: str) -> str:
    """Output as one cell: placeholders in capitals, a line each."""
    named = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), text)
    lines = [line.replace("|", "\\|").strip() for line in named.split("\n")]
    return "<br>".join(f"`{line}`" for line in lines if line)


if __name__ == "__main__":
    sys.stdout.write(render())
