"""The arrays behind the writer's record of a vault: block map, digests, frame directory.

Per disk: locations (1 column), digests of blocks and of chunks (2 columns each). Per epoch: where
each frame is. All describe the vault at its committed position (R3), all are sparse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from stages.model import CHUNK_BLOCKS, U64, UNKNOWN, Bools, Disk, Runs
from stages.model import ZERO as ZERO_DIGEST
from stages.ports import Files
from stages.vault import location
from stages.vault.commit import Header, SegmentIndex
from stages.vault.fold import CopyRefs, SetData, SetZero, steps
from stages.vault.paged import PagedArray

MAP_PAGE = 8192  # rows of a checkpoint page: 32 MiB of disk


def frames_path(folder: str, epoch: int) -> str:
    """The file of an epoch's frame directory."""
    return f"{folder}/epoch-{epoch:08d}.frames"


@dataclass
class DirtyPages:
    """Which checkpoint pages changed since the last checkpoint."""

    flags: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    rows: int = 0

    def resize(self, rows: int) -> None:
        """Cover ``rows`` rows; new pages are dirty, and the one in which the size changed."""
        pages = -(-rows // MAP_PAGE)
        old = self.flags[:pages]
        self.flags = np.concatenate((old, np.ones(pages - len(old), np.bool_)))
        if rows != self.rows:
            self.flags[min(rows, self.rows) // MAP_PAGE : pages] = True
        self.rows = rows

    def mark(self, rows: U64) -> None:
        """Mark the pages of some rows."""
        self.flags[(rows // np.uint64(MAP_PAGE)).astype(np.int64)] = True

    def mark_runs(self, runs: Runs) -> None:
        """Mark the pages of runs of rows."""
        first = (runs.start // np.uint64(MAP_PAGE)).astype(np.int64)
        last = ((runs.start + runs.count - np.uint64(1)) // np.uint64(MAP_PAGE)).astype(np.int64)
        self.flags[first] = self.flags[last] = True
        wide = last - first > 1
        for low, high in zip(first[wide].tolist(), last[wide].tolist(), strict=True):
            self.flags[low : high + 1] = True


class DiskRecord:
    """One disk of the vault as its writer knows it."""

    def __init__(self, files: Files, folder: str, number: int):
        stem = f"{folder}/disk-{number:04d}"
        self.map = PagedArray(files.open_write(f"{stem}.map", create=True), 1)
        self.digests = PagedArray(files.open_write(f"{stem}.digests", create=True), 2)
        self.chunks = PagedArray(files.open_write(f"{stem}.chunks", create=True), 2, cache=2 << 20)
        self.dirty = DirtyPages()

    def resize(self, disk: Disk) -> None:
        """Follow the disk's size; what is new is unset and unknown."""
        self.map.resize(disk.blocks)
        self.digests.resize(disk.blocks)
        self.chunks.resize(-(-disk.blocks // CHUNK_BLOCKS))
        self.dirty.resize(disk.blocks)

    def arrays(self) -> Iterator[tuple[str, PagedArray]]:
        """All arrays by name."""
        yield "map", self.map
        yield "digests", self.digests
        yield "chunks", self.chunks

    def set_zero(self, runs: Runs) -> None:
        """Blocks are zero now, and so are the chunks that lie inside a run."""
        self.forget_chunks(runs)
        self.map.fill_runs(runs, location.ZERO)
        self.digests.fill_runs(runs, ZERO_DIGEST)
        first = (runs.start + np.uint64(CHUNK_BLOCKS - 1)) // np.uint64(CHUNK_BLOCKS)
        ends = runs.start + runs.count
        last = ends // np.uint64(CHUNK_BLOCKS)  # never a part chunk: it may grow
        whole = last > first
        self.chunks.fill_runs(Runs(first[whole], (last - first)[whole]), ZERO_DIGEST)
        self.dirty.mark_runs(runs)

    def forget_chunks(self, runs: Runs) -> None:
        """What is known of the chunks that these runs touch no longer holds."""
        chunk = np.uint64(CHUNK_BLOCKS)
        first = runs.start // chunk
        last = (runs.start + runs.count - np.uint64(1)) // chunk
        long = last - first > np.uint64(4096)
        for start, end in zip(first[long].tolist(), last[long].tolist(), strict=True):
            self.chunks.fill(start, end - start + 1, UNKNOWN)
        touched = np.unique(Runs(first[~long], (last - first)[~long] + np.uint64(1)).blocks())
        self.chunks.scatter(touched, np.zeros((len(touched), 2), np.uint64))


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
        """Let go of the records of disks that are not protected any more."""
        for number in [number for number in self.disks if number not in numbers]:
            for _, array in self.disks.pop(number).arrays():
                array.close()
                self._files.unlink(array.path)

    def open_frames(self, epoch: int) -> PagedArray:
        """The directory of an epoch."""
        if epoch not in self.frames:
            file = self._files.open_write(frames_path(self._folder, epoch), create=True)
            self.frames[epoch] = PagedArray(file, 2, cache=1 << 20)
        return self.frames[epoch]

    def resolve(self, header: Header, segments: tuple[SegmentIndex, ...]) -> U64:
        """Locations (m, 1) that the references of the next commit stand for, in index order.

        Looked up once, before the put: replaying a log over arrays that are already ahead of it
        would otherwise copy a later location.
        """
        found = [np.empty((0, 1), np.uint64)]
        fresh: list[SetData] = []
        for step in steps(header, segments):
            if isinstance(step, SetData):
                fresh.append(step)
            elif isinstance(step, CopyRefs):
                found.append(self._targets(step, fresh))
        return np.concatenate(found)

    def _targets(self, step: CopyRefs, fresh: list[SetData]) -> U64:
        found = np.empty((len(step.target_block), 1), np.uint64)
        for disk in np.unique(step.target_disk).tolist():
            here = np.flatnonzero(step.target_disk == disk)
            wanted = step.target_block[here]
            values = self.disks[disk].map.gather(wanted)
            for data in fresh:
                if data.disk != disk:
                    continue
                blocks = data.runs.blocks()
                order = np.argsort(blocks)
                at = np.searchsorted(blocks, wanted, sorter=order).clip(0, len(blocks) - 1)
                hit = blocks[order[at]] == wanted
                values[hit] = data.locations[order[at[hit]]]
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
        """Fold a settled commit; idempotent, so a log may be replayed over a later state."""
        at = ref_at = 0
        for step in steps(header, segments):
            match step:
                case SetData(disk=disk, runs=runs, locations=locations):
                    record = self.disks[disk]
                    count = len(locations)
                    record.forget_chunks(runs)
                    record.map.assign(runs, locations)
                    record.digests.assign(runs, digests[at : at + count])
                    record.dirty.mark_runs(runs)
                    at += count
                case SetZero(disk=disk, runs=runs):
                    self.disks[disk].set_zero(runs)
                case CopyRefs():
                    until = ref_at + len(step.block)
                    here = slice(ref_at, until)
                    self._copy(step, ref_locations[here], ref_digests[here])
                    ref_at = until
        self._place_frames(header, segments)

    def _copy(self, step: CopyRefs, locations: U64, digests: U64) -> None:
        for disk in np.unique(step.disk).tolist():
            here = step.disk == disk
            blocks = step.block[here]
            record = self.disks[disk]
            record.forget_chunks(Runs.of(np.unique(blocks)))
            record.map.scatter(blocks, locations[here])
            record.digests.scatter(blocks, digests[here])
            record.dirty.mark(blocks)

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
            array.close()
