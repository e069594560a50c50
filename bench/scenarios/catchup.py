"""A vault that is away for a while: what a guest notices, and how fast the rest is shipped then."""

from __future__ import annotations

import threading
import time

from bench.context import Context, Gathered
from bench.live import LiveBackstay, missing
from bench.lives import Life, left_out, lived, memory_entries, memory_goals
from bench.load import COLUMNS, Done, Load, put
from bench.measure import CommandFailed
from bench.results import Goal, Outcome, Sample, find, ratio
from bench.subjects import BACKSTAY
from bench.told import StageWatch
from bench.watching import Peak

TITLE = "a vault that comes back"
LOAD = Load("5 MB/s of 4-64k writes", "4k-64k", 4, rate=5_000_000)
THERE, AWAY, BACK = "vault there", "vault away", "catching up"
FASTER = 5.0  # times as fast as it piled up
P50_GOAL, P99_GOAL = 1.25, 2.0  # times the latency with a vault: noise, not a change
_THERE_SECONDS = 30.0


def run(context: Context, ours: LiveBackstay | None = None) -> Outcome:
    """One life: writes with a vault, without, and while it catches up."""
    ours, gathered = ours or LiveBackstay(), Gathered()
    if lacking := missing(ours):
        return left_out("catchup", TITLE, lacking)
    peaks: dict[str, Peak] = {}
    gathered.attempt(BACKSTAY, _life, context, ours, gathered, peaks)
    entries = gathered.entries()
    there, away, back = (find(entries, name) for name in (THERE, AWAY, BACK))

    def times(name: str) -> float | None:
        return ratio(away.median(name) if away else None, there.median(name) if there else None)

    return Outcome(
        scenario="catchup",
        title=TITLE,
        entries=(*entries, *memory_entries(peaks)),
        goals=(
            Goal(
                "caught up, times as fast as it piled up",
                back.median("faster") if back else None,
                FASTER,
                True,
            ),
            Goal("p50 of a write, vault away over there", times("p50"), P50_GOAL, False),
            Goal("p99 of a write, vault away over there", times("p99"), P99_GOAL, False),
            *memory_goals(peaks),
        ),
        notes=(
            f"{LOAD.name}, also while it catches up; away for {context.scale.away:g} s",
            "away: the vault's folder has another name; back: delivery is begun anew (SIGHUP)",
            "by itself it would begin after two probes, 15 s each",
            "caught up: what was written until the vault was back is in it; with delivery's start",
            "at the end the newest point in the vault was compared with the disk",
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        columns=(*COLUMNS, ("caught", "s to catch up"), ("faster", "times faster")),
    )


def _life(context: Context, ours: LiveBackstay, gathered: Gathered, peaks: dict[str, Peak]) -> None:
    with lived(context, ours, "catchup", gathered, peaks) as life:
        seconds = context.scale.away
        context.say(THERE)
        watch = StageWatch(life.daemon)
        done = _put(context, life, min(seconds, _THERE_SECONDS), 1)
        watch.done()
        life.daemon.settle()
        _sample(life, THERE, done, watch)
        context.say(AWAY)
        with life.daemon.vault_away():
            gone = time.monotonic()
            watch = StageWatch(life.daemon)
            _sample(life, AWAY, _put(context, life, seconds, 2), watch)
        context.say(BACK)
        _catch_up(context, life, time.monotonic() - gone)


def _catch_up(context: Context, life: Life, piled: float) -> None:
    """While the guest goes on, for as long as it may take."""
    found: list[Done] = []

    def guest() -> None:
        found.append(_put(context, life, context.scale.away / FASTER, 3))

    behind = life.daemon.status()["head"]
    began, watch = time.monotonic(), StageWatch(life.daemon)
    life.daemon.renew()
    writing = threading.Thread(target=guest)
    writing.start()
    try:
        life.daemon.caught_up(behind)
        caught = time.monotonic() - began
    finally:
        writing.join()
    if not found:
        raise CommandFailed("fio failed while the vault was caught up with")
    _sample(life, BACK, found[0], watch, caught=caught, faster=piled / caught)


def _put(context: Context, life: Life, seconds: float, seed: int) -> Done:
    return put(LOAD, life.daemon.uri, context.scale.live, seconds, life.folder, seed)


def _sample(life: Life, name: str, done: Done, watch: StageWatch, **more: float) -> None:
    figures = {**done.figures(), **more}
    sample = Sample(done.seconds, figures=figures, series=done.series, stages=watch.since())
    life.samples.append((name, sample))
