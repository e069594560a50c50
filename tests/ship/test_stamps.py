"""A point's stamp is when the newest of its content was captured, and never later."""

from __future__ import annotations

import numpy as np

from stages.model import Segment
from stages.ship.compose import Stored, header_of
from stages.ship.snapshot import Tail

WALL = 9_000_000


def stamp_of(tail: Tail, *, live: bool, captured: int = 0) -> int:
    """The stamp of a commit made at ``WALL``."""
    segment = Segment((), False, "crash", 1, position=(3, 700) if live else (0, 0), stamp=captured)
    stored = Stored(segment, 1, 0, np.empty((0, 3), np.uint32), None, ())
    return header_of(tail, 1, [stored], WALL).stamp


def test_when_it_was_captured() -> None:
    assert stamp_of(Tail(stamp=1000), live=True, captured=5000) == 5000
    assert stamp_of(Tail(stamp=1000), live=True, captured=900) == 1001  # the clock was set back


def test_a_commit_without_records_shows_nothing_newer_than_the_one_before() -> None:
    assert stamp_of(Tail(stamp=1000), live=True) == 1001
    assert stamp_of(Tail(), live=True) == WALL  # there is nothing before it


def test_at_rest_a_disk_is_what_it_is_now() -> None:
    assert stamp_of(Tail(stamp=1000), live=False) == WALL
