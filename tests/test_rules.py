"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"system.py", "system_workers.py"}
SUPERVISOR = {"supervisor.py", "jobrun.py"}  # of pipeline/supervisor: what breaks is begun anew
CANCELLATION = {"BaseException", "BaseExceptionGroup", "Cancelled"}  # what may hold it
SOURCES = sorted(
    path for package in ("stages", "pipeline", "bench") for path in (ROOT / package).rglob("*.py")
)


@pytest.fixture(scope="module")
def parsed() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_stages_open_files_only_through_the_port(parsed: dict[Path, ast.Module]) -> None:
    wrong: list[str] = []
    for path, tree in parsed.items():
        if "stages" not in path.parts or path.name in MACHINE or path.parent.name == "system":
            continue
        found = set(_calls(tree)) & {"open", "Path", "print", "input"}
        wrong += [f"{path.relative_to(ROOT)} calls {name}" for name in sorted(found)]
    assert wrong == []


def test_only_the_supervisor_catches_everything(parsed: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {found}"
        for path, tree in parsed.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and (found := _caught(node, _supervises(path)))
    ]
    assert wrong == []


def _supervises(path: Path) -> bool:
    return path.parent.name == "supervisor" and path.name in SUPERVISOR


def _caught(node: ast.ExceptHandler, supervises: bool) -> str:
    """What is wrong with it."""
    caught = set() if node.type is None else _names(node.type)
    if node.type is None or ("Exception" in caught and not supervises):
        return "catches everything"
    again = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    if caught & CANCELLATION and not again:
        return "swallows cancellation"
    return ""


def _names(node: ast.AST) -> set[str]:
    """All names in an expression, with or without their modules."""
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def test_nothing_suppresses_everything(parsed: dict[Path, ast.Module]) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in parsed.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and "suppress" in _names(node.func)
        and any(_names(each) & {"Exception", *CANCELLATION} for each in node.args)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("except:", "catches everything"),
        ("except Exception:", "catches everything"),
        ("except BaseException:", "swallows cancellation"),
        ("except (ValueError, Exception):", "catches everything"),
        ("except trio.Cancelled:", "swallows cancellation"),
        ("except (OSError, BaseExceptionGroup):", "swallows cancellation"),
        ("except OSError:", ""),
        ("except (OSError, errors.BackstayError):", ""),
    ],
)
def test_it_would_be_seen(text: str, said: str) -> None:
    (tried,) = ast.parse(f"try:\n    pass\n{text}\n    pass\n").body
    assert isinstance(tried, ast.Try)
    assert _caught(tried.handlers[0], supervises=False) == said
