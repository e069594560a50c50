"""The splitter's whole grid: block size by depth, reads and writes, in short bursts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.beside import absent, burst, others
from bench.context import Context, Gathered
from bench.inputs import warm
from bench.live import NBDKIT, LiveBackstay, Serving, missing
from bench.lives import Life, left_out, lived, memory_goals
from bench.load import COLUMNS, Load
from bench.results import Goal, Outcome, Sample, find, ratio
from bench.subjects import BACKSTAY
from bench.watching import Peak

TITLE = "writes and reads through the splitter, by block size and depth"
BLOCKS = ("4k", "16k", "64k", "256k", "1m")
DEPTHS = (1, 4, 16, 64)
BURST = 2.0  # seconds, or less where other bursts are shorter
QUICK_POINTS = (("4k", 16), ("1m", 4))
_GOALS = {"4k writes d1": 0.9, "4k writes d16": 0.9, "64k writes d4": 0.6, "1m reads d4": 1.4}


def loads(context: Context) -> tuple[Load, ...]:
    """All points, or a few."""
    points = QUICK_POINTS if context.scale.few else tuple((b, d) for b in BLOCKS for d in DEPTHS)
    return tuple(
        Load(f"{block} {'reads' if reads else 'writes'} d{depth}", block, depth, reads=reads)
        for reads in (False, True)
        for block, depth in points
    )


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """Each turn is one life; a turn whose newest point is not the disk does not count."""
    ours, gathered = ours or LiveBackstay(), Gathered()
    if lacking := missing(ours):
        return left_out("grid", TITLE, lacking)
    peaks: dict[str, Peak] = {}
    for turn in range(context.repeat):
        gathered.attempt(BACKSTAY, _turn, context, ours, gathered, peaks, turn)
    entries = gathered.entries()
    goals = []
    for load in loads(context):
        if load.name in _GOALS:
            mine = find(entries, f"{load.name}: {BACKSTAY}")
            found = mine.median("ratio") if mine else None
            goals.append(Goal(f"{load.name}, of nbdkit's rate", found, _GOALS[load.name], True))
    return Outcome(
        scenario="grid",
        title=TITLE,
        entries=entries,
        goals=(*goals, *memory_goals(peaks)),
        notes=(
            f"disk {context.scale.live >> 20} MiB, cached; bursts of {_burst(context):g} s",
            "of nbdkit: the ratio within each turn; the order of the servers changes by points",
            "fio makes fresh, half compressible data for each write, on the same processors",
            "before another server is measured everything is shipped: delivery is at rest then",
            "after each turn the newest point in the vault was compared with the disk",
            *absent(),
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(*COLUMNS, ("ratio", "of nbdkit")),
    )


def _burst(context: Context) -> float:
    return min(BURST, context.scale.burst)


def _turn(
    context: Context,
    ours: LiveBackstay,
    gathered: Gathered,
    peaks: dict[str, Peak],
    turn: int,
) -> None:
    scale = context.scale
    with (
        lived(context, ours, "grid", gathered, peaks, turn) as life,
        others(life.folder, scale.live, turn, fio=False) as (beside, disks),
    ):
        servers: dict[str, Serving] = {BACKSTAY: life.daemon, **beside}
        for number, load in enumerate(loads(context)):
            context.say(f"turn {turn + 1}: {load.name}")
            _point(context, load, servers, [life.disk, *disks], life, turn + number)


def _point(
    context: Context,
    load: Load,
    servers: dict[str, Serving],
    disks: list[Path],
    life: Life,
    number: int,
) -> None:
    """One load on each server; which is first goes round."""
    names = list(servers)
    at = number % len(names)
    found: dict[str, Sample] = {}
    for name in (*names[at:], *names[:at]):
        warm(*disks)
        found[name] = burst(
            load, servers[name], context.scale.live, _burst(context), life.folder, number
        )
    plain = found[NBDKIT].figures["rate"]
    for name in names:
        sample = found[name]
        share = ratio(sample.figures["rate"], plain) or 0.0
        figures = {**sample.figures, "ratio": share}
        life.samples.append((f"{load.name}: {name}", replace(sample, figures=figures)))
