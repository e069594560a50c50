"""Is it faster, or is that noise? Paired runs and exact tests. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import product

import numpy as np

MAX_PAIRS = 14  # all signs of so many are tried: 16384
_RESAMPLES = 2000


def chance(ratios: Sequence[float]) -> float:
    """How likely ratios this far above 1 are if both runs of each pair are alike in truth.

    Exact: if they are alike, each logarithm could as well have the other sign; this is the share of
    all choices of signs whose sum is at least the one seen. Nothing is assumed of how the noise is
    distributed. Never below 0.5 to the power of the number of pairs; 1 without pairs.
    """
    if len(ratios) > MAX_PAIRS:
        raise ValueError(f"at most {MAX_PAIRS} pairs")
    logs = np.log(np.asarray(ratios, float))
    signs = np.array(list(product((1.0, -1.0), repeat=len(ratios))))
    sums = signs @ logs if len(ratios) else np.zeros(1)
    return float(np.mean(sums >= logs.sum() - 1e-12))


def fewest(alpha: float) -> int:
    """Pairs without which no result can be below ``alpha``."""
    return max(1, math.ceil(-math.log2(alpha)))


def gain(ratios: Sequence[float]) -> float:
    """The median of the ratios."""
    return statistics.median(ratios)


def interval(ratios: Sequence[float], sure: float = 0.9) -> tuple[float, float]:
    """Where the median of the ratios lies, ``sure`` of the time: by resampling, from a fixed seed.

    With few pairs it is narrow rather than wide: go by ``chance``.
    """
    found = np.asarray(ratios, float)
    dice = np.random.default_rng(len(found))
    drawn = np.median(dice.choice(found, (_RESAMPLES, len(found))), axis=1)
    low, high = np.quantile(drawn, ((1 - sure) / 2, (1 + sure) / 2))
    return float(low), float(high)
