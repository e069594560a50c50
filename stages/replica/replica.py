"""Disk files that follow a machine's log.

Two ways lead to a point. From a point of the same history *what changed since* is written: the
commits name the blocks, the point's map says what they hold. From anywhere else - nothing yet,
another branch, a log that retention has cut, files that someone touched - *everything is compared*
and what differs is written. Both may be done again from any moment on, and are: the record says
before the first write where the files are going, and only after all are durable where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from stages import durable
from stages.errors import UNREADABLE, NoSpace, StateDamaged, StateError
from stages.model import BLOCK
from stages.ports import Files, Machine, OpenFile
from stages.recover.opened import Group
from stages.recover.pointmap import PointMap
from stages.recover.points import Point
from stages.recover.sweep import Sweep
from stages.replica import changed, record, trouble
from stages.replica.apply import open_disk, write_window
from stages.replica.bounds import Bounds, Brought
from stages.replica.give import give, marks_of
from stages.replica.record import At, Record, Status, path_of

T = TypeVar("T")

_LOCK = "lock"


class Replica:
    """The replica in a folder, locked. After an error it has to be opened anew."""

    def __init__(self, ports: Machine, folder: str, lock: OpenFile, bounds: Bounds | None):
        self.folder = folder
        self._ports = ports
        self._lock = lock
        self._bounds = bounds or Bounds()
        self._record: Record | None = None
        self._vault, self._machine = b"", ""

    @staticmethod
    async def open(
        ports: Machine, folder: str, vault: bytes, machine: str, bounds: Bounds | None = None
    ) -> Replica:
        """Open it, or make an empty one. Raises ``StateLocked`` if someone works on it,
        ``StateDamaged``, ``StateError`` if it is of another vault or machine."""

        def take() -> Replica:
            files = ports.files
            durable.make_dirs(files, folder)
            found = Replica(
                ports, folder, files.open_write(f"{folder}/{_LOCK}", create=True), bounds
            )
            try:
                found._take(vault, machine)
            except BaseException:
                found.close()
                raise
            return found

        with trouble.translated(folder):
            return await ports.offload.run(take)

    @staticmethod
    async def drop(ports: Machine, folder: str) -> None:
        """Remove the files and the record, also one that is damaged: what follows begins anew.

        Raises ``StateLocked``, and ``IllegalOperation`` if the files are being given away.
        """

        def forget() -> None:
            files = ports.files
            lock = files.open_write(f"{folder}/{_LOCK}", create=True)
            try:
                if not lock.lock():
                    raise trouble.busy(folder)
                with suppress(StateDamaged):
                    found = record.read(files, folder)
                    if found is not None and found.status is Status.GIVING:
                        raise trouble.given(found)
                _tidy(files, folder, set())
                durable.remove(files, f"{folder}/{record.NAME}")
            finally:
                lock.close()

        with trouble.translated(folder):
            await ports.offload.run(forget)

    @property
    def record(self) -> Record | None:
        """What is known of the files; None: there are none yet."""
        return self._record

    async def bring(self, group: Group, point: Point) -> Brought:
        """Bring all disk files to a point of a group of this machine.

        Raises ``IllegalOperation`` if they were given away, ``NoSpace``, ``Damage``, store errors:
        then they are on the way, and the next call goes on.
        """
        wanted = At(group.scope.group, point.seq, point.digest, point.stamp)
        now = self._record
        if now is not None and now.status in (Status.GIVING, Status.GIVEN):
            raise trouble.given(now)
        there = now is None or await self._run(partial(self._present, now))
        if not there:  # someone has removed files, or cut them
            now = self._record = None
        untouched = now is not None and await self._run(partial(self._untouched, now))
        if now is not None and now.at == wanted and now.status is Status.WHOLE and untouched:
            return Brought(wanted, 0, 0, compared=False)
        wanted = await self._begun_before(group, wanted)
        changes = None
        if now is not None and (untouched or now.status is Status.CHANGING):
            changes = await self._changes(group, now, wanted)
        with trouble.translated(self.folder):
            map_ = await PointMap.build(group, self._ports.files, wanted.seq)
            try:
                self._check_size(map_)
                if changes is None:
                    return await self._compare(map_, wanted)
                return await self._change(map_, wanted, changes)
            finally:
                map_.close()

    async def give(self, to: str) -> list[str]:
        """Hand the files of a whole replica over, into a folder of the same file system: their
        new paths. Given again it goes on where it was. Nothing is copied and nothing overwritten.

        Raises ``IllegalOperation`` if they are no recovery point, ``TargetError``.
        """
        now = self._record
        if now is None or now.status not in (Status.WHOLE, Status.GIVING, Status.GIVEN):
            raise trouble.not_whole(self.folder)
        if now.status is Status.GIVEN and now.to != to:
            raise trouble.given(now)
        return await self._run(partial(give, self._ports.files, self.folder, now, to, self._put))

    def close(self) -> None:
        """Let go of the folder. What counts was synced before: an error here says nothing new."""
        with suppress(OSError):
            self._lock.close()

    def _take(self, vault: bytes, machine: str) -> None:
        if not self._lock.lock():
            raise trouble.busy(self.folder)
        durable.sweep(self._ports.files, self.folder)
        self._vault, self._machine = vault, machine
        found = self._record = record.read(self._ports.files, self.folder)
        if found is not None and (found.vault, found.machine) != (vault, machine):
            raise StateError(
                f"it is the replica of {found.machine} in vault {found.vault.hex()}",
                operation="open replica",
                subject=self.folder,
                hint="give each replica a folder of its own, or drop this one",
            )

    def _check_size(self, map_: PointMap) -> None:
        total = sum(disk.size for disk in map_.machine.disks)
        if self._bounds.size and total > self._bounds.size:
            raise NoSpace(
                f"the machine's disks have {total} bytes, more than the replica may",
                operation="follow",
                subject=self.folder,
                hint="raise its 'limit' in the site's configuration",
            )

    async def _begun_before(self, group: Group, wanted: At) -> At:
        """A comparison that was begun goes on to where it was going, if that can still be had."""
        now = self._record
        if now is None or now.status is not Status.COMPARING or now.cursor == (0, 0):
            return wanted
        before = now.towards
        assert before is not None  # noqa: S101 - as read
        if before.group != wanted.group or before.seq > wanted.seq:
            return wanted
        try:
            await group.look_at_floor()
            group.log.check_offered(before.seq)
            commit = await group.log.signed(before.seq)
        except UNREADABLE:
            return wanted
        return before if commit.link == before.link else wanted

    async def _changes(self, group: Group, now: Record, wanted: At) -> changed.Changed | None:
        start = now.at
        if start is None or now.status is Status.COMPARING:
            return None
        through = now.towards or start
        try:
            return await changed.between(
                group, now.disks, start, wanted, through=through, window=self._bounds.changes
            )
        except UNREADABLE:  # a checkpoint may lead around it: then the point can be had
            return None

    async def _change(self, map_: PointMap, wanted: At, changes: changed.Changed) -> Brought:
        """Write what changed, of all disks."""
        now = self._record
        assert now is not None  # noqa: S101 - it is somewhere
        await self._write(replace(now, status=Status.CHANGING, towards=wanted))
        sweep = Sweep(map_, self._ports, workers=self._bounds.workers)
        looked = written = 0
        for disk in map_.machine.disks:
            windows = list(changes.windows(disk.number))
            if not windows:
                continue
            onto = await open_disk(self._ports, self.folder, disk)
            try:
                for first, count, mask in windows:
                    window = await sweep.locate(disk, first, count)
                    await write_window(self._ports, sweep, onto, window, mask)
                await self._run(partial(onto.name, damaged=False))
                looked, written = looked + onto.compared, written + onto.written
            finally:
                onto.close()
        await self._whole(map_, wanted)
        return Brought(wanted, looked, written, compared=False)

    async def _compare(self, map_: PointMap, wanted: At) -> Brought:
        """Hold everything against the point, window by window; after each the record moves on."""
        disks = map_.machine.disks
        now = self._record
        if now is None or now.status is not Status.COMPARING or now.towards != wanted:
            now = Record(self._vault, self._machine, Status.COMPARING, None, wanted, disks)
            await self._write(now)
        index, start = now.cursor
        sweep = Sweep(
            map_, self._ports, workers=self._bounds.workers, window_blocks=self._bounds.window
        )
        looked = written = 0
        for number, disk in enumerate(disks[index:], index):
            onto = await open_disk(self._ports, self.folder, disk)
            try:
                for first in sweep.windows(disk, start):
                    window = await sweep.locate(disk, first)
                    await write_window(self._ports, sweep, onto, window, None)
                    await self._run(onto.sync)
                    done = (number, first + len(window.locations))
                    await self._write(replace(now, cursor=done))
                await self._run(partial(onto.name, damaged=False))
                looked, written = looked + onto.compared, written + onto.written
            finally:
                onto.close()
            start = 0
        await self._whole(map_, wanted)
        return Brought(wanted, looked, written, compared=True)

    async def _whole(self, map_: PointMap, wanted: At) -> None:
        """All files are durable: now they are a recovery point."""
        disks = map_.machine.disks

        def settle() -> None:
            marks = marks_of(self._ports.files, self.folder, disks)
            found = Record(
                self._vault, self._machine, Status.WHOLE, wanted, None, disks, marks=marks
            )
            record.write(self._ports.files, self._ports.entropy, self.folder, found)
            self._record = found
            kept = {path_of(self.folder, disk.number) for disk in disks}
            _tidy(self._ports.files, self.folder, kept)

        await self._run(settle)

    def _present(self, now: Record) -> bool:
        """Files on the way are there, as long as they have to be up to the cursor."""
        sizes = [mark.size for mark in marks_of(self._ports.files, self.folder, now.disks)]
        wanted = [disk.size for disk in now.disks]
        if now.status is Status.COMPARING:
            index, block = now.cursor
            there = index < len(sizes) and sizes[index] >= min(block * BLOCK, wanted[index])
            return sizes[:index] == wanted[:index] and there
        return sizes == wanted

    def _untouched(self, now: Record) -> bool:
        """The files are as they were left; those on the way are known to be nothing."""
        found = marks_of(self._ports.files, self.folder, now.disks)
        return now.status is Status.WHOLE and now.marks == found

    def _put(self, found: Record) -> None:
        record.write(self._ports.files, self._ports.entropy, self.folder, found)
        self._record = found

    async def _write(self, found: Record) -> None:
        await self._run(partial(self._put, found))

    async def _run(self, call: Callable[[], T]) -> T:
        """A blocking call; what the file system refuses becomes our error."""
        with trouble.translated(self.folder):
            return await self._ports.offload.run(call)


def _tidy(files: Files, folder: str, kept: set[str]) -> None:
    """Remove files of disks that are not there any more. Blocks."""
    for name in files.listdir(folder):
        path = f"{folder}/{name}"
        if name.startswith("disk-") and name.endswith(".img") and path not in kept:
            durable.remove(files, path)
