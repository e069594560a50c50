"""Who is who in an outcome, and how an entry stands: beside the peer, below the ceiling, held back.

Subjects of scenarios with several loads are called ``LOAD: SUBJECT``; they stand beside the peer
and the ceiling under the same load.
"""

from __future__ import annotations

import statistics
from enum import StrEnum

from bench.results import Entry, Outcome, Sample, ratio
from bench.subjects import BACKSTAY

RATE = "rate"  # the figure of subjects that work for a fixed time
TURNS = "ratio"  # where a scenario itself holds each turn against the peer's in the same turn
SEPARATOR = ": "
_LIMITS = ("ceiling", "plain", "puts alone")
_MEMORY = "memory of "
_OTHERS = (
    "restic",
    "borg",
    "zstd",
    "qemu-img",
    "qemu-nbd",
    "nbdkit",
    "nbdcopy",
    "fio",
    "naive",
    "curl",
)


class Role(StrEnum):
    """What a subject is."""

    OURS = "ours"
    PEER = "peer"
    CEILING = "ceiling"
    MEMORY = "memory"


def parts(subject: str) -> tuple[str, str]:
    """The load, or nothing, and the subject itself; ceilings and ``backstay: WHERE TO`` are all
    name."""
    if subject.startswith((*_LIMITS, f"{BACKSTAY}{SEPARATOR}")):
        return "", subject
    load, _, name = subject.rpartition(SEPARATOR)
    return load, name


def role_of(outcome: Outcome, subject: str) -> Role:
    """By its name: other programs are known, and so are plain processes."""
    _, name = parts(subject)
    if subject.startswith(_MEMORY):
        return Role.MEMORY
    if name.startswith(_LIMITS) or (outcome.ceiling and name == outcome.ceiling):
        return Role.CEILING
    if name.startswith(_OTHERS) or (outcome.peer and name == outcome.peer):
        return Role.PEER
    return Role.OURS


def beside(outcome: Outcome, subject: str, other: str) -> Entry | None:
    """The entry of ``other`` that goes with ``subject``: under its load, if there is one."""
    if not other:
        return None
    load, _ = parts(subject)
    if not load:
        return outcome.entry(other)
    return outcome.entry(f"{load}{SEPARATOR}{other}") or outcome.entry(other)


def speed_of(sample: Sample) -> float | None:
    """A figure that doubles when the subject is twice as fast; of one kind within a scenario."""
    if RATE in sample.figures:
        return sample.figures[RATE]
    return 1.0 / sample.seconds if sample.seconds > 0 else None


def speeds(entry: Entry | None) -> list[float]:
    """One for each sample that has any."""
    samples = entry.samples if entry else ()
    return [found for sample in samples if (found := speed_of(sample))]


def turns(mine: list[float], theirs: list[float]) -> list[float]:
    """Ratios within each turn where all turns are there, else to the median."""
    if not mine or not theirs:
        return []
    if len(mine) == len(theirs):
        return [one / other for one, other in zip(mine, theirs, strict=True)]
    middle = statistics.median(theirs)
    return [one / middle for one in mine]


def speed_ratio(entry: Entry, other: Entry | None) -> float | None:
    """How many times as fast as ``other``, by medians; None beside itself or where both do not
    count the same thing."""
    if other is None or other.subject == entry.subject or _counts(entry) != _counts(other):
        return None
    mine, theirs = speeds(entry), speeds(other)
    if not mine or not theirs:
        return None
    return ratio(statistics.median(mine), statistics.median(theirs))


def _counts(entry: Entry) -> bool:
    return any(RATE in sample.figures for sample in entry.samples)


def to_peer(outcome: Outcome, entry: Entry) -> float | None:
    """How many times as fast as the peer."""
    if role_of(outcome, entry.subject) is Role.MEMORY:
        return None
    if role_of(outcome, entry.subject) is Role.OURS and (found := entry.median(TURNS)) is not None:
        return found
    return speed_ratio(entry, beside(outcome, entry.subject, outcome.peer))


def of_ceiling(outcome: Outcome, entry: Entry) -> float | None:
    """The share of the ceiling's speed that it reaches."""
    if role_of(outcome, entry.subject) in (Role.MEMORY, Role.CEILING):
        return None
    return speed_ratio(entry, beside(outcome, entry.subject, outcome.ceiling))


def shares(entry: Entry) -> dict[str, dict[str, float]]:
    """Medians over the samples, by stage and kind; stages in the order they first appear."""
    found: dict[str, dict[str, list[float]]] = {}
    for sample in entry.samples:
        for stage, kinds in sample.stages.items():
            for kind, share in kinds.items():
                found.setdefault(stage, {}).setdefault(kind, []).append(share)
    return {
        stage: {kind: statistics.median(values) for kind, values in kinds.items()}
        for stage, kinds in found.items()
    }


def held_back(entry: Entry) -> tuple[str, float] | None:
    """The busiest stage and its share of the time, or None where nobody looked."""
    busy = {stage: kinds["busy"] for stage, kinds in shares(entry).items() if "busy" in kinds}
    if not busy:
        return None
    stage = max(busy, key=busy.__getitem__)
    return stage, busy[stage]
