"""Whether two groups of values differ by more than the noise: the exact rank-sum test.

The test of Mann and Whitney ("On a Test of Whether one of Two Random Variables is Stochastically
Larger than the Other", Annals of Mathematical Statistics 18, 1947): all values are ranked together,
equal ones sharing their ranks; the sum of one group's ranks is held against the sums that all other
ways to choose as many of the ranks would give. All those ways are counted, not approximated, so for
values of one source p is at most alpha in at most alpha of the cases, for few values too, and with
ties. It asks nothing of how the noise is distributed, and one wild turn weighs no more than a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

MOST = 40  # values of a group that are looked at: the sums to count grow with the cube


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """The share of all groupings that set the groups at least as far apart; 1 of nothing."""
    one, other = one[:MOST], other[:MOST]
    if not one or not other:
        return 1.0
    ranks = doubled_ranks([*one, *other])
    observed = sum(ranks[: len(one)])
    ways = _ways(ranks, len(one))
    # of doubled ranks the mean of the sum is a whole number: n * (N + 1)
    middle = len(one) * (len(ranks) + 1)
    far = np.abs(np.arange(len(ways)) - middle) >= abs(observed - middle)
    return min(1.0, float(ways[far].sum() / ways.sum()))


def least_p(one: int, other: int) -> float:
    """What groups of so many values can reach at best."""
    return min(1.0, 2.0 / comb(min(one, MOST) + min(other, MOST), min(one, MOST)))


def turns_needed(alpha: float) -> int:
    """The least size of two equal groups with which anything can be told."""
    size = 1
    while least_p(size, size) > alpha and size < MOST:
        size += 1
    return size


def doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, from 2; equal values have the mean of their ranks, so twice."""
    ordered = sorted(values)
    first: dict[float, int] = {}
    last: dict[float, int] = {}
    for at, value in enumerate(ordered, 1):
        first.setdefault(value, at)
        last[value] = at
    return [first[value] + last[value] for value in values]


def _ways(ranks: Sequence[int], size: int) -> np.ndarray:
    """How many choices of ``size`` of the ranks have each sum: (greatest sum + 1,)."""
    total = sum(ranks)
    counts = np.zeros((size + 1, total + 1))
    counts[0, 0] = 1.0
    for rank in ranks:
        counts[1:, rank:] += counts[:-1, : total + 1 - rank].copy()
    found: np.ndarray = counts[size]
    return found
