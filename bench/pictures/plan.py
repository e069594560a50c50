"""What to draw of an outcome: pure, without a drawing library.

Which charts there are follows from the figures alone: speeds beside the peer where there are two
subjects, series where samples carry them, shares of stages, and costs where inputs had sizes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from bench.results import MIB, Entry, Outcome, Sample, Spread
from bench.roles import (
    SEPARATOR,
    TURNS,
    Role,
    beside,
    parts,
    role_of,
    shares,
    speeds,
    turns,
)

MOST_BARS = 24
MOST_PANELS = 12
MOST_LINES = 6
MOST_STACKS = 4  # pictures of stages: the tables tell of the rest
AGE = "age"  # series that begin so are drawn as a distribution too
_WAITS = ("busy", "wait_in", "wait_out")
_COSTS: tuple[tuple[str, Callable[[Sample], float | None]], ...] = (
    ("seconds", lambda sample: sample.seconds),
    ("CPU seconds", lambda sample: sample.cpu),
    ("peak MiB", lambda sample: None if sample.peak is None else sample.peak / MIB),
    ("stored MiB", lambda sample: None if sample.stored is None else sample.stored / MIB),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """``role``: ours stands out. ``value`` on a scale where 1 is the one compared with."""

    label: str
    value: Spread
    role: Role


@dataclass(frozen=True, slots=True)
class Bars:
    """Ratios, 1 in the middle, on a scale of powers of two."""

    name: str
    title: str
    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Shares of the time of one stage."""

    label: str
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Stacks:
    """Stages, one below the other."""

    name: str
    title: str
    stacks: tuple[Stack, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Points (x, y), x ascending; ``turns``: how far y went up and down, if known."""

    label: str
    points: tuple[tuple[float, float], ...]
    turns: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over one pair of axes."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Panels:
    """``steps``: a distribution; ``marks``: points are shown, the axes begin at 0."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    steps: bool = False
    marks: bool = False


Chart = Bars | Stacks | Panels


def charts(outcome: Outcome) -> list[Chart]:
    """In the order in which a report shows them."""
    found = [_ratios(outcome), *_stages(outcome), _costs(outcome)]
    return [chart for chart in (*found, *_series(outcome)) if chart]


def _ratios(outcome: Outcome) -> Bars | None:
    """Speeds by turns, beside the peer's or else the reference's in the same turn."""
    other = outcome.peer or outcome.reference
    bars = [
        Bar(entry.subject, spread, role_of(outcome, entry.subject))
        for entry in outcome.entries
        if (spread := _beside(outcome, entry, other))
    ]
    if len(bars) < 2 and not any(SEPARATOR in bar.label for bar in bars):
        return None
    title = f"speed beside {other}: {outcome.title}"
    return Bars("ratios", title, f"times the speed of {other}", tuple(bars[:MOST_BARS]))


def _beside(outcome: Outcome, entry: Entry, other: str) -> Spread | None:
    found = beside(outcome, entry.subject, other)
    if role_of(outcome, entry.subject) is Role.MEMORY or found is None:
        return None
    if _load_of_peer(entry, found):
        return None
    if entry.median(TURNS) is not None and role_of(outcome, entry.subject) is Role.OURS:
        return entry.spread(TURNS)
    return spread_of(turns(speeds(entry), speeds(found)))


def _load_of_peer(entry: Entry, found: Entry) -> bool:
    """The peer under each of several loads: a bar at 1 for every load says nothing."""
    return bool(parts(entry.subject)[0]) and entry.subject == found.subject


def spread_of(values: list[float]) -> Spread | None:
    """None of nothing."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def _stages(outcome: Outcome) -> Iterator[Stacks]:
    watched = (entry for entry in outcome.entries if shares(entry))
    for entry in islice(watched, MOST_STACKS):
        stacks = tuple(
            Stack(stage, tuple((kind, min(1.0, found[kind])) for kind in _WAITS if kind in found))
            for stage, found in shares(entry).items()
        )
        if stacks:
            name = f"stages-{_word(entry.subject)}"
            yield Stacks(name, f"what each stage did: {entry.subject}, {outcome.title}", stacks)


def _costs(outcome: Outcome) -> Panels | None:
    if outcome.axis is None:
        return None
    axis, label = outcome.axis
    panels = []
    for cost, value in _COSTS:
        lines = tuple(_cost_lines(outcome.entries, axis, value))
        if any(len(line.points) > 1 for line in lines):
            panels.append(Panel(cost, label, cost, lines[:MOST_LINES]))
    title = f"cost against size: {outcome.title}"
    return Panels("cost", title, tuple(panels), marks=True) if panels else None


def _cost_lines(
    entries: Iterable[Entry], axis: str, value: Callable[[Sample], float | None]
) -> Iterator[Line]:
    """One for each subject, its load (which is the size) left out."""
    found: dict[str, list[tuple[float, Spread]]] = {}
    for entry in entries:
        at = entry.median(axis)
        costs = [cost for sample in entry.samples if (cost := value(sample)) is not None]
        if at is not None and (spread := spread_of(costs)):
            load, subject = parts(entry.subject)
            found.setdefault(subject if load else "", []).append((at, spread))
    for subject, points in found.items():
        points.sort(key=lambda point: point[0])
        yield Line(
            subject or "backstay",
            tuple((at, spread.median) for at, spread in points),
            tuple((spread.low, spread.high) for _, spread in points),
        )


def _series(outcome: Outcome) -> Iterator[Panels]:
    """Over time, one panel for each load; of the last turn. Ages of all turns as a distribution."""
    names = dict.fromkeys(
        name for entry in outcome.entries for sample in entry.samples for name in sample.series
    )
    for name in names:
        loads: dict[str, list[Line]] = {}
        for entry in outcome.entries:
            load, subject = parts(entry.subject)
            points = [sample.series[name] for sample in entry.samples if name in sample.series]
            if points:
                loads.setdefault(load, []).append(Line(subject, points[-1]))
        panels = tuple(
            Panel(load, "seconds", name, tuple(lines[:MOST_LINES])) for load, lines in loads.items()
        )[:MOST_PANELS]
        yield Panels(f"over-time-{_word(name)}", f"{name} over time: {outcome.title}", panels)
        if name.startswith(AGE):
            yield _distribution(outcome, name)


def _distribution(outcome: Outcome, name: str) -> Panels:
    """The share of looks at which the value was at most so much."""
    lines = []
    for entry in outcome.entries:
        values = sorted(
            value for sample in entry.samples for _, value in sample.series.get(name, ())
        )
        points = tuple((value, (at + 1) / len(values)) for at, value in enumerate(values))
        if points:
            lines.append(Line(entry.subject, points))
    panel = Panel("", name, "share of looks", tuple(lines[:MOST_LINES]))
    title = f"distribution of {name}: {outcome.title}"
    return Panels(f"distribution-{_word(name)}", title, (panel,), steps=True)


def _word(text: str) -> str:
    """For file names: letters and digits of ASCII, dashes between."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text)
    return "-".join(kept.lower().split()) or "x"
