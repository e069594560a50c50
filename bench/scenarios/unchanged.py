"""A second run over a disk that has not changed, beside plain processes that only hash it."""

from __future__ import annotations

from bench.capped import READ
from bench.context import (
    MEMORY_GOAL,
    Context,
    Gathered,
    brought_back,
    ceiling,
    sample_of,
    timed,
)
from bench.measure import checked
from bench.peers import Restic
from bench.results import Entry, Goal, Outcome, find, peak_of, ratio, speedup
from bench.scenarios.initial import fractions
from bench.subjects import BACKSTAY, Copy, Subject

TITLE = "second run over an unchanged disk"
PLAIN = "plain: one process a core, read + blake3 of 4 KiB"
SPEED = 0.8  # of the plain processes'
READING = 0.4  # of reading alone


def run(context: Context) -> Outcome:
    """Copies are made once; each turn: the plain processes, then every subject again."""
    gathered = Gathered()
    copies: dict[str, Copy] = {}
    for subject in _subjects(context):
        context.say(f"first run: {subject.name}")
        gathered.attempt(subject.name, _first, context, copies, subject)
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}")
        gathered.add(READ, ceiling(context, "read", context.image(), 1))
        gathered.add(PLAIN, ceiling(context, "hash-each", context.image(), context.workers))
        for name, copy in copies.items():
            gathered.attempt(name, _again, gathered, name, copy)
    for name, copy in copies.items():
        what = f"unchanged: the copy of {name}"
        gathered.attempt(name, brought_back, context, copy, gathered, what)
    entries = gathered.entries()
    mine, plain, read = (find(entries, name) for name in (BACKSTAY, PLAIN, READ))
    reading = ratio(read.median("inner") if read else None, mine.median("inner") if mine else None)
    return Outcome(
        scenario="unchanged",
        title=TITLE,
        entries=entries,
        goals=(
            Goal("speed, of plain hashing", speedup(entries, BACKSTAY, PLAIN), SPEED, True),
            Goal("speed, of reading alone, start-up of both left out", reading, READING, True),
            Goal("peak memory", peak_of(mine), MEMORY_GOAL, False, "MiB"),
        ),
        notes=(
            *_without_start(mine, plain),
            *fractions(entries, BACKSTAY),
            "page cache: the image was read before every run, of every subject",
            "stored: bytes added by the run",
            *context.absent(),
        ),
        reference=BACKSTAY,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        ceiling=PLAIN,
        peer=Restic.name,
    )


def _subjects(context: Context) -> list[Subject]:
    """Those that can tell that nothing has changed."""
    found = (context.subject(BACKSTAY), context.subject(Restic.name))
    return [subject for subject in found if subject]


def _first(context: Context, copies: dict[str, Copy], subject: Subject) -> None:
    copy = subject.open(context.folder(f"unchanged {subject.name}"), context.image())
    checked(copy.backup(), copy.folder)
    copies[subject.name] = copy


def _again(gathered: Gathered, name: str, copy: Copy) -> None:
    before = copy.stored()
    done = timed(copy.backup(), copy.folder, copy.image)
    figures, stages = copy.figures(done.output), copy.stages(done.output)
    added = copy.stored() - before
    gathered.add(name, sample_of(done, stored=added, figures=figures, stages=stages))


def _without_start(mine: Entry | None, plain: Entry | None) -> list[str]:
    found = ratio(plain.median("inner") if plain else None, mine.median("inner") if mine else None)
    return [] if found is None else [f"speed, of plain hashing, start-up left out: {found:.2f}"]
