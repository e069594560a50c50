"""A month of writes under the default retention: what the vault holds, beside what it has to."""

from __future__ import annotations

import shutil

import trio

from bench.context import Context, Gathered
from bench.kept import Ended, live_a_month
from bench.results import MIB, Goal, Outcome, Sample, find, ratio

TITLE = "bytes in the vault after a month of churn, default retention"
VAULT, NEED, OFFERED = (
    "the vault, after the day's keeper run",
    "a fresh vault of the points that the policy keeps",
    "a fresh vault of the points that are offered",
)
MOST = 1.3


def run(context: Context) -> Outcome:
    """One month; the same seed gives the same bytes, so that turns would tell nothing new."""
    scale, gathered = context.scale, Gathered()
    context.say(f"a month of {scale.churn} commits")
    folder = context.folder("churn")
    ended = trio.run(live_a_month, folder, scale.churned, scale.churn, scale.month)
    shutil.rmtree(folder)
    gathered.wrong += [f"churn: {what}" for what in (*ended.problems, *ended.wrong)]
    if not gathered.wrong:
        _add(gathered, ended)
    entries = gathered.entries()
    held, need, offered = (
        entry.median("stored") if (entry := find(entries, name)) else None
        for name in (VAULT, NEED, OFFERED)
    )
    return Outcome(
        scenario="churn",
        title=TITLE,
        entries=entries,
        goals=(
            Goal(
                "bytes, of what the points that are offered need", ratio(held, offered), MOST, False
            ),
            Goal("bytes, of what the policy's points need", ratio(held, need), MOST, False),
        ),
        notes=(
            f"{scale.churn} commits in {scale.month} virtual days, disk {scale.churned >> 20} MiB",
            "four fifths of the writes lie in a tenth of the disk",
            "'keeper run' once a day, with a grace of 24 h: what was let go in it is still there",
            f"shipped: {ended.shipped / MIB:.0f} MiB; most ever held: {ended.most / MIB:.0f} MiB",
            "fresh vault: the same points, one commit each, checkpoints when they are due",
            f"{ended.compared} retained points were read whole and compared",
        ),
        reference=VAULT,
        wrong=tuple(gathered.wrong),
        columns=(("points", "points"),),
    )


def _add(gathered: Gathered, ended: Ended) -> None:
    for name, size, points in (
        (VAULT, ended.held, ended.offered_points),
        (OFFERED, ended.offered, ended.offered_points),
        (NEED, ended.needed, ended.policy_points),
    ):
        gathered.add(name, Sample(seconds=0.0, stored=size, figures={"points": points}))
