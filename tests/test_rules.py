"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"system.py", "system_workers.py"}
SUPERVISOR = {"supervisor.py", "jobrun.py"}  # of pipeline/supervisor: what breaks is begun anew
SOURCES = sorted(
    path for package in ("stages", "pipeline", "bench") for path in (ROOT / package).rglob("*.py")
)


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if "stages" in path.parts], ids=lambda path: path.name
)
def test_stages_open_files_only_through_the_port(path: Path) -> None:
    if path.name in MACHINE or path.parent.name == "system":
        return
    names = set(_calls(ast.parse(path.read_text())))
    assert not names & {"open", "Path", "print", "input"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_the_supervisor_catches_everything(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.id if isinstance(node.type, ast.Name) else ""
        supervises = path.parent.name == "supervisor" and path.name in SUPERVISOR
        if node.type is None or (caught == "Exception" and not supervises):
            pytest.fail(f"{path.name}:{node.lineno} catches everything")
        if caught in ("BaseException", "BaseExceptionGroup"):
            again = [inner for inner in ast.walk(node) if isinstance(inner, ast.Raise)]
            assert again, f"{path.name}:{node.lineno} swallows cancellation"
