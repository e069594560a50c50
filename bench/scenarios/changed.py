"""A run after random changes to a hundredth of the blocks: how much is sent for them."""

from __future__ import annotations

from pathlib import Path

from bench import inputs
from bench.context import MEMORY_GOAL, Context, Gathered, brought_back, sample_of, timed
from bench.measure import checked
from bench.peers import Restic
from bench.results import Goal, Outcome, find, peak_of
from bench.subjects import BACKSTAY, Copy, Subject
from stages.model import BLOCK

TITLE = "run after random changes to 1% of the blocks"
SHARE = 0.01
SENT = 1.1  # bytes of blocks sent, of bytes of blocks changed


def run(context: Context) -> Outcome:
    """One private image; each turn changes it, then every subject runs and is checked."""
    gathered = Gathered()
    image = inputs.clone(context.image(), context.folder("changing") / "disk.img")
    copies: dict[str, Copy] = {}
    for name in (BACKSTAY, Restic.name):
        subject = context.subject(name)
        if subject is not None:
            context.say(f"first run: {name}")
            gathered.attempt(name, _first, context, copies, subject, image)
    for turn in range(context.repeat):
        context.say(f"turn {turn + 1}")
        changed = inputs.change(image, SHARE, seed=turn + 1) * BLOCK
        for name, copy in copies.items():
            gathered.attempt(name, _one, context, gathered, name, copy, changed)
    mine = find(gathered.entries(), BACKSTAY)
    sent = mine.median("sent per changed") if mine else None
    return Outcome(
        scenario="changed",
        title=TITLE,
        entries=gathered.entries(),
        goals=(
            Goal("bytes of blocks sent, of bytes changed", sent, SENT, False),
            Goal("peak memory", peak_of(mine), MEMORY_GOAL, False, "MiB"),
        ),
        notes=(
            "changed blocks hold random bytes, which do not compress; chosen anew each turn",
            "stored: bytes added by the run, indexes and all",
            "page cache: the image was read before every run, of every subject",
            "every state was restored and compared byte for byte, outside the timing",
            *context.absent(),
        ),
        reference=BACKSTAY,
        wrong=tuple(gathered.wrong),
        failed=gathered.failures(),
        peer=Restic.name,
        columns=(("sent per changed", "sent/changed"), ("stored per changed", "stored/changed")),
    )


def _first(context: Context, copies: dict[str, Copy], subject: Subject, image: Path) -> None:
    copy = subject.open(context.folder(f"changed {subject.name}"), image)
    checked(copy.backup(), copy.folder)
    copies[subject.name] = copy


def _one(context: Context, gathered: Gathered, name: str, copy: Copy, changed: int) -> None:
    before = copy.stored()
    done = timed(copy.backup(), copy.folder, copy.image)
    added = copy.stored() - before
    figures = {**copy.figures(done.output), "stored per changed": added / changed}
    if "sent" in figures:
        figures["sent per changed"] = figures["sent"] / changed
    if brought_back(context, copy, gathered, f"changed: the copy of {name}"):
        stages = copy.stages(done.output)
        gathered.add(name, sample_of(done, stored=added, figures=figures, stages=stages))
