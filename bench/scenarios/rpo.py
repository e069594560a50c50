"""How old the newest recoverable point is while a guest writes at a steady pace."""

from __future__ import annotations

from bench.context import Context, Gathered
from bench.live import LiveBackstay, missing
from bench.lives import left_out, lived, memory_entries, memory_goals
from bench.load import COLUMNS, Load, put
from bench.results import Goal, Outcome, Sample, find
from bench.subjects import BACKSTAY
from bench.watching import AGE_SERIES, Age, Peak, VaultTail

TITLE = "age of the newest recoverable point"
LOAD = Load("20 MB/s of 4-64k writes", "4k-64k", 8, rate=20_000_000)
AGE_GOAL = 2.5  # seconds, p99
MORE = (
    ("age_p50", "age p50 s"),
    ("age_p99", "age p99 s"),
    ("age_max", "age max s"),
    ("points", "points"),
)


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """Each turn: a new daemon, a paced load, and looks into the vault's log meanwhile."""
    ours, gathered = ours or LiveBackstay(), Gathered()
    if lacking := missing(ours):
        return left_out("rpo", TITLE, lacking)
    peaks: dict[str, Peak] = {}
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}")
        gathered.attempt(BACKSTAY, _turn, context, ours, gathered, peaks, turn)
    entries = gathered.entries()
    mine = find(entries, BACKSTAY)
    return Outcome(
        scenario="rpo",
        title=TITLE,
        entries=(*entries, *memory_entries(peaks)),
        goals=(
            Goal(
                "p99 of the age, median of the turns",
                mine.median("age_p99") if mine else None,
                AGE_GOAL,
                False,
                "s",
            ),
            *memory_goals(peaks),
        ),
        notes=(
            f"{LOAD.name} for {context.scale.paced:g} s, seal_after 1 s",
            "age: now minus the capture of the newest write of the newest consistent commit",
            "read each 100 ms from the vault's own log files: no word of the daemon is taken",
            "after each turn the newest point in the vault was compared with the disk",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(*COLUMNS, *MORE),
    )


def _turn(
    context: Context, ours: LiveBackstay, gathered: Gathered, peaks: dict[str, Peak], turn: int
) -> None:
    with lived(context, ours, "rpo", gathered, peaks, turn) as life:
        daemon, scale = life.daemon, context.scale
        age, before = Age(VaultTail(daemon.copy.repository)), daemon.cpu()
        with age:
            done = put(LOAD, daemon.uri, scale.live, scale.paced, life.folder, turn)
        figures = {**done.figures(), **age.figures()}
        series = {**done.series, AGE_SERIES: age.series()}
        cpu = daemon.cpu() - before
        sample = Sample(done.seconds, cpu=cpu, figures=figures, series=series)
        life.samples.append((BACKSTAY, sample))
