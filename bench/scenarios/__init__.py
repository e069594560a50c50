"""What is measured: one module for each scenario, each a function from context to outcome."""

from __future__ import annotations

from collections.abc import Callable

from bench.context import Context
from bench.results import Outcome
from bench.scenarios import (
    catchup,
    changed,
    export,
    exported,
    grid,
    initial,
    machines,
    restore,
    rpo,
    scale,
    sizes,
    splitter,
    sustained,
    unchanged,
)

Scenario = Callable[[Context], Outcome]

SCENARIOS: dict[str, tuple[str, Scenario]] = {
    "initial": (initial.TITLE, initial.run),
    "unchanged": (unchanged.TITLE, unchanged.run),
    "changed": (changed.TITLE, changed.run),
    "restore": (restore.TITLE, restore.run),
    "export": (export.TITLE, export.run),
    "exported": (exported.TITLE, exported.run),
    "sizes": (sizes.TITLE, sizes.run),
    "scale": (scale.TITLE, scale.run),
    "splitter": (splitter.TITLE, splitter.run),
    "grid": (grid.TITLE, grid.run),
    "sustained": (sustained.TITLE, sustained.run),
    "rpo": (rpo.TITLE, rpo.run),
    "catchup": (catchup.TITLE, catchup.run),
    "machines": (machines.TITLE, machines.run),
}
