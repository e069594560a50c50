"""Which blocks were written while a scan has them in its hands (R4, R8)."""

from __future__ import annotations

import numpy as np

from stages.model import Bools
from stages.stream import REGION_BLOCKS


class Windows:
    """One window for each region that is being read; a write marks its blocks in them."""

    def __init__(self) -> None:
        self.active = False
        self._open: dict[tuple[int, int], Bools] = {}

    def open(self, disk: int, region: int) -> None:
        """From now on writes to this region are marked."""
        self._open[disk, region] = np.zeros(REGION_BLOCKS, np.bool_)
        self.active = True

    def close(self, disk: int, region: int) -> Bools:
        """No more; returns which of the region's blocks were written since ``open``. Idempotent."""
        marks = self._open.pop((disk, region), None)
        self.active = bool(self._open)
        return np.zeros(REGION_BLOCKS, np.bool_) if marks is None else marks

    def mark(self, disk: int, first: int, count: int) -> None:
        """``count`` blocks from ``first`` were written."""
        low, high = first // REGION_BLOCKS, (first + count - 1) // REGION_BLOCKS
        if low == high:
            marks = self._open.get((disk, low))
            if marks is not None:
                at = first - low * REGION_BLOCKS
                marks[at : at + count] = True
            return
        for (its, region), marks in self._open.items():
            if its == disk and low <= region <= high:
                base = region * REGION_BLOCKS
                marks[max(0, first - base) : max(0, first + count - base)] = True
