"""Commands start quickly because they import what they need, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.support import KEYS, ROOT, Shipped

HEAVY = (
    "trio",
    "numpy",
    "pydantic",
    "ruamel",
    "rich",
    "zstandard",
    "nacl",
    "bench",
    "pipeline.protect",
)
ONLY_PROTECTION = ("pydantic", "ruamel", "rich", "stages.capture", "stages.ship", "bench")


def imported(shipped: Shipped, *words: str) -> set[str]:
    """The modules that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline.cli.main", *words],
        cwd=shipped.root,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def beneath(names: set[str], tops: tuple[str, ...]) -> set[str]:
    return {name for name in names for top in tops if name == top or name.startswith(f"{top}.")}


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_help_imports_nothing_heavy(shipped: Shipped, words: tuple[str, ...]) -> None:
    assert not beneath(imported(shipped, *words), HEAVY)


@pytest.mark.parametrize("words", [("rescue",), ("points", "web1"), ("verify", "web1")])
def test_recovery_imports_nothing_of_protection(shipped: Shipped, words: tuple[str, ...]) -> None:
    assert not beneath(imported(shipped, *words, *KEYS), ONLY_PROTECTION)
