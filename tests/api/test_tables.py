"""What tables look like in a pipe and on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.cli.tables import Grid, moment, span

GRID = Grid(("MACHINE", "JOB", "HEALTH"), [("web1", "#7", "normal"), ("a-longer", "#123", "x [b]")])


def test_plain() -> None:
    assert GRID.plain().splitlines() == [
        "MACHINE    JOB  HEALTH",
        "web1        #7  normal",
        "a-longer  #123  x [b]",
    ]
    assert Grid(("", ""), [("a", "b")]).plain() == "a  b"
    assert Grid(("A",), []).plain() == "A"
    assert Grid(("",), []).plain() == ""


def test_rich() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(GRID.rich())
    assert "x [b]" in out.getvalue()  # no markup
    narrow = io.StringIO()
    Console(file=narrow, width=20).print(GRID.rich())
    assert all(len(line) <= 20 for line in narrow.getvalue().splitlines())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0, "0.0 s"), (-1.0, "0.0 s"), (1.25, "1.2 s"), (59.9, "59 s"),
        (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_spans(seconds: float | None, shown: str) -> None:
    assert span(seconds) == shown


def test_moments() -> None:
    assert moment(None) == "-"
    assert moment(1_700_000_000_000_000) == "2023-11-14 22:13:20Z"


def test_a_narrow_terminal_breaks_no_word() -> None:
    long = "a-machine-with-a-name-that-is-longer-than-the-terminal-is-wide"
    heads = ("MACHINE", "STATE", "HEALTH", "POINT'S TIME", "NOW")
    rows = [
        ("web1", "failover committed", "warning", "2026-11-26 17:08:40Z", "-"),
        (long,) + 4 * ("x",),
    ]
    grid = Grid(heads, rows)
    assert grid.width > 40
    lines = grid.records(40).plain.split("\n")
    assert lines == [
        "MACHINE web1",
        "  STATE failover committed",
        "  HEALTH warning",
        "  POINT'S TIME 2026-11-26 17:08:40Z",
        f"MACHINE {long}",
        "  STATE x  HEALTH x  POINT'S TIME x",
        "  NOW x",
    ]
