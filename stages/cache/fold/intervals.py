"""Arithmetic on runs of blocks: pure, vectorised."""

from __future__ import annotations

import numpy as np

from stages.model import U64, Bools, Runs


def difference(these: Runs, without: Runs) -> Runs:
    """The blocks of ``these`` (may overlap) that are in none of ``without``: ascending, disjoint,
    maximal."""
    if not len(these.start):
        return Runs.none()
    ends, other_ends = these.start + these.count, without.start + without.count
    points = np.concatenate((these.start, ends, without.start, other_ends))
    here, there = len(these.start), len(without.start)
    inside = np.concatenate((np.ones(here), -np.ones(here), np.zeros(2 * there))).astype(np.int64)
    cut = np.concatenate((np.zeros(2 * here), np.ones(there), -np.ones(there))).astype(np.int64)
    order = np.argsort(points, kind="stable")
    points = points[order]
    live = (np.cumsum(inside[order]) > 0) & (np.cumsum(cut[order]) == 0)
    start, end = points[:-1][live[:-1]], points[1:][live[:-1]]
    keep = end > start
    return Runs.join([Runs(start[keep], (end - start)[keep])])


def covered(blocks: U64, runs: Runs) -> Bools:
    """Which of ``blocks`` (n,) lie in ``runs``, which are ascending and disjoint."""
    if not len(runs.start):
        return np.zeros(len(blocks), np.bool_)
    at = np.searchsorted(runs.start, blocks, side="right").astype(np.int64) - 1
    inside = at >= 0
    at = np.maximum(at, 0)
    found: Bools = inside & (blocks < runs.start[at] + runs.count[at])
    return found
