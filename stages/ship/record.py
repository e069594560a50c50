"""The arrays behind the writer's record of a vault: block map, digests, frame directory.

Per disk: locations (1 column), digests of blocks and of chunks (2 columns each). Per epoch: where
each frame is. All describe the vault at its committed position (R3), all are sparse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

import numpy as np

from stages.model import U64, Disk, Runs, distinct
from stages.ports import Files
from stages.ship.disk_record import DiskRecord
from stages.vault import location
from stages.vault.commit import Header, SegmentIndex
from stages.vault.fold import CopyRefs, SetData, SetZero, steps
from stages.vault.paged import PagedArray


def frames_path(folder: str, epoch: int) -> str:
    """The file of an epoch's frame directory."""
    return f"{folder}/epoch-{epoch:08d}.frames"


class Record:
    """All arrays of a group. Not for two threads at once; all calls block."""

    def __init__(self, files: Files, folder: str):
        self._files = files
        self._folder = folder
        self.disks: dict[int, DiskRecord] = {}
        self.frames: dict[int, PagedArray] = {}

    def open_disk(self, disk: Disk) -> DiskRecord:
        """The record of a disk, resized to it; a new one is all unknown."""
        if disk.number not in self.disks:
            self.disks[disk.number] = DiskRecord(self._files, self._folder, disk.number)
        self.disks[disk.number].resize(disk)
        return self.disks[disk.number]

    def keep_disks(self, numbers: Collection[int]) -> None:
        """Let go of the records of disks that are not protected any more; their files stay."""
        for number in [number for number in self.disks if number not in numbers]:
            for _, array in self.disks.pop(number).arrays():
                _close(array)

    def open_frames(self, epoch: int) -> PagedArray:
        """The directory of an epoch."""
        if epoch not in self.frames:
            file = self._files.open_write(frames_path(self._folder, epoch), create=True)
            self.frames[epoch] = PagedArray(file, 2, cache=1 << 20)
        return self.frames[epoch]

    def close_frames(self, epoch: int) -> int:
        """Let go of the directory of an ended epoch; its file stays. Returns its rows."""
        directory = self.frames.pop(epoch)
        _close(directory)
        return directory.rows

    def resolve(self, header: Header, segments: tuple[SegmentIndex, ...]) -> U64:
        """Locations (m, 1) that the references of the next commit stand for, in index order.

        Looked up once, before the put: replaying a log over arrays that are already ahead of it
        would otherwise copy a later location.
        """
        found = [np.empty((0, 1), np.uint64)]
        fresh: list[SetData | SetZero] = []
        for step in steps(header, segments):
            if isinstance(step, CopyRefs):
                found.append(self._targets(step, fresh))
                fresh.extend(_copied(step, found[-1]))  # a later segment may refer to these
            else:
                fresh.append(step)
        return np.concatenate(found)

    def _targets(self, step: CopyRefs, fresh: list[SetData | SetZero]) -> U64:
        found = np.empty((len(step.target_block), 1), np.uint64)
        for disk in distinct(step.target_disk).tolist():
            here = np.flatnonzero(step.target_disk == disk)
            wanted = step.target_block[here]
            values = self.disks[disk].map.gather(wanted)
            for change in fresh:
                if change.disk == disk:
                    _overlay(change, wanted, values)
            found[here] = values
        return found

    def apply(
        self,
        header: Header,
        segments: tuple[SegmentIndex, ...],
        digests: U64,
        ref_digests: U64,
        ref_locations: U64,
    ) -> None:
        """Fold a settled commit; idempotent, so a log may be replayed over a later state.

        Disks that are not protected any more are passed over: the commit may have arrived late.
        """
        at = ref_at = 0
        for step in steps(header, segments):
            match step:
                case SetData(disk=disk, runs=runs, locations=locations):
                    until = at + len(locations)
                    if disk in self.disks:
                        self.disks[disk].set_data(runs, locations, digests[at:until])
                    at = until
                case SetZero(disk=disk, runs=runs):
                    if disk in self.disks:
                        self.disks[disk].set_zero(runs)
                case CopyRefs():
                    until = ref_at + len(step.block)
                    here = slice(ref_at, until)
                    self._copy(step, ref_locations[here], ref_digests[here])
                    ref_at = until
        self._place_frames(header, segments)

    def doubt(self, header: Header, segments: tuple[SegmentIndex, ...]) -> None:
        """Know nothing any more of the blocks that a commit names."""
        for step in steps(header, segments):
            match step:
                case SetData(disk=disk, runs=runs) | SetZero(disk=disk, runs=runs):
                    if disk in self.disks:
                        self.disks[disk].doubt(runs)
                case CopyRefs():
                    for disk in self._known(step.disk):
                        blocks = distinct(step.block[step.disk == disk])
                        self.disks[disk].doubt(Runs.of(blocks))

    def _copy(self, step: CopyRefs, locations: U64, digests: U64) -> None:
        for disk in self._known(step.disk):
            here = step.disk == disk
            self.disks[disk].set_refs(step.block[here], locations[here], digests[here])

    def _known(self, disks: U64) -> list[int]:
        """Those of the disks named that are still protected."""
        return [disk for disk in distinct(disks).tolist() if disk in self.disks]

    def _place_frames(self, header: Header, segments: tuple[SegmentIndex, ...]) -> None:
        if not header.frames:
            return
        directory = self.open_frames(header.epoch)
        end = header.first_frame + header.frames
        if directory.rows < end:
            directory.resize(end)
        at = header.first_frame
        for segment in segments:
            inline = segment.source < 0
            number = header.seq if inline else header.objects[segment.source].number
            directory.write(at, location.places(number, inline, segment.spans))
            at += len(segment.spans)

    def arrays(self) -> Iterator[tuple[str, PagedArray]]:
        """Every array by a stable name."""
        for number, record in self.disks.items():
            for name, array in record.arrays():
                yield f"disk-{number:04d}.{name}", array
        for epoch, directory in self.frames.items():
            yield f"epoch-{epoch:08d}.frames", directory

    def close(self) -> None:
        """Release all files; what is not synced is lost (the log has it)."""
        for _, array in self.arrays():
            _close(array)


def _close(array: PagedArray) -> None:
    """Nothing depends on it: what counts was synced before."""
    with suppress(OSError):
        array.close()


def _copied(step: CopyRefs, locations: U64) -> Iterator[SetData]:
    """What references come to, block by block, as changes that a later segment sees."""
    for disk in distinct(step.disk).tolist():
        here = step.disk == disk
        blocks = step.block[here]
        yield SetData(disk, Runs(blocks, np.ones(len(blocks), np.uint64)), locations[here])


def _overlay(change: SetData | SetZero, wanted: U64, values: U64) -> None:
    """Where ``change`` sets a wanted block, its location takes the place of the older value."""
    runs = change.runs
    order = np.argsort(runs.start, kind="stable")  # of two runs that begin alike the later counts
    which = order[np.searchsorted(runs.start, wanted, side="right", sorter=order) - 1]
    offset = wanted - runs.start[which]  # wraps around below the first run: no run is that long
    hit = offset < runs.count[which]
    if isinstance(change, SetZero):
        values[hit] = location.ZERO
        return
    before = np.cumsum(runs.count) - runs.count
    values[hit] = change.locations[(before[which] + offset)[hit].astype(np.int64)]
