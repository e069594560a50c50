"""By disk, what the commits since its beginning changed of a map, in sparse scratch files.

A location of 0 means "as the map began". Memory stays bounded by caches, whatever the disks' size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from stages.errors import NoSpace
from stages.model import U64, Disk, distinct
from stages.ports import Files
from stages.recover.delta import Delta
from stages.recover.doubt import Doubt, Hole
from stages.vault import location
from stages.vault.checkpoint import PAGE_ROWS
from stages.vault.fold import CopyRefs, SetData, SetZero
from stages.vault.records import MachineRecord

_SCRATCH_CACHE = 16 << 20
_GATHERED = 24 << 20  # of changes before they go to the scratch files, all disks together


class Changes:
    """Locations that were set since the map began. All calls block.

    ``doubt`` says which blocks may be older than the map, where a commit could not be read; it is
    None without such a hole. Writing raises ``OSError`` if a scratch file does: see
    ``scratch_room``. After ``close`` whoever still looks gets ``trio.ClosedResourceError``.
    """

    def __init__(self, files: Files):
        self.doubt: Doubt | None = None
        self._files = files
        self._deltas: dict[int, Delta] = {}
        self._sizes: dict[int, int] = {}  # blocks of the disks as of the commit folded last
        self._closed = False

    def rows(self) -> dict[int, int]:
        """By disk the blocks that there is room for: never less than the disk had."""
        return {disk: delta.rows for disk, delta in self._deltas.items()}

    def begin(self, disk: int, blocks: int) -> None:
        """A disk of the map that these are changes of."""
        self._sizes[disk] = blocks
        self._cover(disk, blocks)

    def follow(self, machine: MachineRecord) -> None:
        """Follow a machine record's sizes; what is cut and grown again reads zeros (R7)."""
        self.cover(machine.disks)
        for disk in machine.disks:
            delta = self._deltas[disk.number]
            if disk.blocks < self._sizes.get(disk.number, 0):
                delta.fill(disk.blocks, delta.rows - disk.blocks, location.ZERO)
            self._sizes[disk.number] = disk.blocks

    def cover(self, disks: tuple[Disk, ...]) -> None:
        """Make room for disks without a word on what was cut of them."""
        for disk in disks:
            self._cover(disk.number, disk.blocks)

    def data(self, step: SetData) -> None:
        """Blocks that a commit brings frames for."""
        self._deltas[step.disk].assign(step.runs, step.locations)
        if self.doubt is not None:
            self.doubt.clear(step.disk, step.runs)

    def zero(self, step: SetZero) -> None:
        """Blocks that a commit makes zero, whatever the map began with."""
        if self.doubt is not None:
            self.doubt.clear(step.disk, step.runs)
        starts, counts = step.runs.start.tolist(), step.runs.count.tolist()
        for start, count in zip(starts, counts, strict=True):
            self._deltas[step.disk].fill(start, count, location.ZERO)

    def copy(self, step: CopyRefs, found: U64) -> None:
        """Blocks that take the locations ``found`` (n,) of others."""
        for disk in distinct(step.disk).tolist():
            here = step.disk == disk
            self.put(disk, step.block[here], found[here])
        if self.doubt is not None:
            self.doubt.copy(step)

    def put(self, disk: int, blocks: U64, locations: U64) -> None:
        """Set single blocks (n,) of a disk to ``locations`` (n,); of equal blocks the last counts.

        Says nothing of ``doubt``.
        """
        self._deltas[disk].scatter(blocks, locations[:, None])

    def hole(self, hole: Hole, disks: tuple[Disk, ...]) -> None:
        """A commit that cannot be read: of nothing before it is it certain that it still holds."""
        if self.doubt is None:
            self.doubt = Doubt(self._files)
        self.cover(disks)
        self.doubt.hole(hole, self.rows())

    def read(self, disk: int, first: int, count: int) -> U64:
        """Locations (count,) of blocks, 0 where nothing was set. Raises ``NoSpace``."""
        self._check_open()
        with scratch_room():
            found: U64 = self._deltas[disk].read(first, count)[:, 0]
        return found

    def gather(self, disk: int, blocks: U64) -> U64:
        """Locations (n,) of single blocks (n,), 0 where nothing was set. Raises ``NoSpace``."""
        self._check_open()
        with scratch_room():
            found: U64 = self._deltas[disk].gather(blocks)[:, 0]
        return found

    def changed(self, disk: int, page: int) -> bool:
        """Was any location of a checkpoint's page set? Raises ``NoSpace``."""
        first = page * PAGE_ROWS
        count = min(PAGE_ROWS, self._deltas[disk].rows - first)
        return bool(self.read(disk, first, count).any())

    def close(self) -> None:
        """Release the scratch files."""
        self._closed = True
        for delta in self._deltas.values():
            delta.close()
        if self.doubt is not None:
            self.doubt.close()

    def _cover(self, disk: int, blocks: int) -> None:
        delta = self._deltas.get(disk)
        if delta is None:
            share = 1 + len(self._deltas)
            delta = self._deltas[disk] = Delta(
                self._files.scratch(),
                cache=max(1 << 20, _SCRATCH_CACHE // share),
                limit=max(1 << 20, _GATHERED // share),
            )
        if delta.rows < blocks:
            delta.resize(blocks)
        if self.doubt is not None:
            self.doubt.cover(disk, delta.rows)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("these scratch files were released")


@contextmanager
def scratch_room() -> Iterator[None]:
    """Whatever a scratch file fails with is ``NoSpace``: the operator can give another folder."""
    try:
        yield
    except OSError as error:
        raise NoSpace(
            f"no place for scratch files: {error.strerror or error}",
            operation="read the block map",
            subject=error.filename or "temporary folder",
            hint="set TMPDIR to a folder with room: 8 bytes for each block written since a "
            "checkpoint",
        ) from None
