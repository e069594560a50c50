"""Initial replication of a disk image, beside other programs and beside the machine's ceilings."""

from __future__ import annotations

from collections.abc import Sequence

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
from bench.peers import Restic
from bench.results import Entry, Goal, Outcome, find, peak_of, ratio, speedup
from bench.subjects import BACKSTAY, Subject

TITLE = "initial replication of a disk image"
FRAMES = "ceiling: zstd 1, 256 KiB frames, {} threads"
AEAD = "ceiling: AEGIS-256, 256 KiB frames, {} threads"
WRITE = "ceiling: read + write + fsync"
SPEED = 3.5  # times restic
SHARE = 0.75  # of the speed of zstd alone
SIZE = 1.05  # of restic's repository


def run(context: Context) -> Outcome:
    """Each turn: every ceiling and every subject once, each copy brought back and compared."""
    gathered = Gathered()
    for turn in range(context.repeat):
        for name, kind, workers in ceilings(context):
            context.say(f"turn {turn + 1}: {name}")
            gathered.add(name, ceiling(context, kind, context.image(), workers))
        for subject in context.present():
            context.say(f"turn {turn + 1}: {subject.name}")
            gathered.attempt(subject.name, _one, context, gathered, subject)
    entries = gathered.entries()
    mine, restic = find(entries, BACKSTAY), find(entries, Restic.name)
    frames = find(entries, FRAMES.format(context.workers))
    speed = speedup(entries, BACKSTAY, Restic.name)
    share = _over(frames, mine, "inner")
    against, beside = (_over(mine, other, "stored") for other in (frames, restic))
    return Outcome(
        scenario="initial",
        title=TITLE,
        entries=entries,
        goals=(
            Goal("speed, times restic backup", speed, SPEED, True),
            Goal("speed, of zstd alone, start-up of both left out", share, SHARE, True),
            Goal("stored bytes, of zstd 1 in 256 KiB frames", against, 1.0, False),
            Goal("stored bytes, of restic's repository", beside, SIZE, False),
            Goal("peak memory", peak_of(mine), MEMORY_GOAL, False, "MiB"),
        ),
        notes=(
            context.image_note(),
            "page cache: the image was read before every run, of every subject",
            "every copy was restored and compared byte for byte, outside the timing",
            *fractions(entries, BACKSTAY),
            *context.absent(),
        ),
        reference=BACKSTAY,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        ceiling=FRAMES.format(context.workers),
        peer=Restic.name,
    )


def _over(above: Entry | None, below: Entry | None, figure: str) -> float | None:
    """The ratio of two medians."""
    if above is None or below is None:
        return None
    return ratio(above.median(figure), below.median(figure))


def ceilings(context: Context) -> list[tuple[str, str, int]]:
    """Name, kind and workers."""
    return [
        (READ, "read", 1),
        ("ceiling: read + blake3 of 4 KiB, 1 process", "hash", 1),
        (AEAD.format(context.workers), "aead", context.workers),
        (WRITE, "write", 1),
        (FRAMES.format(context.workers), "frames", context.workers),
    ]


def fractions(entries: Sequence[Entry], subject: str) -> list[str]:
    """Which part of each ceiling the subject reaches, start-up left out on both sides."""
    mine = find(entries, subject)
    inner = mine.median("inner") if mine else None
    found = [
        (entry.subject, ratio(entry.median("inner"), inner))
        for entry in entries
        if entry.subject.startswith("ceiling: ")
    ]
    return [f"{share:.2f} of {name}" for name, share in found if share is not None]


def _one(context: Context, gathered: Gathered, subject: Subject) -> None:
    copy = context.opened(subject)
    done = timed(copy.backup(), copy.folder, copy.image)
    sample = sample_of(
        done,
        stored=copy.stored(),
        figures=copy.figures(done.output),
        stages=copy.stages(done.output),
    )
    if brought_back(context, copy, gathered, f"initial: the copy of {subject.name}"):
        gathered.add(subject.name, sample)
        context.keep(subject, copy)  # the last turn's is read by other scenarios
