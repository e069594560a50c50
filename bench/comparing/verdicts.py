"""What changed between two runs: medians, difference and a verdict for each figure.

A verdict needs both: the exact rank-sum test (``bench.comparing.ranks``) must find the turns of the
runs further apart than ``alpha`` allows for noise, and the medians must differ by more than
``LEAST``, because a size that is the same in each turn differs for certain but not by anything that
matters. With fewer turns than the test can ever tell, it says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bench.comparing.figures import FIGURES, Figure, Values, pair
from bench.comparing.ranks import least_p, p_value
from bench.record import Result
from bench.results import Outcome
from bench.roles import Role, role_of

ALPHA = 0.01
LEAST = 0.01  # of the median


class Verdict(StrEnum):
    """What can be said of a difference; ``FASTER`` and ``LESS`` are of the new run."""

    FASTER = "faster"
    SLOWER = "slower"
    LESS = "less"
    MORE = "more"
    SAME = "no difference told"
    FEW = "not enough runs to tell"
    MACHINES = "machines differ, no peer"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. ``old`` and ``new`` are medians as measured; ``change`` is new over old, both
    divided by those of ``against`` if it is named; ``p`` of the test."""

    scenario: str
    subject: str
    figure: str
    role: Role
    old: float
    new: float
    turns: tuple[int, int]
    against: str
    change: float
    p: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """``only_old`` and ``only_new``: ``SCENARIO`` or ``SCENARIO: SUBJECT`` of one run alone."""

    lines: tuple[Line, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    alpha: float

    @property
    def slower(self) -> tuple[Line, ...]:
        """Where Backstay itself became slower."""
        return tuple(
            line for line in self.lines if line.role is Role.OURS and line.verdict is Verdict.SLOWER
        )

    @property
    def tested(self) -> int:
        """Figures that a verdict was possible for: at most ``alpha`` of them are told by chance."""
        undecided = (Verdict.FEW, Verdict.MACHINES)
        return sum(line.verdict not in undecided for line in self.lines)


def compare(old: Result, new: Result, alpha: float = ALPHA) -> Comparison:
    """All figures that both runs have; ``alpha`` is for each of them."""
    same = old.machine.same_kind(new.machine)
    lines = tuple(
        line
        for outcome in new.scenarios
        if (before := old.scenario(outcome.scenario)) is not None
        for line in _lines(before, outcome, alpha, same)
    )
    mine, theirs = _names(old), _names(new)
    return Comparison(
        lines,
        tuple(name for name in mine if name not in theirs),
        tuple(name for name in theirs if name not in mine),
        alpha,
    )


def verdict_of(old: Values, new: Values, figure: Figure, alpha: float) -> tuple[float, Verdict]:
    """p, and what it means; the verdict of old against new is the opposite one."""
    p = p_value(old.held, new.held)
    if least_p(len(old.held), len(new.held)) > alpha:
        return p, Verdict.FEW
    distance = math.log(change_of(old, new))
    if p > alpha or abs(distance) <= math.log1p(LEAST):
        return p, Verdict.SAME
    if not figure.timed:
        return p, Verdict.MORE if distance > 0 else Verdict.LESS
    return p, Verdict.FASTER if (distance > 0) == figure.more else Verdict.SLOWER


def change_of(old: Values, new: Values) -> float:
    """The new median over the old."""
    return statistics.median(new.held) / statistics.median(old.held)


def _lines(old: Outcome, new: Outcome, alpha: float, same: bool) -> Iterator[Line]:
    for entry in new.entries:
        for figure in FIGURES:
            found = pair(old, new, entry.subject, figure)
            if found is None:
                continue
            before, after = found
            p, verdict = verdict_of(before, after, figure, alpha)
            if figure.timed and not same and not after.against:
                verdict = Verdict.MACHINES
            yield Line(
                scenario=new.scenario,
                subject=entry.subject,
                figure=figure.name,
                role=role_of(new, entry.subject),
                old=statistics.median(before.raw),
                new=statistics.median(after.raw),
                turns=(len(before.held), len(after.held)),
                against=after.against,
                change=change_of(before, after),
                p=p,
                verdict=verdict,
            )


def _names(result: Result) -> dict[str, None]:
    """Scenarios and their subjects, in order."""
    found: dict[str, None] = {}
    for outcome in result.scenarios:
        found[outcome.scenario] = None
        for entry in outcome.entries:
            found[f"{outcome.scenario}: {entry.subject}"] = None
    return found
