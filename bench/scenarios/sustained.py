"""Writes without a pause, for long enough that what delivery cannot ship piles up."""

from __future__ import annotations

import time
from dataclasses import replace

from bench.context import Context, Gathered
from bench.inputs import warm
from bench.live import NBDKIT, LiveBackstay, Serving, missing, nbdkit, used
from bench.lives import Life, left_out, lived, memory_entries, memory_goals
from bench.load import make_disk, put
from bench.results import MIB, Goal, Outcome, Sample
from bench.scenarios.splitter import WRITES, Point
from bench.subjects import BACKSTAY
from bench.told import StageWatch
from bench.watching import Backlog, Machine, Peak

TITLE = "sustained writes through the splitter"
COLUMNS = (
    ("rate", "a second"),
    ("mib", "MiB/s"),
    ("ratio", "of nbdkit"),
    ("taken", "taken"),
    ("shipped", "shipped"),
    ("left", "backlog"),
    ("most", "at most"),
    ("rest", "rest s"),
    ("delivery", "dlv CPU"),
    ("idle", "idle"),
    ("waiting", "iowait"),
)


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """One life for each load: nbdkit first, then Backstay, then what it still has to ship."""
    ours, gathered = ours or LiveBackstay(), Gathered()
    if lacking := missing(ours):
        return left_out("sustained", TITLE, lacking)
    peaks: dict[str, Peak] = {}
    ratios: dict[str, float] = {}
    notes: list[str] = []
    points = WRITES[: context.scale.loads]
    for point in points:
        context.say(point.load.name)
        gathered.attempt(BACKSTAY, _one, context, ours, point, gathered, peaks, ratios, notes)
    return Outcome(
        scenario="sustained",
        title=TITLE,
        entries=(*gathered.entries(), *memory_entries(peaks)),
        goals=(
            *(
                Goal(f"{point.load.name}, of nbdkit's rate", ratios.get(point.load.name), *goal)
                for point in points
                for goal in [(point.goal, True)]
            ),
            *memory_goals(peaks),
        ),
        notes=(
            *notes,
            f"{context.scale.sustained:g} s each, once; disk {context.scale.live >> 20} MiB",
            f"journal_limit {context.scale.journal >> 20} MiB: beyond it writes are tracked",
            "taken, shipped: records of the journal; backlog: not yet in the vault at the end",
            "MiB and MiB/s; rest: seconds to ship it; dlv CPU: seconds of delivery",
            "idle, iowait: processors of the whole machine, whoever else uses it",
            "after each load the newest point in the vault was compared with the disk",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        peer=NBDKIT,
        columns=COLUMNS,
    )


def _one(
    context: Context,
    ours: LiveBackstay,
    point: Point,
    gathered: Gathered,
    peaks: dict[str, Peak],
    ratios: dict[str, float],
    notes: list[str],
) -> None:
    with lived(context, ours, "sustained", gathered, peaks) as life:
        other = make_disk(life.folder / "other", context.scale.live, 0)
        warm(life.disk, other)
        with nbdkit(other) as plain:
            theirs = _write(context, life, point, plain)
        mine, tracked = _ours(context, life, point)
        ratio = mine.figures["rate"] / max(theirs.figures["rate"], 1e-9)
        with_ratio = replace(mine, figures={**mine.figures, "ratio": ratio})
        life.samples += [
            (f"{point.load.name}: {BACKSTAY}", with_ratio),
            (f"{point.load.name}: {NBDKIT}", theirs),
        ]
    if life.right:
        ratios[point.load.name] = ratio
        notes.append(f"{point.load.name}: {tracked or 'journalled all the time'}")


def _write(context: Context, life: Life, point: Point, server: Serving) -> Sample:
    before, machine = server.cpu(), Machine()
    seconds = context.scale.sustained
    done = put(point.load, server.uri, context.scale.live, seconds, life.folder, 0)
    idle, waiting = machine.since()
    figures = {**done.figures(), "idle": idle, "waiting": waiting}
    return Sample(done.seconds, cpu=server.cpu() - before, figures=figures, series=done.series)


def _ours(context: Context, life: Life, point: Point) -> tuple[Sample, str]:
    """Its sample, and whether writes were tracked."""
    daemon, backlog = life.daemon, Backlog(life.daemon)
    before, cpu, watch = daemon.status(), used(daemon.delivery), StageWatch(daemon)
    with backlog:
        found = _write(context, life, point, daemon)
        watch.done()
        after, ended = daemon.status(), time.monotonic()
        cpu = used(daemon.delivery) - cpu
    daemon.settle()
    figures = {
        **found.figures,
        "delivery": cpu,
        "rest": time.monotonic() - ended,
        "most": backlog.most / MIB,
    }
    if before["head"][0] == after["head"][0]:  # offsets count within a run
        figures["taken"] = (after["head"][1] - before["head"][1]) / MIB / found.seconds
        figures["left"] = (after["head"][1] - after["committed"][1]) / MIB
        shipped = after["committed"][1] - before["committed"][1]
        figures["shipped"] = shipped / MIB / found.seconds
    tracked = f"writes were tracked: {backlog.tracked}" if backlog.tracked else ""
    return replace(found, figures=figures, stages=watch.since()), tracked
