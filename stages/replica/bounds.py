"""What a replica may take, and what bringing it to a point took."""

from __future__ import annotations

from dataclasses import dataclass

from stages.recover.sweep import WINDOW_BLOCKS
from stages.replica import changed
from stages.replica.record import At


@dataclass(frozen=True, slots=True)
class Brought:
    """How the files came to a point: bytes held against it, and bytes that were written.

    ``compared`` True: everything was compared, not only what commits had changed.
    """

    at: At
    looked: int
    written: int
    compared: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """``size``: bytes of all disks together, at most (0: no limit). Blocks of a window while
    everything is compared, and while changes are written; frames opened at a time."""

    size: int = 0
    window: int = WINDOW_BLOCKS
    changes: int = changed.WINDOW_BLOCKS
    workers: int = 2
