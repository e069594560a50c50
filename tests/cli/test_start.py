"""Commands start quickly because they import what they need, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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

# What the daemon's processes and the commands that speak to it do without: a start of each costs
# the time of a processor, and a delivery that is restarted costs it every time.
_FACE = ("sqlalchemy", "starlette", "hypercorn", "httpx", "asyncio", "anyio", "rich", "click")
_NOT_IMPORTED = {
    "pipeline.daemon.delivery_process": (
        *_FACE,
        "stages.nbd",
        "stages.capture",
        "stages.recover",
        "pipeline.intake",
        "pipeline.protect",
        "pipeline.supervisor",
        "bench",
    ),
    "pipeline.daemon.intake_process": (
        *_FACE,
        "stages.compress",
        "stages.encrypt",
        "stages.cache.fold",
        "stages.ship.session",
        "stages.recover",
        "pipeline.delivery",
        "pipeline.protect",
        "pipeline.supervisor",
        "bench",
    ),
    "pipeline.supervisor.process": (
        "sqlalchemy.dialects.postgresql",
        "httpx",
        "rich",
        "stages.nbd",
        "stages.capture",
        "stages.compress",
        "stages.encrypt",
        "stages.recover",
        "pipeline.intake",
        "pipeline.delivery",
        "pipeline.protect",
        "bench",
    ),
    "pipeline.cli.status": ("trio", "numpy", "pydantic", "ruamel", "sqlalchemy", "stages.vault"),
    "stages.capture.worker": (
        "trio",
        "pydantic",
        "ruamel",
        "stages.vault",
        "stages.ship",
        "pipeline",
    ),
}


def imported(shipped: Shipped, *words: str) -> set[str]:
    """The modules that a command imports."""
    return _traced(shipped.root, "-m", "pipeline.cli.main", *words)


def _traced(folder: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=folder,
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


@pytest.mark.parametrize("module", _NOT_IMPORTED)
def test_a_process_imports_only_its_own_part(module: str) -> None:
    found = _traced(ROOT, "-c", f"import {module}")
    assert module in found
    assert not beneath(found, _NOT_IMPORTED[module])
