"""The table as a Mermaid diagram, and the README's copy of it.

``python -m pipeline.lifecycle.diagram`` prints it, with a file it writes it between the two marks
there, and with ``--check`` it only looks whether that is what stands there (exit code 1: no).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.control.model import Direction, Operation, State
from pipeline.lifecycle.table import ROWS, Row

BEGIN = "<!-- lifecycle diagram: made by python -m pipeline.lifecycle.diagram -->"
END = "<!-- end of the lifecycle diagram -->"
_ENOUGH = 6  # rows from more states than this are a note, not arrows


def diagram() -> str:
    """Mermaid's ``stateDiagram-v2``: what an operator asks for in capitals, what happens not."""
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state.value}" as {state.name}' for state in State]
    lines.append("    [*] --> DISABLED")
    arrows: dict[tuple[State, State], list[str]] = {}
    everywhere: list[str] = []
    for row in ROWS:
        if row.then is None:
            continue
        if len(row.states) > _ENOUGH:
            everywhere.append(f"{_label(row)} leads to {row.then.value} from {_named(row)}")
            continue
        for state in row.states:
            arrows.setdefault((state, row.then), []).append(_label(row))
    for (state, then), labels in arrows.items():
        lines.append(f"    {state.name} --> {then.name}: {' / '.join(dict.fromkeys(labels))}")
    if everywhere:
        lines.append("    note right of DISABLING")
        lines += [f"        {line}" for line in everywhere]
        lines.append("    end note")
    return "\n".join(lines)


def _named(row: Row) -> str:
    if len(row.states) > len(State) - 3:
        return "every other state"
    return ", ".join(state.value for state in row.states)


def block() -> str:
    """What stands between the marks, with them."""
    return f"{BEGIN}\n```mermaid\n{diagram()}\n```\n{END}"


def inserted(text: str) -> str:
    """``text`` with the diagram between its marks. ``ValueError`` if they are not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ValueError(f"one line {BEGIN!r} and, below it, one line {END!r} are needed")
    before, rest = text.split(BEGIN)
    return before + block() + rest.split(END)[1]


def main(words: Sequence[str]) -> int:
    """The program: 0, 1 for a copy that is not the table's, 2 for a file that has no marks."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.lifecycle.diagram")
    parser.add_argument("file", nargs="?", help="with the two marks, for example README.md")
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(words)
    if given.file is None:
        print(block())  # noqa: T201
        return 0
    path = Path(given.file)
    text = path.read_text()
    try:
        fresh = inserted(text)
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if given.check:
        if fresh != text:
            print(f"{path}: its lifecycle diagram is not the table's", file=sys.stderr)  # noqa: T201
        return int(fresh != text)
    path.write_text(fresh)
    return 0


def _label(row: Row) -> str:
    name = row.event.value
    label = name.upper() if isinstance(row.event, Operation) else name
    return f"{label} ({row.direction.value})" if isinstance(row.direction, Direction) else label


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
