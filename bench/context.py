"""What a scenario has at hand, and how it gathers samples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec

from bench import images, inputs
from bench.measure import Command, CommandFailed, Run, checked
from bench.results import MIB, Entry, Sample
from bench.subjects import Copy, Subject, json_of, python_command

P = ParamSpec("P")

MEMORY_GOAL = 300.0  # MiB, of a whole process tree


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the inputs are. ``content`` bytes of files in the image; the rest of the vaults.

    ``disk``, ``written`` bytes and ``commits`` of the vault whose first read is timed; ``huge``
    and ``mapped`` bytes of the one that is measured for memory.

    For disks that are written to: ``live`` bytes; ``burst``, ``sustained``, ``paced`` and ``away``
    seconds of writing; ``journal`` bytes that may wait to be shipped. ``machines`` of one daemon,
    and ``idle`` seconds of looking at them. ``sizes``: bytes of images that are set side by side.
    ``loads``: how many kinds of sustained writing, each of which has a daemon of its own.

    ``few``: only a few of the loads that a scenario has, one of each kind.

    For retention: ``chain`` commits of the vault whose plan is timed, of a disk of ``chained``
    bytes; ``churn`` commits in ``month`` days, of a disk of ``churned`` bytes.
    """

    content: int = 1300 << 20
    disk: int = 100 << 30
    written: int = 10 << 30
    commits: int = 2000
    huge: int = 1 << 40
    mapped: int = 100 << 30
    live: int = 1 << 30
    burst: float = 5.0
    sustained: float = 60.0
    paced: float = 60.0
    away: float = 600.0
    journal: int = 8 << 30
    machines: tuple[int, ...] = (1, 10, 100, 500)
    idle: float = 60.0
    loads: int = 4
    few: bool = False
    sizes: tuple[int, ...] = (1 << 30, 2 << 30, 4 << 30, 8 << 30)
    chain: int = 100_000
    chained: int = 256 << 20
    churn: int = 2880
    month: int = 30
    churned: int = 32 << 20

    def with_content(self, content: int) -> Scale:
        """The same with another size of the image."""
        return replace(self, content=content)

    def with_away(self, seconds: float) -> Scale:
        """The same with another time without a vault."""
        return replace(self, away=seconds)


QUICK = Scale(
    content=24 << 20,
    disk=2 << 30,
    written=128 << 20,
    commits=60,
    huge=16 << 30,
    mapped=1 << 30,
    live=16 << 20,
    burst=0.3,
    sustained=1.0,
    paced=2.0,
    away=1.0,
    journal=256 << 20,
    machines=(4,),
    idle=1.0,
    loads=1,
    few=True,
    sizes=(8 << 20, 16 << 20),
    chain=400,
    chained=16 << 20,
    churn=80,
    month=7,
    churned=4 << 20,
)


@dataclass
class Context:
    """One run of the bench. ``work`` is removed at the end; ``cache`` keeps images."""

    work: Path
    cache: Path
    repeat: int
    subjects: tuple[Subject, ...]
    scale: Scale = field(default_factory=Scale)
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    sources: tuple[str, ...] = inputs.SOURCES
    input: str = "system"  # one of ``images.KINDS``
    say: Callable[[str], None] = lambda _: None
    _image: Path | None = None
    _copies: dict[str, Copy] = field(default_factory=dict)

    def image(self) -> Path:
        """The disk image, made when first asked for."""
        if self._image is None:
            self.say(f"making the disk image ({self.input})")
            self.cache.mkdir(parents=True, exist_ok=True)
            self._image = images.made(
                self.input, self.cache.resolve(), self.scale.content, self.sources
            )
        return self._image

    def folder(self, name: str) -> Path:
        """A new empty folder below ``work``."""
        path = self.work / "".join(letter if letter.isalnum() else "-" for letter in name)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path.resolve()

    def opened(self, subject: Subject) -> Copy:
        """An empty copy of the image, in place of the one that was kept. Raises
        ``CommandFailed``."""
        self._copies.pop(subject.name, None)
        return subject.open(self.folder(f"kept {subject.name}"), self.image())

    def keep(self, subject: Subject, copy: Copy) -> None:
        """A copy from ``opened`` that is right: scenarios that only read one have it then."""
        self._copies[subject.name] = copy

    def kept(self, subject: Subject) -> Copy:
        """A copy of the image to read from, which nobody changes; made when first asked for. Raises
        ``CommandFailed``."""
        name = subject.name
        if name not in self._copies:
            self.say(f"first run: {name}")
            copy = self.opened(subject)
            checked(copy.backup(), copy.folder)
            self.keep(subject, copy)
        return self._copies[name]

    def present(self) -> list[Subject]:
        """The subjects that are installed."""
        return [subject for subject in self.subjects if not subject.missing()]

    def subject(self, name: str) -> Subject | None:
        """An installed subject."""
        return next((subject for subject in self.present() if subject.name == name), None)

    def absent(self) -> list[str]:
        """A note for each subject that is left out."""
        return [
            f"{subject.name} is left out: not installed: {missing}"
            for subject in self.subjects
            if (missing := subject.missing())
        ]

    def image_note(self) -> str:
        """What the image holds."""
        found = inputs.content_of(self.image())
        return (
            f"image ({self.input}): {found.size >> 20} MiB, {found.allocated >> 20} MiB allocated, "
            f"{found.nonzero >> 20} MiB in blocks that are not zero"
        )


class Gathered:
    """Samples by subject, in the order in which subjects first appeared; what went wrong."""

    def __init__(self) -> None:
        self._samples: dict[str, list[Sample]] = {}
        self.wrong: list[str] = []
        self.failed: dict[str, str] = {}

    def add(self, subject: str, sample: Sample) -> None:
        """One more sample."""
        self._samples.setdefault(subject, []).append(sample)

    def entries(self) -> tuple[Entry, ...]:
        """All that was gathered."""
        return tuple(Entry(name, tuple(samples)) for name, samples in self._samples.items())

    def failures(self) -> tuple[str, ...]:
        """One line for each subject that did not run."""
        return tuple(f"{name}: {reason}" for name, reason in self.failed.items())

    def attempt(
        self, subject: str, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Call ``work``; a subject whose command fails takes no further part."""
        if subject in self.failed:
            return
        try:
            work(*args, **kwargs)
        except CommandFailed as error:
            self.failed[subject] = str(error)

    def check(self, image: Path, found: Path, what: str) -> bool:
        """Hold a copy against the image; note it if it is wrong."""
        right = inputs.same(image, found)
        if not right:
            self.wrong.append(what)
        return right


def sample_of(
    run: Run,
    *,
    stored: int | None = None,
    figures: Mapping[str, float] | None = None,
    stages: Mapping[str, Mapping[str, float]] | None = None,
) -> Sample:
    """A run as a sample."""
    known = dict(figures or {})
    return Sample(
        seconds=run.seconds,
        durable=run.durable,
        inner=known.pop("inner", None),
        cpu=run.cpu,
        peak=run.peak,
        shared_out=run.shared_out or None,
        stored=stored,
        figures=known,
        stages=stages or {},
    )


def ceiling(context: Context, kind: str, image: Path, workers: int) -> Sample:
    """Run one ceiling over a warmed image; ``mib`` is MiB a second, where bytes are counted."""
    folder, how = context.folder("ceiling"), ("--workers", str(workers))
    command = python_command("bench.ceilings", kind, str(image), *how, cwd=folder)
    run = timed(command, folder, image)
    found = json_of(run.output)
    stored = found.get("stored")
    inner = float(found["seconds"])
    figures = {"inner": inner}
    if "bytes" in found:
        figures["mib"] = float(found["bytes"]) / MIB / max(inner, 1e-9)
    return sample_of(run, stored=stored if isinstance(stored, int) else None, figures=figures)


def timed(command: Command, folder: Path, *warmed: Path) -> Run:
    """Run a command that must succeed, what it reads being in the page cache."""
    inputs.warm(*warmed)
    return checked(command, folder)


def brought_back(context: Context, copy: Copy, gathered: Gathered, what: str) -> bool:
    """Restore a copy and compare it, outside of any timing."""
    target = context.folder("check")
    checked(copy.restore(target), copy.folder)
    right = gathered.check(copy.image, copy.restored(target), what)
    shutil.rmtree(target)
    return right
