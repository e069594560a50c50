"""The two files of an overlay, and every blocking call on them.

``path`` is a sparse file of the disk's size, ``path.map`` says which of its blocks count. The map
is made first: data without a map is damage, never an empty overlay.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from stages import durable
from stages.errors import StateDamaged, TargetError
from stages.nbd import wire
from stages.nbd.device import Extent
from stages.ports import Buffer, Files, OpenFile
from stages.recover.overlay_map import BlockMap, Snapshot, decode, encode, most_bytes

MAP_SUFFIX = ".map"
_TOKEN = "overlay"  # noqa: S105  # the data file's lock makes this the only writer: no litter after a crash
_ZEROS = bytes(1 << 20)
_HOLE = wire.STATE_HOLE | wire.STATE_ZERO
_NO_PUNCH = frozenset((errno.EOPNOTSUPP, errno.ENOSYS))


@dataclass(frozen=True, slots=True)
class OverlayFile:
    """Blocking calls; offsets and sizes in bytes. Errors are ``OSError``."""

    files: Files
    file: OpenFile
    size: int
    identity: str

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The content of each (offset, size)."""
        contents = [self.file.pread(offset, size) for offset, size in ranges]
        if any(len(data) != size for data, (_, size) in zip(contents, ranges, strict=True)):
            raise OSError(errno.EIO, "the overlay's file is shorter than the disk")
        return contents

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Write the parts one after the other."""
        for part in parts:
            self.file.pwrite(offset, part)
            offset += len(part)

    def clear(self, offset: int, size: int) -> None:
        """Make a range read zeros, as a hole if the file system can."""
        try:
            self.file.punch(offset, size)
        except OSError as error:
            if error.errno not in _NO_PUNCH:
                raise
            self.write_zeros(offset, size)

    def write_zeros(self, offset: int, size: int) -> None:
        """Make a range read zeros and keep its space."""
        end = offset + size
        for at in range(offset, end, len(_ZEROS)):
            self.file.pwrite(at, memoryview(_ZEROS)[: min(len(_ZEROS), end - at)])

    def extents(self, ranges: Sequence[tuple[int, int]], most: int) -> list[list[Extent]]:
        """Holes and data of each (offset, size); about ``most`` in all, then ranges are missing."""
        found: list[list[Extent]] = []
        for offset, size in ranges:
            if most <= 0:
                break
            found.append(self._extents(offset, offset + size, most))
            most -= len(found[-1])
        return found

    def _extents(self, at: int, end: int, most: int) -> list[Extent]:
        found: list[Extent] = []
        while at < end and len(found) < most:
            data = self.file.next_data(at)
            data = end if data is None else min(data, end)
            if data > at:
                found.append(Extent(data - at, _HOLE))
            if data < end:
                hole = min(self.file.next_hole(data), end)
                found.append(Extent(hole - data, 0))
                data = hole
            at = data
        return found

    def save(self, snapshot: Snapshot) -> None:
        """Replace the map, durably."""
        data = encode(snapshot, self.size, self.identity)
        durable.replace(self.files, self.file.path + MAP_SUFFIX, data, token=_TOKEN)


def open_overlay(files: Files, path: str, size: int, identity: str) -> tuple[OverlayFile, BlockMap]:
    """Open both files, or make them if neither exists. Errors as of ``Overlay.open``."""
    map_path = path + MAP_SUFFIX
    if files.stat(map_path) is None:
        if files.stat(path) is not None:
            raise TargetError(
                "exists, and no overlay's map is beside it",
                operation="open overlay",
                subject=path,
                hint="choose another file",
            )
        files.unlink(map_path + durable.TEMP_MARK + _TOKEN)
        empty = encode(BlockMap(size).snapshot(), size, identity)
        durable.replace(files, map_path, empty, token=_TOKEN)
    file = files.open_write(path, create=True)
    blocks = None
    try:
        blocks = _prepare(files, file, size, identity)
    finally:
        if blocks is None:
            file.close()
    return OverlayFile(files, file, size, identity), blocks


def _prepare(files: Files, file: OpenFile, size: int, identity: str) -> BlockMap:
    operation, path = "open overlay", file.path
    if not file.lock():
        raise TargetError("in use by another process", operation=operation, subject=path)
    # Read under the lock: its last owner may just have replaced it.
    map_path = path + MAP_SUFFIX
    blocks = decode(files.read(map_path, most_bytes(size)), size, identity, map_path)
    if file.stat().size != size:
        if blocks.present:
            raise StateDamaged(
                "the overlay's data is missing or has another size than the disk",
                operation=operation,
                subject=path,
                hint="put the file back, or delete it and its map to begin anew",
            )
        file.truncate(size)
        file.fsync()
        files.sync_dir(durable.parent(path))
    files.unlink(map_path + durable.TEMP_MARK + _TOKEN)
    return blocks
