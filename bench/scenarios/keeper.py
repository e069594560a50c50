"""Planning retention of a long log: ``backstay keeper plan``, from start to end."""

from __future__ import annotations

import shutil

import trio

from bench.context import MEMORY_GOAL, Context, Gathered, sample_of
from bench.made import Made
from bench.measure import checked
from bench.month import DAY, make_log, redate
from bench.results import Goal, Outcome, find, peak_of
from bench.subjects import json_of, python_command

TITLE = "planning retention of a long log"
POLICY = "all=24h,hourly=7d,daily=30d"
SECONDS = 10.0
SPANS = (("one commit a second", None), ("spread over 30 days", 30.0 * DAY))


def run(context: Context) -> Outcome:
    """The vault is made once; each turn plans it twice, as of two ages of its commits."""
    scale, gathered = context.scale, Gathered()
    context.say(f"making a vault of {scale.chain} commits")
    folder = context.folder("keeper")
    made = trio.run(make_log, folder, scale.chained, scale.chain, float(scale.chain))
    for turn in range(context.repeat):
        for name, seconds in SPANS:
            context.say(f"turn {turn + 1}: {name}")
            redate(made, float(made.tail) if seconds is None else seconds)
            gathered.attempt(name, _plan, context, gathered, name, made)
    shutil.rmtree(folder)
    entries = gathered.entries()
    goals: list[Goal] = []
    for name, _ in SPANS:
        entry = find(entries, name)
        time = entry.median("seconds") if entry else None
        goals.append(Goal(f"{name}: whole time", time, SECONDS, False, "s"))
        goals.append(Goal(f"{name}: peak memory", peak_of(entry), MEMORY_GOAL, False, "MiB"))
    return Outcome(
        scenario="keeper",
        title=TITLE,
        entries=entries,
        goals=tuple(goals),
        notes=(
            f"{made.tail} commits, rollups and checkpoints as the shipper makes them",
            f"disk {scale.chained >> 20} MiB; policy {POLICY}; no floor yet",
            "the whole process: start-up, the log's headers, the map of every point that stays",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(("kept", "points before floor"), ("gone", "points let go")),
    )


def _plan(context: Context, gathered: Gathered, name: str, made: Made) -> None:
    words = ("keeper", "plan", "--vault", f"file:{made.vault}", "--key", made.key)
    command = python_command("pipeline.cli.main", *words, "--retention", POLICY, "--json")
    done = checked(command, context.folder("plan"))
    figures = checked_plan(json_of(done.output), made.tail)
    if figures is None:
        gathered.wrong.append(f"keeper: the plan of {name}")
    else:
        gathered.add(name, sample_of(done, figures=figures))


def checked_plan(found: dict[str, object], tail: int) -> dict[str, float] | None:
    """A plan's figures, if it accounts for every commit and met no trouble."""
    groups = found.get("groups")
    if not isinstance(groups, list) or len(groups) != 1 or found.get("problems"):
        return None
    group = groups[0]
    kept, gone = group["points_before_floor"], group["points_let_go"]
    if group["problems"] or group["tail"] != tail or kept + gone != group["next_floor"] - 1:
        return None
    return {"kept": kept, "gone": gone}
