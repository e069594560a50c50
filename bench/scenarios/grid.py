"""The splitter's whole grid: block size by depth, reads and writes, in short bursts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.context import QUICK, Context, Gathered
from bench.inputs import warm
from bench.live import NBDKIT, LiveBackstay, Serving, missing, nbdkit
from bench.lives import Life, left_out, lived, memory_goals
from bench.load import COLUMNS, Load, make_disk, put
from bench.qemu import QEMU_NBD, qemu_nbd, qemu_nbd_missing
from bench.results import Goal, Outcome, Sample, find, ratio
from bench.subjects import BACKSTAY
from bench.watching import Peak

TITLE = "writes and reads through the splitter, by block size and depth"
BLOCKS = ("4k", "16k", "64k", "256k", "1m")
DEPTHS = (1, 4, 16, 64)
BURST = 2.0  # seconds, or less where other bursts are shorter
QUICK_POINTS = (("4k", 1), ("4k", 16), ("64k", 4), ("1m", 4))
_GOALS = {"4k writes d1": 0.9, "4k writes d16": 0.9, "64k writes d4": 0.6, "1m reads d4": 1.4}


def loads(context: Context) -> tuple[Load, ...]:
    """All points; of a small disk a handful."""
    small = context.scale.live <= QUICK.live
    points = QUICK_POINTS if small else tuple((b, d) for b in BLOCKS for d in DEPTHS)
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
    absent = qemu_nbd_missing()
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
            *((f"{absent} is left out: not installed",) if absent else ()),
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
    with lived(context, ours, "grid", gathered, peaks, turn) as life, ExitStack() as stack:
        servers: dict[str, Serving] = {BACKSTAY: life.daemon}
        disks = [life.disk]
        for name, serve in ((NBDKIT, nbdkit), (QEMU_NBD, qemu_nbd)):
            if name == QEMU_NBD and qemu_nbd_missing():
                continue
            disks.append(make_disk(life.folder / f"by {name}", context.scale.live, turn))
            servers[name] = stack.enter_context(serve(disks[-1]))
        for number, load in enumerate(loads(context)):
            context.say(f"turn {turn + 1}: {load.name}")
            _point(context, load, servers, disks, life, turn + number)


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
        server, size = servers[name], context.scale.live
        before = server.cpu()
        done = put(load, server.uri, size, _burst(context), life.folder, number)
        cpu = server.cpu() - before
        found[name] = Sample(done.seconds, cpu=cpu, figures=done.figures(), series=done.series)
        server.settle()
    plain = found[NBDKIT].figures["rate"]
    for name in names:
        sample = found[name]
        share = ratio(sample.figures["rate"], plain) or 0.0
        figures = {**sample.figures, "ratio": share}
        life.samples.append((f"{load.name}: {name}", replace(sample, figures=figures)))
