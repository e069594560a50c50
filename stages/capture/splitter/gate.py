"""The gate of a group: where its writes go, into the journal or only into the activity log (R9).

Every mutation passes ``admit`` before its pwrite: the regions it touches are durably marked in the
activity log, and credit for its entry is reserved, or the group *tracks*: then its regions are
durably pending instead and nothing is enqueued. Between ``admit`` returning and the end of the
enqueue there is either no await, or a lock on the blocks and a place in ``tracked``.

Tracking begins without an await: GAP_BEGIN stands in the stream before anything that comes after a
write that is not there. It ends in one step as well, when no tracked write is in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgpack
import trio

from stages.capture.activity.log import ActivityLog
from stages.ports import Clock
from stages.stream import Entry, Journal, JournalUnusable, Kind, Position

STALL_SECONDS = 5.0  # a journal that takes this long is treated as failed
_IMPATIENT = 0.5  # seconds for a mark, once the journal's disk hangs


class Gate:
    """Shared by the disks of a group. ``limit``: bytes of journal retained before ``full``.

    ``throttle``: at the limit writes wait instead of being tracked. ``on_track`` hears when and
    why tracking begins, before the first tracked write.
    """

    def __init__(
        self,
        stream: Journal,
        activity: ActivityLog,
        clock: Clock,
        *,
        limit: int,
        throttle: bool = False,
        stall: float = STALL_SECONDS,
        on_track: Callable[[str], None] = lambda _: None,
    ):
        self.stream = stream
        self.activity = activity
        self.tracking = ""  # the reason, while it lasts
        self.limit = limit
        self._clock = clock
        self._throttle = throttle
        self._stall = stall
        self._on_track = on_track
        self._tracked = 0  # tracked writes in progress
        self.switching = False  # tracking ends: nothing is admitted meanwhile
        self._changed = trio.lowlevel.ParkingLot()

    async def admit(self, disk: int, regions: Sequence[int], size: int) -> bool:
        """True: journal it, ``size`` bytes of credit are reserved. False: track it.

        The answer holds until the caller's next await. Raises ``StateError`` if the activity log
        cannot be written and no witness left: then nothing may be written to the source either.
        """
        while True:
            if self.switching:
                await self._changed.park()
                continue
            tracking = bool(self.tracking)
            cold = self.cold(disk, regions, tracking=tracking)
            if cold:
                await self.activity.heat(disk, cold, track=tracking)
                if self.activity.unlogged:
                    self.track(f"activity log: {self.activity.unlogged}")
                continue
            if tracking:
                return False
            if self.stream.retained + size > self.limit and not await self._at_limit(size):
                continue
            if self.stream.try_reserve(size):
                return True
            if not await self._reserve(size):
                continue
            if self._journals(disk, regions):
                return True
            self.stream.release(size)

    def _journals(self, disk: int, regions: Sequence[int]) -> bool:
        """After a wait: does what was looked at before it still hold?"""
        still = not self.tracking and not self.switching
        return still and not self.cold(disk, regions, tracking=False)

    def cold(self, disk: int, regions: Sequence[int], *, tracking: bool) -> list[int]:
        """Which of these regions must be marked before a write."""
        written = self.activity.written[disk]
        if not tracking:
            return [region for region in regions if not written[region]]
        pending = self.activity.pending[disk]
        return [region for region in regions if not (written[region] and pending[region])]

    def touch(self, disk: int, regions: Sequence[int]) -> None:
        """These regions are being written now: they stay hot (R1)."""
        written, now = self.activity.written[disk], self.activity.generation
        for region in regions:
            written[region] = now

    def track(self, reason: str) -> None:
        """From this moment on writes are tracked (R9). Not for a group that tracks already."""
        if self.tracking:
            return
        self.tracking = reason
        self.stream.push(self.gap_begin(reason), 0)
        self._on_track(reason)
        self.activity.relieve()
        self._changed.unpark_all()

    def gap_begin(self, reason: str) -> Entry:
        """The record that says that the vault is not consistent from here on."""
        return self.control(Kind.GAP_BEGIN, {"reason": reason})

    def control(self, kind: Kind, fields: Mapping[str, object]) -> Entry:
        """A record without blocks."""
        return Entry(kind, 0, self._clock.wall_us(), extra=msgpack.packb(dict(fields)))

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Around a tracked write that is not over before the next await."""
        self._tracked += 1
        try:
            yield
        finally:
            self._tracked -= 1
            if not self._tracked:
                self._changed.unpark_all()

    async def resume(self, stream: Journal, begin: Callable[[], None]) -> None:
        """End tracking in one step: ``stream`` is the journal from now on (R9).

        ``begin`` is called in that step, for what has to stand first in a new stream.
        """
        self.switching = True
        try:
            while self._tracked:
                await self._changed.park()
            self.stream = stream
            self.tracking = ""
            begin()
        finally:
            self.switching = False
            self._changed.unpark_all()

    def room(self) -> None:
        """Journal was trimmed: who waits at the limit may look again."""
        self._changed.unpark_all()

    def failed(self, error: JournalUnusable) -> None:
        """The journal is of no use any more: track."""
        self.track(f"journal: {error.message}")

    def demand(self, position: Position) -> None:
        """``sync`` will be called for this: begin with it."""
        if not self.tracking:
            self.stream.demand(position)

    async def sync(self, position: Position) -> None:
        """The journal is durable up to ``position``, or the group tracks: then what is not durable
        is pending, and the activity log says so."""
        stream = self.stream
        if self.tracking or stream.durable >= position:
            return
        with trio.move_on_after(self._stall) as waited:
            try:
                await stream.sync(position)
            except JournalUnusable as error:
                if stream is self.stream:
                    self.failed(error)
        if waited.cancelled_caught and stream is self.stream:
            self._hangs()

    def _hangs(self) -> None:
        """The journal took too long: it counts as failed, whatever it does later. The activity log
        is on the same disk as a rule, and guests have waited already."""
        self.activity.patience = min(self.activity.patience, _IMPATIENT)
        self.stream.abandon("its disk does not answer")
        self.track("the journal's disk does not answer")

    async def _reserve(self, size: int) -> bool:
        """Credit for ``size`` bytes. A journal that makes no progress meanwhile has failed."""
        stream = self.stream
        while True:
            before = stream.durable
            with trio.move_on_after(self._stall) as waited:
                try:
                    await stream.reserve(size)
                except JournalUnusable as error:
                    if stream is self.stream:
                        self.failed(error)
                    return False
                if stream is not self.stream:
                    stream.release(size)
                    return False
                return True
            if waited.cancelled_caught and stream is self.stream and stream.durable == before:
                self._hangs()
                return False

    async def _at_limit(self, size: int) -> bool:
        """The journal is full: track, or wait until something was shipped (``throttle``)."""
        if not self._throttle:
            self.track("the journal is full")
            return False
        while self.stream.retained + size > self.limit and not self.tracking:
            await self._changed.park()
        return False
