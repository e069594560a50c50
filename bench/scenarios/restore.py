"""Restore of a whole disk image; a copy counts only if it is right, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from bench.context import MEMORY_GOAL, Context, Gathered, ceiling, sample_of, timed
from bench.measure import Command
from bench.peers import Restic
from bench.results import Entry, Goal, Outcome, find, peak_of, ratio, speedup
from bench.scenarios.initial import WRITE, fractions
from bench.subjects import BACKSTAY, Copy, Subject

TITLE = "restore of a disk image"
PLAIN = "plain: cp --sparse=always"
SPEED = 3.0  # times restic


def run(context: Context) -> Outcome:
    """Copies are those of the initial replication, or made once; each turn restores all of them."""
    gathered = Gathered()
    copies: dict[str, Copy] = {}
    for subject in context.present():
        gathered.attempt(subject.name, _kept, context, copies, subject)
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}")
        _plain(context, gathered)
        gathered.add(WRITE, ceiling(context, "write", context.image(), 1))
        for name, copy in copies.items():
            gathered.attempt(name, _one, context, gathered, name, copy)
    entries = gathered.entries()
    return Outcome(
        scenario="restore",
        title=TITLE,
        entries=entries,
        goals=(
            Goal(
                "speed, times restic restore", speedup(entries, BACKSTAY, Restic.name), SPEED, True
            ),
            Goal("peak memory", peak_of(find(entries, BACKSTAY)), MEMORY_GOAL, False, "MiB"),
        ),
        notes=(
            context.image_note(),
            *fractions(entries, BACKSTAY),
            "page cache: the repository was read before every run, of every subject",
            "every restored image was compared byte for byte, outside the timing",
            "to disk: until what was written had been synced by the system",
            *_to_disk(entries),
            *context.absent(),
        ),
        reference=BACKSTAY,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        ceiling=PLAIN,
        peer=Restic.name,
    )


def _kept(context: Context, copies: dict[str, Copy], subject: Subject) -> None:
    copies[subject.name] = context.kept(subject)


def _one(context: Context, gathered: Gathered, name: str, copy: Copy) -> None:
    target = context.folder("target")
    done = timed(copy.restore(target), copy.folder, copy.repository)
    figures = copy.figures(done.output)
    if gathered.check(copy.image, copy.restored(target), f"restore: what {name} brought back"):
        gathered.add(name, sample_of(done, figures=figures))
    shutil.rmtree(target)


def _to_disk(entries: Sequence[Entry]) -> list[str]:
    mine, theirs = find(entries, BACKSTAY), find(entries, Restic.name)
    if mine is None or theirs is None:
        return []
    share = ratio(theirs.median("durable"), mine.median("durable"))
    return [] if share is None else [f"to disk: {share:.2f} times as fast as restic"]


def _plain(context: Context, gathered: Gathered) -> None:
    target, image = context.folder("target"), context.image()
    command = Command(("cp", "--sparse=always", "--", str(image), str(target / "image")))
    gathered.add(PLAIN, sample_of(timed(command, context.folder("plain"), image)))
    shutil.rmtree(target)
