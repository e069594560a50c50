"""One disk behind the splitter: its source, its locks, and what it shares with its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stages.capture.live.windows import Windows
from stages.capture.splitter.gate import Gate
from stages.capture.splitter.source import LiveSource
from stages.model import BLOCK, Bools, blocks_of
from stages.nbd.ranges import RangeLocks
from stages.ports import Clock, Machine
from stages.stream import REGION

SLOW_WRITE = 0.020  # seconds in one turn's pwrites: the source throttles, or the processor is away
SLOW_TURNS = 3  # of them, one after the other: it is the source
SLOW_FOR = 1.0  # seconds for which writes then go through threads


class Pwrites:
    """Whether writing to a source keeps the event loop waiting."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._slow = 0  # turns, in a row
        self._until = 0.0

    @property
    def throttled(self) -> bool:
        """Writes should go through threads now."""
        return self._slow >= SLOW_TURNS and self._clock.monotonic() < self._until

    def took(self, began: float) -> None:
        """A turn's pwrites, begun at ``began`` (monotonic), are over."""
        now = self._clock.monotonic()
        if now - began <= SLOW_WRITE:
            self._slow = 0
            return
        self._slow += 1
        self._until = now + SLOW_FOR


@dataclass
class LiveDisk:
    """A disk of a group. ``number`` is intake's; ``size`` bytes are what clients see.

    ``on_unread(disk, first, stop, error)``: a write failed and what it left cannot be read: the
    vault's content of these blocks is unknown. ``on_unsynced``: a source fsync failed (R5).
    ``on_unsaid(disk, first, stop)``: these blocks were locked, so that a scan left them to whoever
    held them, and stand in no record of the present journal after all.
    """

    number: int
    name: str
    source: LiveSource
    size: int
    gate: Gate
    windows: Windows
    machine: Machine
    on_unread: Callable[[LiveDisk, int, int, OSError], None]
    on_unsynced: Callable[[LiveDisk, OSError], None]
    on_unsaid: Callable[[LiveDisk, int, int], None]
    locks: RangeLocks = field(default_factory=RangeLocks)
    closed: bool = False  # no mutation begins any more
    pwrites: Pwrites = field(init=False)

    def __post_init__(self) -> None:
        self.pwrites = Pwrites(self.machine.clock)

    @property
    def blocks(self) -> int:
        """Blocks, the last one padded."""
        return blocks_of(self.size)

    def locked(self, first: int, count: int) -> Bools | None:
        """Which of ``count`` blocks from ``first`` a write in progress holds; None for none."""
        if not self.locks.busy:
            return None
        found = np.zeros(count, np.bool_)
        for low, stop in self.locks.held():
            found[max(0, low - first) : max(0, stop - first)] = True
        return found if found.any() else None

    def region_busy(self, region: int) -> bool:
        """A write in progress touches it: it must not cool."""
        per = REGION // BLOCK
        return self.locks.taken(region * per, (region + 1) * per)

    def read_block_range(self, first: int, stop: int) -> bytes:
        """Blocks ``first`` to ``stop`` of the source as they are now, padded with zeros. Blocks."""
        begin = first * BLOCK
        want = min(stop * BLOCK, self.size) - begin
        data = self.source.file.pread(begin, want)
        return data + bytes((stop - first) * BLOCK - len(data))


def regions_of(offset: int, length: int) -> range:
    """The regions that ``length`` bytes (at least 1) from ``offset`` touch."""
    return range(offset // REGION, (offset + length - 1) // REGION + 1)
