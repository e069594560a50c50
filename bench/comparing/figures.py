"""Which figures are compared, which way is better, and what they are held against.

Machines and hours differ, so times of Backstay are divided by the peer's in the same turn of the
same run, or by the ceiling's where there is no peer; what is compared is how that changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Entry, Outcome, Sample
from bench.roles import RATE, Role, beside, role_of, turns


@dataclass(frozen=True, slots=True)
class Figure:
    """``timed``: it depends on how fast the machine is. ``more``: more of it is better."""

    name: str
    timed: bool
    more: bool = False


FIGURES = (
    Figure("seconds", timed=True),
    Figure("cpu", timed=True),
    Figure("peak", timed=False),
    Figure("stored", timed=False),
    Figure(RATE, timed=True, more=True),
    Figure("p99", timed=True),
    Figure("flush_p99", timed=True),
    Figure("age_p99", timed=True),
    Figure("replicating", timed=True),
    Figure("again_replicating", timed=True),
    Figure("faster", timed=True, more=True),
)


@dataclass(frozen=True, slots=True)
class Values:
    """Of one figure of one subject in one run, a value for each turn. ``raw`` as measured;
    ``held`` divided by those of ``against``, or the same as ``raw`` without it."""

    raw: tuple[float, ...]
    held: tuple[float, ...]
    against: str = ""


def of(sample: Sample, name: str) -> float | None:
    """A field or figure that is more than nothing; seconds of a fixed time are no measurement."""
    if name == "seconds" and RATE in sample.figures:
        return None
    found = sample.figures.get(name, getattr(sample, name, None))
    return float(found) if isinstance(found, int | float) and found > 0 else None


def values(entry: Entry, figure: Figure) -> list[float]:
    """One for each turn that has it."""
    return [found for sample in entry.samples if (found := of(sample, figure.name)) is not None]


def pair(old: Outcome, new: Outcome, subject: str, figure: Figure) -> tuple[Values, Values] | None:
    """The figure in both runs, held against the same subject in both; None if one lacks it."""
    entries = old.entry(subject), new.entry(subject)
    if entries[0] is None or entries[1] is None:
        return None
    before, after = values(entries[0], figure), values(entries[1], figure)
    if not before or not after:
        return None
    if figure.timed and role_of(new, subject) is Role.OURS:
        for against in _common(old, new):
            theirs = [_of_other(outcome, subject, against, figure) for outcome in (old, new)]
            if all(theirs):
                return (
                    Values(tuple(before), tuple(turns(before, theirs[0])), against),
                    Values(tuple(after), tuple(turns(after, theirs[1])), against),
                )
    return _plain(before), _plain(after)


def _common(old: Outcome, new: Outcome) -> list[str]:
    """The peer, then the ceiling, where both runs have the same."""
    both = ((old.peer, new.peer), (old.ceiling, new.ceiling))
    return [name for name, other in both if name and name == other]


def _plain(found: Sequence[float]) -> Values:
    return Values(tuple(found), tuple(found))


def _of_other(outcome: Outcome, subject: str, against: str, figure: Figure) -> list[float]:
    entry = beside(outcome, subject, against)
    return values(entry, figure) if entry else []
