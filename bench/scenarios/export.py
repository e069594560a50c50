"""First read from an export of a large disk, with many commits after the last checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from bench.context import MEMORY_GOAL, Context, Gathered, sample_of
from bench.inputs import stored_in, warm
from bench.measure import Command, CommandFailed, checked
from bench.results import Goal, Outcome, Sample, find, peak_of
from bench.subjects import BACKSTAY, json_of, python_command
from bench.synthetic import long_log

TITLE = "first read from an export, by the vault's distance"
COMMAND = "backstay export + NBD read"
NEAR = "open + read, file vault"
FAR = "open + read, each get + {} ms"
DELAY = 0.03  # seconds
NEAR_GOAL, FAR_GOAL = 1.0, 3.0  # seconds


def run(context: Context) -> Outcome:
    """One vault; each turn reads one block by each way, of another place each time."""
    scale, gathered = context.scale, Gathered()
    folder = context.folder("export")
    context.say("making the vault")
    made = trio.run(long_log, folder, scale.disk, scale.written, scale.commits)
    file = made.save(folder / "made.json")
    far = FAR.format(round(DELAY * 1000))
    warm(folder / "vault")
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}")
        seed = str(turn)
        near = python_command("bench.opening", "read", str(file), "--seed", seed)
        slow = Command((*near.argv, "--delay", str(DELAY)), near.env)
        gathered.attempt(NEAR, _opened, gathered, NEAR, near, folder)
        gathered.attempt(far, _opened, gathered, far, slow, folder)
        if context.subject(BACKSTAY):
            _export(context, gathered, file, seed)
    entries = gathered.entries()
    by_command, by_near, by_far = (find(entries, name) for name in (COMMAND, NEAR, far))
    quickest = by_command or by_near
    outcome = Outcome(
        scenario="export",
        title=TITLE,
        entries=entries,
        goals=(
            Goal(
                "seconds to the first read, file vault, whole process",
                quickest.median("seconds") if quickest else None,
                NEAR_GOAL,
                False,
                "s",
            ),
            Goal(
                f"seconds to the first read, each get + {round(DELAY * 1000)} ms, whole process",
                by_far.median("seconds") if by_far else None,
                FAR_GOAL,
                False,
                "s",
            ),
            Goal("peak memory", peak_of(by_command or by_near), MEMORY_GOAL, False, "MiB"),
        ),
        notes=(
            f"disk {scale.disk >> 30} GiB, {scale.written >> 20} MiB of it written",
            f"{scale.commits} commits of 500 blocks after the last checkpoint",
            f"{stored_in(folder / 'vault') >> 20} MiB stored, because its blocks are repetitive",
            "inside: from the first call to the vault to the block",
            "page cache: the vault was read once before all runs",
            "the block that was read is compared with what was written there",
        ),
        reference=NEAR,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=tuple((name, name) for name in ("find", "choose", "map", "read", "calls")),
    )
    shutil.rmtree(folder)
    return outcome


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a measuring process; its seconds are ``inner``."""
    figures = {name: float(value) for name, value in found.items() if type(value) in (int, float)}
    figures["inner"] = figures.pop("seconds")
    return figures


def _opened(gathered: Gathered, name: str, command: Command, folder: Path) -> None:
    done = checked(command, folder)
    found = json_of(done.output)
    if not found.get("right"):
        gathered.wrong.append(f"export: {name}")
        return
    gathered.add(name, sample_of(done, figures=figures_of(found)))


def _export(context: Context, gathered: Gathered, file: Path, seed: str) -> None:
    """The driver's own start is left out: it prints the time from starting the command."""
    folder = context.folder("listen")
    command = python_command("bench.firstread", str(file), str(folder / "s"), "--seed", seed)
    try:
        done = checked(command, folder)
    except CommandFailed as error:
        gathered.failed[BACKSTAY] = str(error)
        return
    found = json_of(done.output)
    if not found.get("right"):
        gathered.wrong.append(f"export: {COMMAND}")
        return
    gathered.add(
        COMMAND,
        Sample(float(found["seconds"]), cpu=done.cpu, peak=done.peak, shared_out=done.shared_out),
    )
