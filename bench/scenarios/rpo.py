"""How old the newest recoverable point is while a guest writes at a steady pace."""

from __future__ import annotations

from bench.context import Context, Gathered
from bench.live import LiveBackstay, missing
from bench.lives import left_out, lived, memory_entries, memory_goals
from bench.load import COLUMNS, Load, put
from bench.results import Goal, Outcome, Sample, find
from bench.subjects import BACKSTAY
from bench.told import StageWatch
from bench.watching import AGE_SERIES, Age, Peak, VaultTail

TITLE = "age of the newest recoverable point"
LOAD = Load("20 MB/s of 4-64k writes", "4k-64k", 8, rate=20_000_000)
QUICK = f"{BACKSTAY}: seal_after 250ms"
WAYS = ((BACKSTAY, "1s", 2.5), (QUICK, "250ms", 1.0))  # subject, seal_after, seconds of p99
MORE = (
    ("age_p50", "age p50 s"),
    ("age_p99", "age p99 s"),
    ("age_max", "age max s"),
    ("points", "points"),
)


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """Each turn and each ``seal_after``: a new daemon, a paced load, and looks into the vault's
    log meanwhile."""
    ours, gathered = ours or LiveBackstay(), Gathered()
    if lacking := missing(ours):
        return left_out("rpo", TITLE, lacking)
    peaks: dict[str, Peak] = {}
    ways = WAYS[:1] if context.scale.few else WAYS
    for turn in range(context.repeat):
        for subject, seal, _ in ways if turn % 2 == 0 else ways[::-1]:
            context.say(f"turn {turn + 1}: seal_after {seal}")
            way = (context, ours, gathered, peaks, turn, subject, seal)
            gathered.attempt(subject, _turn, *way)
    entries = gathered.entries()
    return Outcome(
        scenario="rpo",
        title=TITLE,
        entries=(*entries, *memory_entries(peaks)),
        goals=(
            *(
                Goal(
                    f"p99 of the age, seal_after {seal}, median of the turns",
                    mine.median("age_p99") if (mine := find(entries, subject)) else None,
                    goal,
                    False,
                    "s",
                )
                for subject, seal, goal in ways
            ),
            *memory_goals(peaks),
        ),
        notes=(
            f"{LOAD.name} for {context.scale.paced:g} s; seal_after 1s, but where 250ms is said",
            "age: now minus the capture of the newest write of the newest consistent commit",
            "read each 100 ms from the vault's own log files: no word of the daemon is taken",
            "after each turn the newest point in the vault was compared with the disk",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(*COLUMNS, *MORE),
    )


def _turn(
    context: Context,
    ours: LiveBackstay,
    gathered: Gathered,
    peaks: dict[str, Peak],
    turn: int,
    subject: str,
    seal: str,
) -> None:
    with lived(context, ours, "rpo", gathered, peaks, turn, seal) as life:
        daemon, scale = life.daemon, context.scale
        age, before = Age(VaultTail(daemon.copy.repository)), daemon.cpu()
        watch = StageWatch(daemon)
        with age:
            done = put(LOAD, daemon.uri, scale.live, scale.paced, life.folder, turn)
        figures = {**done.figures(), **age.figures()}
        series = {**done.series, AGE_SERIES: age.series()}
        watch.done()
        cpu, stages = daemon.cpu() - before, watch.since()
        sample = Sample(done.seconds, cpu=cpu, figures=figures, series=series, stages=stages)
        life.samples.append((subject, sample))
