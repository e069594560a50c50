"""Bursts of writes and reads through Backstay's daemon, beside nbdkit serving the same disk."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from bench.beside import FIO, absent, burst, others, takes
from bench.capped import SOCKET, capped, of_bytes
from bench.context import Context, Gathered
from bench.inputs import warm
from bench.live import NBDKIT, Daemon, LiveBackstay, Serving, missing
from bench.lives import left_out, lived, memory_entries, memory_goals
from bench.load import COLUMNS, Load
from bench.qemu import QEMU_NBD
from bench.results import Goal, Outcome, Sample
from bench.subjects import BACKSTAY
from bench.watching import Peak

TITLE = "writes and reads through the splitter"
STOPPED = "delivery stopped"
FLUSH_GOAL = 3.0  # times the p99 of a flush without delivery

Way = tuple[str, Serving, AbstractContextManager[None] | None]


@dataclass(frozen=True, slots=True)
class Point:
    """A load, and the least share of nbdkit's rate that is wanted; ``aim`` for more."""

    load: Load
    goal: float
    aim: float | None = None


WRITES = (
    Point(Load("4k writes d32", "4k", 32), 0.6, 0.9),
    Point(Load("4k writes d1", "4k", 1), 0.65, 0.9),
    Point(Load("4k writes + flush d1", "4k", 1, flush=True), 0.5),
    Point(Load("64k writes d8", "64k", 8), 0.3, 0.6),
)
READS = (
    Point(Load("64k reads d8", "64k", 8, reads=True), 1.4),
    Point(Load("256k reads d8", "256k", 8, reads=True), 1.4),
    Point(Load("1m reads d8", "1m", 8, reads=True), 1.8),
    Point(Load("256k reads, nbdcopy", str(256 << 10), 0, reads=True, copy=True), 1.4),
    Point(Load("1m reads, nbdcopy", str(1 << 20), 0, reads=True, copy=True), 1.8),
)


@dataclass
class Measured:
    """What the turns gave: ``rates`` and ``flushes`` by point and subject, one for each turn."""

    gathered: Gathered = field(default_factory=Gathered)
    peaks: dict[str, Peak] = field(default_factory=dict)
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    flushes: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def ratio(self, point: Point, subject: str, to: str = NBDKIT) -> float | None:
        """The median of the turns' ratios: what disturbs a turn disturbs both."""
        return _median_ratio(self.rates, point, subject, to)

    def flush_ratio(self, point: Point) -> float | None:
        """p99 of flushes with delivery, over that without."""
        return _median_ratio(self.flushes, point, BACKSTAY, STOPPED)


def _median_ratio(
    found: dict[tuple[str, str], list[float]], point: Point, one: str, other: str
) -> float | None:
    above, below = (found.get((point.load.name, name), []) for name in (one, other))
    ratios = [mine / theirs for mine, theirs in zip(above, below, strict=False) if theirs]
    return statistics.median(ratios) if ratios else None


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """Each turn: new daemons, each load on each server, then the newest point held against the
    disk; a turn whose point is wrong does not count."""
    ours, measured = ours or LiveBackstay(), Measured()
    if lacking := missing(ours):
        return left_out("splitter", TITLE, lacking)
    for turn in range(context.repeat):
        measured.gathered.attempt(BACKSTAY, _turn, context, ours, measured, turn)
    entries = measured.gathered.entries()
    reads = [point.load.name for point in READS]
    return Outcome(
        scenario="splitter",
        title=TITLE,
        entries=(*entries, *memory_entries(measured.peaks)),
        goals=_goals(measured, points(context)),
        notes=(
            f"disks of {context.scale.live >> 20} MiB, made alike, cached",
            f"bursts of {context.scale.burst:g} s",
            "ratios: medians of the ratios within each turn; the order changes by turns",
            f"{STOPPED}: it gets no processor (SIGSTOP), the journal is written all the same",
            "fio makes fresh, half compressible data for each write, on the same processors",
            f"{FIO}: no server, the page cache takes it; {SOCKET.removeprefix('ceiling: ')}: reads",
            *of_bytes(entries, SOCKET, BACKSTAY, reads),
            *absent(),
            "latencies in µs; CPU s: of the process that answers; files of one file system",
            "before nbdkit is measured everything is shipped: delivery is at rest then",
            "after each turn the newest point in the vault was compared with the disk",
        ),
        wrong=tuple(measured.gathered.wrong),
        failed=measured.gathered.failures(),
        peer=NBDKIT,
        columns=(*COLUMNS, ("ratio", "of nbdkit")),
    )


def points(context: Context) -> tuple[Point, ...]:
    """All, or of few one of each kind: writes, flushes, reads, copies."""
    if not context.scale.few:
        return (*WRITES, *READS)
    kinds = {(one.load.reads, one.load.flush, one.load.copy): one for one in (*READS, *WRITES)}
    return tuple(one for one in (*WRITES, *READS) if one in kinds.values())


def _turn(context: Context, ours: LiveBackstay, measured: Measured, turn: int) -> None:
    samples: list[tuple[str, str, Sample]] = []
    scale, caps = context.scale, []
    with (
        lived(context, ours, "splitter", measured.gathered, measured.peaks, turn) as life,
        others(life.folder, scale.live, turn, fio=True) as (beside, disks),
    ):
        caps.append(capped(context, SOCKET, life.disk))
        for number, point in enumerate(points(context)):
            context.say(f"turn {turn + 1}: {point.load.name}")
            ways = _ways(life.daemon, beside, point)
            at = (turn + number) % len(ways)
            for name, server, how in (*ways[at:], *ways[:at]):
                warm(life.disk, *disks)
                sample = burst(
                    point.load, server, scale.live, scale.burst, life.folder, turn, how=how
                )
                samples.append((point.load.name, name, sample))
    if life.right:
        _count(measured, samples)
        for cap in caps:
            measured.gathered.add(SOCKET, cap)


def _ways(daemon: Daemon, beside: Mapping[str, Serving], point: Point) -> list[Way]:
    """Each load on all servers, and writes also without delivery, to tell what that costs."""
    found: list[Way] = [
        (name, server, None) for name, server in beside.items() if takes(name, point.load)
    ]
    found.append((BACKSTAY, daemon, None))
    if not point.load.reads:
        found.append((STOPPED, daemon, daemon.delivery_stopped()))
    return found


def _count(measured: Measured, samples: list[tuple[str, str, Sample]]) -> None:
    plain = {load: sample.figures["rate"] for load, name, sample in samples if name == NBDKIT}
    for load, name, sample in sorted(samples, key=_row):
        rate = sample.figures["rate"]
        figures = {**sample.figures, "ratio": rate / plain[load] if plain[load] else 0.0}
        measured.gathered.add(f"{load}: {name}", replace(sample, figures=figures))
        measured.rates.setdefault((load, name), []).append(rate)
        if "flush_p99" in figures:
            measured.flushes.setdefault((load, name), []).append(figures["flush_p99"])


def _row(sample: tuple[str, str, Sample]) -> tuple[int, int]:
    """Where it stands in the table."""
    loads = [point.load.name for point in (*WRITES, *READS)]
    return loads.index(sample[0]), (BACKSTAY, STOPPED, NBDKIT, QEMU_NBD, FIO).index(sample[1])


def _goals(measured: Measured, chosen: tuple[Point, ...]) -> tuple[Goal, ...]:
    found: list[Goal] = []
    for point in chosen:
        ratio = measured.ratio(point, BACKSTAY)
        found.append(Goal(f"{point.load.name}, of nbdkit's rate", ratio, point.goal, True))
        if point.aim is not None:
            found.append(Goal(f"aim: {point.load.name}", ratio, point.aim, True))
    flush = next(point for point in chosen if point.load.flush)
    text = "p99 of a flush, times that without delivery"
    found.append(Goal(text, measured.flush_ratio(flush), FLUSH_GOAL, False))
    return (*found, *memory_goals(measured.peaks))
