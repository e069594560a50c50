"""What initial replication costs by the size of the image: it should grow with it, and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.context import Context, Gathered, brought_back, sample_of, timed
from bench.load import make_disk
from bench.peers import Restic
from bench.results import MIB, Goal, Outcome, find, ratio
from bench.roles import SEPARATOR
from bench.subjects import BACKSTAY, Subject

TITLE = "cost of initial replication by image size"
AXIS = "mib"
LINEAR = 1.15  # times as dear for each byte as at the smallest size
FLAT = 1.25  # times the memory at the smallest size
_ROOM = 3.5  # times the image: itself, a copy, what is brought back, and some to spare


def run(context: Context) -> Outcome:
    """Sizes from small to large; each turn of each is brought back and compared."""
    gathered, skipped = Gathered(), []
    names = (BACKSTAY,) if context.scale.few else (BACKSTAY, Restic.name)
    subjects = [one for name in names if (one := context.subject(name))]
    sizes = sorted(context.scale.sizes)
    for size in sizes:
        folder = context.folder("sizes")
        free = shutil.disk_usage(folder).free
        if free < size * _ROOM:
            skipped.append(f"{size >> 20} MiB is left out: {free >> 20} MiB free on the disk")
            continue
        image = make_disk(folder / "disk.img", size, seed=1)
        for turn in range(context.repeat):
            for subject in subjects:
                context.say(f"{size >> 20} MiB, turn {turn + 1}: {subject.name}")
                gathered.attempt(subject.name, _one, context, gathered, subject, image)
        shutil.rmtree(folder)
    return Outcome(
        scenario="sizes",
        title=TITLE,
        entries=gathered.entries(),
        goals=_goals(gathered, sizes),
        notes=(
            "images without holes, no block twice, half compressible",
            "page cache: the image was read before every run, of every subject",
            "every copy was restored and compared byte for byte, outside the timing",
            *skipped,
            *context.absent(),
        ),
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        peer=Restic.name,
        axis=(AXIS, "MiB of image"),
    )


def _name(size: int, subject: str) -> str:
    return f"{size >> 20} MiB{SEPARATOR}{subject}"


def _goals(gathered: Gathered, sizes: list[int]) -> tuple[Goal, ...]:
    """The largest size that was measured, held against the smallest; start-up left out."""
    entries = gathered.entries()
    mine = [(size, one) for size in sizes if (one := find(entries, _name(size, BACKSTAY)))]

    def grown(figure: str, by_byte: bool) -> float | None:
        if len(mine) < 2:
            return None
        (small, first), (large, last) = mine[0], mine[-1]
        times = ratio(last.median(figure), first.median(figure))
        return times if times is None or not by_byte else times * small / large

    return (
        Goal("time for each byte, largest of smallest image", grown("inner", True), LINEAR, False),
        Goal("peak memory, largest of smallest image", grown("peak", False), FLAT, False),
        Goal("stored for each byte, largest of smallest", grown("stored", True), LINEAR, False),
    )


def _one(context: Context, gathered: Gathered, subject: Subject, image: Path) -> None:
    size = image.stat().st_size
    copy = subject.open(context.folder("copy"), image)
    done = timed(copy.backup(), copy.folder, image)
    figures = {**copy.figures(done.output), AXIS: size / MIB}
    stages = copy.stages(done.output)
    sample = sample_of(done, stored=copy.stored(), figures=figures, stages=stages)
    name = _name(size, subject.name)
    if brought_back(context, copy, gathered, f"sizes: the copy of {name}"):
        gathered.add(name, sample)
    shutil.rmtree(copy.folder)
