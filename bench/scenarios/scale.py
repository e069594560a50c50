"""Memory and time on a huge disk, most of it mapped by references to few blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import trio

from bench.context import MEMORY_GOAL, Context, Gathered, sample_of
from bench.inputs import warm
from bench.measure import checked
from bench.results import Goal, Outcome, find, peak_of
from bench.scenarios.export import figures_of
from bench.subjects import json_of, python_command
from bench.synthetic import wide_map

TITLE = "peak memory on a huge disk"
STEPS = (
    ("open + read, before any checkpoint", "read"),
    ("verify 1 GiB of it, before any checkpoint", "window"),
    ("write a checkpoint of all of it", "checkpoint"),
    ("open + read, from the checkpoint", "read"),
    ("verify 1 GiB of it, from the checkpoint", "window"),
)


def run(context: Context) -> Outcome:
    """Each turn makes the vault anew, because writing the checkpoint changes it."""
    scale, gathered = context.scale, Gathered()
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}: making the vault")
        folder = context.folder("scale")
        made = trio.run(wide_map, folder, scale.huge, scale.mapped)
        file = made.save(folder / "made.json")
        warm(folder / "vault", folder / "state")
        for name, kind in STEPS:
            gathered.attempt(name, _one, gathered, name, kind, file, turn)
        shutil.rmtree(folder)
    entries = gathered.entries()
    return Outcome(
        scenario="scale",
        title=TITLE,
        entries=entries,
        goals=tuple(
            Goal(f"peak memory: {name}", peak_of(find(entries, name)), MEMORY_GOAL, False, "MiB")
            for name, _ in STEPS
        ),
        notes=(
            f"disk {scale.huge >> 30} GiB, {scale.mapped >> 30} GiB of it mapped",
            "in stretches all over it; each commit holds 64 blocks and refers to them",
            "page cache: vault and state were read before",
            "inside: from the first call to the vault",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
    )


def _one(gathered: Gathered, name: str, kind: str, file: Path, turn: int) -> None:
    done = checked(
        python_command("bench.opening", kind, str(file), "--seed", str(turn)), file.parent
    )
    found = json_of(done.output)
    if not found.get("right"):
        gathered.wrong.append(f"scale: {name}")
        return
    gathered.add(name, sample_of(done, figures=figures_of(found)))
