"""Lives of a daemon in scenarios: a disk made, served, written to; at the end the newest point in
the vault is held against the disk, and what was measured counts only if they are the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.context import Context, Gathered
from bench.live import Daemon, LiveBackstay
from bench.load import make_disk
from bench.results import MIB, Entry, Goal, Outcome, Sample
from bench.subjects import BACKSTAY
from bench.watching import Memory, Peak

INTAKE_GOAL, DELIVERY_GOAL = 150.0, 300.0  # MiB


@dataclass
class Life:
    """``samples`` of this life by subject: they count if the point at its end is right."""

    folder: Path
    disk: Path
    daemon: Daemon
    samples: list[tuple[str, Sample]] = field(default_factory=list)
    right: bool = False


@contextmanager
def lived(
    context: Context,
    ours: LiveBackstay,
    scenario: str,
    gathered: Gathered,
    peaks: dict[str, Peak],
    seed: int = 0,
    seal: str = "1s",
) -> Iterator[Life]:
    """A life whose memory is watched; ``seal``: its ``seal_after``. Raises ``CommandFailed``."""
    folder = context.folder(scenario)
    context.say("a disk, and a daemon that serves it")
    disk = make_disk(folder / "disk", context.scale.live, seed)
    cache = {"seal_after": seal, "journal_limit": context.scale.journal}
    with ours.serve(folder, disk, {"cache": cache}) as daemon:
        life = Life(folder, disk, daemon)
        with Memory(daemon, peaks):
            yield life
            context.say("shipping the rest, ending, comparing")
            daemon.settle()
        daemon.end()
        back = daemon.restored(context.folder("back"))
    life.right = gathered.check(disk, back, f"{scenario}: what {BACKSTAY} brought back")
    if life.right:
        for subject, sample in life.samples:
            gathered.add(subject, sample)
    shutil.rmtree(folder)


def left_out(scenario: str, title: str, lacking: str) -> Outcome:
    """Where a live scenario cannot run."""
    return Outcome(scenario, title, (), notes=(f"left out: not installed: {lacking}",))


def memory_entries(peaks: dict[str, Peak]) -> tuple[Entry, ...]:
    """A line for each process."""
    return tuple(
        Entry(
            f"memory of {name}",
            (Sample(0.0, peak=peak.resident, shared_out=peak.shared_out or None),),
        )
        for name, peak in peaks.items()
    )


def memory_goals(peaks: dict[str, Peak]) -> tuple[Goal, ...]:
    """Resident, children included."""
    return tuple(
        Goal(
            f"peak memory of {name}",
            peaks[name].resident / MIB if name in peaks else None,
            goal,
            False,
            "MiB",
        )
        for name, goal in (("intake", INTAKE_GOAL), ("delivery", DELIVERY_GOAL))
    )
