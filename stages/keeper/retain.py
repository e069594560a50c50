"""Which points stay, and where the log begins: pure.

Age is by the store's clock, order by number. A clock that steps back makes points look younger,
never older: the time of a commit is the latest of those up to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.model import U8, U64, Bools, Ints

MICRO = 1_000_000
HOUR, DAY = 3600 * MICRO, 86_400 * MICRO


@dataclass(frozen=True, slots=True)
class Retention:
    """How long (seconds) all points stay, one of each hour, one of each day."""

    all: float = 86_400
    hourly: float = 7 * 86_400
    daily: float = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Offered:
    """The points that are offered, ascending. All columns (n,).

    ``time``: µs when it was stored, by the store's clock. ``base``: the checkpoint it can be read
    from, 0 for the log's beginning; equal to ``seq`` where there is one at it.
    """

    seq: U64
    time: Ints
    consistent: Bools
    base: U64


@dataclass(frozen=True, slots=True)
class Chosen:
    """The log begins at ``floor``; ``kept`` are rows of points before it that stay, ``gone`` the
    number of those that do not."""

    floor: int
    kept: Ints
    gone: int


def choose_points(
    offered: Offered,
    manifests: U64,
    retention: Retention,
    now: int,
    *,
    begins: int,
    newest_base: int,
    must: frozenset[int] = frozenset(),
) -> Chosen:
    """What to keep of what is offered.

    ``manifests`` ascending: whole checkpoints. ``begins``: where the log begins now, and never
    before. ``newest_base``: the checkpoint that the newest commit names: its writer goes on from
    it. ``must``: points that are needed whatever their age.
    """
    if not len(offered.seq):
        return Chosen(begins, np.zeros(0, np.int64), 0)
    time = np.maximum.accumulate(offered.time)
    age = now - time
    young = np.flatnonzero(age <= retention.all * MICRO)
    first = int(offered.seq[young[0]]) if len(young) else int(offered.seq[-1])
    consistent = np.flatnonzero(offered.consistent)
    newest = int(offered.seq[consistent[-1]]) if len(consistent) else begins
    floor = _base_before(manifests, min(first, newest, newest_base), begins)
    stays = np.zeros(len(offered.seq), np.bool_)
    for period, span in ((retention.hourly, HOUR), (retention.daily, DAY)):
        picks = _one_of_each(offered, time // span)
        stays[picks[age[picks] <= period * MICRO]] = True
    stays[young] |= offered.consistent[young]
    stays |= np.isin(offered.seq, np.array(sorted(must), np.uint64))
    before = offered.seq < np.uint64(floor)
    return Chosen(floor, np.flatnonzero(stays & before), int((before & ~stays).sum()))


def _base_before(manifests: U64, most: int, begins: int) -> int:
    """The newest checkpoint up to ``most``, or where the log begins anyway."""
    at = int(manifests.searchsorted(np.uint64(max(0, most)), side="right"))
    return max(begins, int(manifests[at - 1])) if at else begins


def _one_of_each(offered: Offered, bucket: Ints) -> Ints:
    """Of each bucket the newest consistent point, one with a checkpoint of its own before others:
    such a point needs nothing of the log but itself."""
    rows = np.flatnonzero(offered.consistent)
    own = offered.base[rows] == offered.seq[rows]
    order = rows[np.lexsort((rows, own, bucket[rows]))]
    if not len(order):
        return order
    last = np.flatnonzero(np.concatenate((bucket[order][1:] != bucket[order][:-1], [True])))
    return order[last]


@dataclass(frozen=True, slots=True)
class Columns:
    """Headers of commits ``seq`` (n,), consecutive, and the data objects that they name.

    ``links`` (n, 32). ``objects`` (m, 4): seq, epoch, number, size.
    """

    seq: U64
    epoch: U64
    stamp: Ints
    checkpoint: U64
    consistent: Bools
    links: U8
    objects: U64

    def row(self, seq: int) -> int:
        """The row of a commit."""
        return seq - int(self.seq[0])


def bases(seq: U64, manifests: U64, begins: int) -> U64:
    """For each commit the newest checkpoint up to it that lies in the log; 0 where there is none
    and the log begins at 1."""
    known = manifests[manifests >= np.uint64(begins)]
    at = known.searchsorted(seq, side="right")
    found = np.zeros(len(seq), np.uint64)
    found[at > 0] = known[at[at > 0] - 1]
    return found
