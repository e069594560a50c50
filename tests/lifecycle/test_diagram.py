"""The diagram of the table, and its copy in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.control.model import State
from pipeline.lifecycle import diagram

TEXT = f"# Title\n\n{diagram.BEGIN}\nold\n{diagram.END}\n\nmore\n"


def test_all_states_and_what_leads_from_one_to_another() -> None:
    drawn = diagram.diagram().splitlines()
    assert drawn[0] == "stateDiagram-v2"
    for state in State:
        assert f'    state "{state.value}" as {state.name}' in drawn
    assert "    DISABLED --> CHECKING: PROTECT" in drawn
    assert "    PREPARED --> FAILING_OVER: failover begun" in drawn
    assert any(line.startswith("        UNPROTECT leads to disabling") for line in drawn)
    arrows = [line.split(":")[0] for line in drawn if "-->" in line]
    assert len(arrows) == len(set(arrows))  # one arrow between two states


def test_written_checked_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert diagram.main([str(path), "--check"]) == 1
    assert path.read_text() == TEXT
    assert diagram.main([str(path)]) == 0
    written = path.read_text()
    assert written == f"# Title\n\n{diagram.block()}\n\nmore\n"
    assert diagram.main([str(path), "--check"]) == 0
    assert diagram.main([str(path)]) == 0
    assert path.read_text() == written


@pytest.mark.parametrize(
    "text",
    ["", diagram.BEGIN, f"{diagram.END}\n{diagram.BEGIN}\n", TEXT + diagram.BEGIN, TEXT + TEXT],
)
def test_a_file_without_its_marks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    assert diagram.main([str(path)]) == 2
    assert path.read_text() == text


def test_as_a_program() -> None:
    words = [sys.executable, "-m", "pipeline.lifecycle.diagram"]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert said.stdout == diagram.block() + "\n"
