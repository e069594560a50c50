"""What was measured: samples of subjects, goals held against them, outcomes of scenarios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one subject.

    ``seconds``: the whole process, start-up included. ``durable``: until its output had reached
    the disk. ``inner``: the part that it reports itself, start-up left out. ``cpu``: seconds of
    all its processes. ``peak``: bytes resident, summed over its processes; ``shared_out``: with
    pages that they share divided among them. ``stored``: bytes it keeps. ``figures``: what only
    some subjects have, by name.

    ``series``: what changed while it ran, by name: (seconds since its start, value) in ascending
    order of seconds; a name ends in its unit (``rate MiB/s``). ``stages``: how each stage spent its
    time, by the stage's name: ``busy``, ``wait_in`` (for something to do) and ``wait_out`` (for
    whom it hands on to) as shares of the run's time, of one worker, 0 to 1.
    """

    seconds: float
    durable: float | None = None
    inner: float | None = None
    cpu: float | None = None
    peak: int | None = None
    shared_out: int | None = None
    stored: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some values."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Entry:
    """All samples of one subject in one scenario."""

    subject: str
    samples: tuple[Sample, ...]

    def spread(self, name: str) -> Spread | None:
        """Of a field or a figure of the samples; None if no sample has it."""
        values = [value for sample in self.samples if (value := _value(sample, name)) is not None]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values))

    def median(self, name: str) -> float | None:
        """The median of a field or figure, or None."""
        found = self.spread(name)
        return found.median if found else None


def _value(sample: Sample, name: str) -> float | None:
    if name in sample.figures:
        return sample.figures[name]
    value = getattr(sample, name, None)
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and what it should be. ``measured`` None: one of its parts was not there."""

    text: str
    measured: float | None
    target: float
    at_least: bool
    unit: str = ""

    @property
    def verdict(self) -> str:
        """``reached``, ``short`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        good = self.measured >= self.target if self.at_least else self.measured <= self.target
        return "reached" if good else "short"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one scenario gave. ``reference`` names the subject that the others are compared with.

    ``columns``: figures to show, by name, and their headings. ``wrong``: copies that were not what
    they should be; ``failed``: subjects that did not run. ``ceiling`` and ``peer`` name the subject
    that shows what the machine can do at most, and the program that Backstay is held against; in a
    scenario of several loads the part after ``LOAD: ``. ``axis``: the figure that says how large
    the input was, and what to call it.
    """

    scenario: str
    title: str
    entries: tuple[Entry, ...]
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()
    reference: str = ""
    wrong: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    ceiling: str = ""
    peer: str = ""
    axis: tuple[str, str] | None = None

    def entry(self, subject: str) -> Entry | None:
        """The entry of a subject."""
        return find(self.entries, subject)


def find(entries: Sequence[Entry], subject: str) -> Entry | None:
    """The entry of a subject, if it took part."""
    return next((entry for entry in entries if entry.subject == subject), None)


def ratio(above: float | None, below: float | None) -> float | None:
    """``above / below``, or None where one of them is missing."""
    return None if above is None or not below else above / below


def speedup(entries: Sequence[Entry], subject: str, other: str) -> float | None:
    """How many times faster ``subject`` is than ``other``, by medians of the whole process."""
    mine, theirs = find(entries, subject), find(entries, other)
    if mine is None or theirs is None:
        return None
    return ratio(theirs.median("seconds"), mine.median("seconds"))


def peak_of(entry: Entry | None) -> float | None:
    """Greatest peak of all samples, in MiB."""
    found = entry.spread("peak") if entry else None
    return found.high / MIB if found else None
