"""A month of writes under the default retention: what the vault holds, beside what it has to."""

from __future__ import annotations

import shutil

import trio

from bench.context import Context, Gathered
from bench.kept import EVERY, Ended, live_a_month
from bench.results import MIB, Entry, Goal, Outcome, Sample, find, ratio
from stages.keeper.rules import GRACE

TITLE = "bytes in the vault after a month of churn, default retention"
WRITES = {"extents of 8 to 512 KiB": (2, 8, 32, 128), "single blocks, all over": (1,)}
VAULT, BLOCKS, REACHED, OFFERED, NEED = (
    "the vault, after the last run of the keeper",
    "blocks that the offered points need, as stored",
    "frames that the offered points need a block of",
    "a fresh vault of the offered points",
    "a fresh vault of the policy's points",
)
MOST = 1.3


def run(context: Context) -> Outcome:
    """One month of each kind: the same seed gives the same bytes, turns would tell nothing new."""
    scale, gathered = context.scale, Gathered()
    notes = []
    for name, extents in WRITES.items():
        context.say(f"a month of {scale.churn} commits: {name}")
        folder = context.folder("churn")
        month = (folder, scale.churned, scale.churn, extents, scale.month)
        ended = trio.run(live_a_month, *month)
        shutil.rmtree(folder)
        wrong = [f"churn: {name}: {what}" for what in (*ended.problems, *ended.wrong)]
        gathered.wrong += wrong
        if not wrong:
            _add(gathered, name, ended)
            notes.append(
                f"{name}: {ended.shipped / MIB:.0f} MiB shipped, "
                f"{100 * ended.moved / ended.shipped:.1f}% of them moved by the keeper, at most "
                f"{ended.most / MIB:.0f} MiB held; {ended.compared} points read whole and compared"
            )
    entries = gathered.entries()
    return Outcome(
        scenario="churn",
        title=TITLE,
        entries=entries,
        goals=tuple(
            Goal(f"{name}: bytes, of {other}", _share(entries, name, other), MOST, False)
            for name in WRITES
            for other in (BLOCKS, REACHED, OFFERED)
        ),
        notes=(
            *notes,
            f"{scale.churn} commits in {scale.month} virtual days, disk {scale.churned >> 20} MiB",
            "four fifths of the writes lie in a tenth of the disk",
            f"'keeper run' every {EVERY / 3600:.0f} h, with a grace of {GRACE / 3600:.0f} h",
            "what the last run has let go is still there",
            "a block as stored: its share of its frame, which may hold others that nobody needs",
            "fresh vault: the same points, one commit each, checkpoints when they are due",
        ),
        wrong=tuple(gathered.wrong),
        columns=(("points", "points"),),
    )


def _share(entries: tuple[Entry, ...], name: str, other: str) -> float | None:
    held, need = find(entries, f"{name}: {VAULT}"), find(entries, f"{name}: {other}")
    return ratio(held.median("stored") if held else None, need.median("stored") if need else None)


def _add(gathered: Gathered, name: str, ended: Ended) -> None:
    for what, size, points in (
        (VAULT, ended.held, ended.offered_points),
        (BLOCKS, ended.blocks, ended.offered_points),
        (REACHED, ended.reached, ended.offered_points),
        (OFFERED, ended.offered, ended.offered_points),
        (NEED, ended.needed, ended.policy_points),
    ):
        sample = Sample(seconds=0.0, stored=size, figures={"points": points})
        gathered.add(f"{name}: {what}", sample)
