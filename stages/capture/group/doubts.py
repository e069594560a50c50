"""What makes it doubtful what the vault knows of the disks: each of it opens a gap, or has the open
one begin anew.

All of that happens at once, without an await: GAP_BEGIN stands in the stream before anything that
comes after the doubt. What has to be durable first (a crash must not forget that it is to be
compared) is made pending in the activity log before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from stages.capture.activity.log import ActivityLog
from stages.capture.group.gap import Gap
from stages.capture.group.marks import Marks
from stages.capture.splitter.disk import LiveDisk, regions_of
from stages.capture.splitter.gate import Gate
from stages.model import BLOCK, Ints
from stages.stream import Kind, Position


class Doubts:
    """Of one group. ``disks``: by number, as they are now. ``begun`` hears of every gap: whatever
    scans begins anew. ``again``: there is more to scan in the open one."""

    def __init__(
        self,
        gate: Gate,
        gap: Gap,
        marks: Marks,
        activity: ActivityLog,
        disks: Callable[[], Mapping[int, LiveDisk]],
        begun: Callable[[], None],
        again: Callable[[], None],
    ):
        self.stuck: set[int] = set()  # disks whose source lost writes: they never cool
        self._gate = gate
        self._gap = gap
        self._marks = marks
        self._activity = activity
        self._disks = disks
        self._begun = begun
        self._again = again

    def begin(self, reason: str) -> None:
        """The first records of a run: geometry, and a gap unless ``reason`` is empty."""
        self.say_geometry()
        if reason:
            self.open_gap(reason)

    def say_geometry(self) -> None:
        """The disks as they are from here on."""
        disks = self.geometry()
        self._gate.stream.push(self._gate.control(Kind.GEOMETRY, {"disks": disks}), 0)

    def geometry(self) -> list[list[int | str]]:
        """Number, name and size of each disk."""
        return [[disk.number, disk.name, disk.size] for disk in self._disks().values()]

    def open_gap(self, reason: str) -> None:
        """From here on points are not consistent."""
        self._gate.stream.push(self._gate.gap_begin(reason), 0)
        self.gap_begins(reason)

    def gap_begins(self, reason: str) -> None:
        """GAP_BEGIN stands in the stream, its newest record."""
        self._gap.begin(reason, self._gate.stream.head)
        self._marks.gap()
        self._begun()

    def tracking_begins(self, reason: str) -> None:
        """Writes are not journalled from here on."""
        stream = self._gate.stream
        if stream.failed is not None:
            self._marks.failed(stream.durable, reason)
        self.gap_begins(reason)

    async def resync(self, reason: str) -> None:
        """Compare everything again. Points are consistent when that is done."""
        await self.pend_all()
        self._gap.forget()
        if self._gate.tracking:
            return  # it is scanned when that ends
        if self._gap.is_open:
            self.gap_begins(reason)
        else:
            self.open_gap(reason)

    async def lost(self, reason: str) -> Position:
        """Delivery cannot read on from where it was: everything is compared (R3). The place in the
        stream from which it reads on."""
        await self.pend_all()
        position = self._gate.stream.head
        self._marks.skipped(reason)
        self.begin(reason)
        return position

    async def pend_all(self) -> None:
        """Every region is durably pending."""
        for number in list(self._disks()):
            if number in self._disks():
                regions = range(len(self._activity.pending[number]))
                await self._activity.heat(number, regions, track=True)

    async def pend_hot(self) -> None:
        """Every hot region is durably pending: the journal may have lost what was written there."""
        for number in list(self._disks()):
            written = self._activity.written.get(number, ())
            hot = np.flatnonzero(np.asarray(written)).tolist()
            if hot:
                await self._activity.heat(number, hot, track=True)

    def unread(self, disk: LiveDisk, first: int, stop: int, error: OSError) -> None:
        """Nobody knows what these blocks hold now (R4's suspect)."""
        regions = np.array(regions_of(first * BLOCK, (stop - first) * BLOCK), np.int64)
        self.suspect(disk, regions, f"{disk.name}: a write failed, and reading it back too")

    def unsynced(self, disk: LiveDisk, error: OSError) -> None:
        """The source may have lost anything since its last good fsync (R5)."""
        if self._disks().get(disk.number) is not disk:
            return  # it is leaving, and its clients have left
        self.stuck.add(disk.number)
        hot = np.flatnonzero(np.asarray(self._activity.written[disk.number]))
        self.suspect(disk, hot, f"{disk.name}: fsync failed ({error.strerror})")

    def unsaid(self, disk: LiveDisk, first: int, stop: int) -> None:
        """A scan that has dropped these blocks must look again (R8)."""
        if self._gap.is_open and self._disks().get(disk.number) is disk:
            regions = regions_of(first * BLOCK, (stop - first) * BLOCK)
            self._gap.again(disk.number, np.array(regions, np.int64))
            self._again()

    def suspect(self, disk: LiveDisk, regions: Ints, why: str) -> None:
        """These regions are to be compared."""
        self._gap.again(disk.number, regions)
        if self._gate.tracking:
            return
        if self._gap.is_open:
            self.gap_begins(why)
        else:
            self.open_gap(why)
