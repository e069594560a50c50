"""The activity log as bytes: pure.

A file has two areas of one size; an area begins with a snapshot, and changes follow. Every record
has a head with its generation and place, and a checksum over both and the payload, so that what an
earlier generation left in the area never verifies. A ``moved`` change says that the other area has
taken over: without its snapshot the log cannot be relied on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import msgpack
import numpy as np

from stages.model import MAX_DISK_BYTES, MAX_DISKS, Bools
from stages.stream import REGION

ALIGN = 64 << 10
LOG_BYTES = 256 << 10  # of an area, at least, for changes
VERSION = 2
_HEAD = struct.Struct("<4sIQQI4x")
_MAGIC = b"BACT"


@dataclass(frozen=True, slots=True)
class SourceId:
    """Which file or device a disk is: what stays the same while it is written to."""

    path: str
    device: int
    inode: int
    is_block: bool

    def same(self, other: SourceId | None) -> bool:
        """The same file, perhaps moved or on a device with another number by now; of devices only
        the path says anything."""
        if other is None or self.is_block != other.is_block:
            return False
        if self.is_block:
            return self.path == other.path
        near = self.path == other.path or self.device == other.device
        return near and self.inode == other.inode


@dataclass(frozen=True, slots=True)
class DiskSpan:
    """A disk as the log knows it; ``size`` in bytes."""

    number: int
    name: str
    size: int
    source: SourceId | None = None

    @property
    def regions(self) -> int:
        """Regions, the last one perhaps short."""
        return -(-self.size // REGION)


@dataclass(frozen=True, slots=True)
class DiskFound:
    """A disk as it was left: (regions,) flags; its source's identity, if it was detached clean."""

    span: DiskSpan
    identity: Mapping[str, int] | None
    hot: Bools
    pending: Bools


@dataclass(frozen=True, slots=True)
class Found:
    """A log as it was left. Unless ``valid``, nothing else in it means anything."""

    valid: bool
    reason: str = ""
    clean: bool = False
    run: int = 0
    in_gap: bool = False
    next_disk: int = 0
    disks: tuple[DiskFound, ...] = ()


@dataclass
class Changes:
    """Regions by disk that become hot, pending, scanned or cold, in this order of effect: cold and
    scanned first, since they were decided before the rest was asked for."""

    hot: dict[int, set[int]] = field(default_factory=dict)
    pending: dict[int, set[int]] = field(default_factory=dict)
    scanned: dict[int, set[int]] = field(default_factory=dict)
    cold: dict[int, set[int]] = field(default_factory=dict)
    in_gap: bool | None = None
    moved: bool = False

    def __bool__(self) -> bool:
        parts = (self.hot, self.pending, self.scanned, self.cold)
        return any(map(bool, parts)) or self.in_gap is not None or self.moved

    def keep(self, disks: Container[int]) -> None:
        """Forget what is about other disks."""
        for part in (self.hot, self.pending, self.scanned, self.cold):
            for disk in [disk for disk in part if disk not in disks]:
                del part[disk]

    def pack(self) -> bytes:
        """As a record's payload."""
        fields: dict[str, Any] = {
            name: {disk: _intervals(found) for disk, found in part.items() if found}
            for name, part in (
                ("cold", self.cold),
                ("scanned", self.scanned),
                ("hot", self.hot),
                ("pending", self.pending),
            )
            if part
        }
        if self.in_gap is not None:
            fields["in_gap"] = self.in_gap
        if self.moved:
            fields["moved"] = True
        return bytes(msgpack.packb(fields))


def frame(payload: bytes, generation: int, at: int) -> bytes:
    """A record at byte ``at`` of its area."""
    crc = zlib.crc32(payload, zlib.crc32(_place(generation, at)))
    return _HEAD.pack(_MAGIC, len(payload), generation, at, crc) + payload


def framed_size(payload: bytes) -> int:
    """Bytes that it takes in the area."""
    return _HEAD.size + len(payload)


def area_size(disks: Sequence[DiskSpan]) -> int:
    """Bytes of an area for these disks."""
    snapshot = sum(2 * (disk.regions // 8 + 1) + _name_bytes(disk) + 512 for disk in disks) + 512
    return -(-(snapshot + LOG_BYTES) // ALIGN) * ALIGN


def _name_bytes(disk: DiskSpan) -> int:
    path = "" if disk.source is None else disk.source.path
    return len(disk.name.encode()) + len(path.encode())


def pack_snapshot(found: Found) -> bytes:
    """A snapshot's payload."""
    fields = {
        "version": VERSION,
        "clean": found.clean,
        "run": found.run,
        "in_gap": found.in_gap,
        "next_disk": found.next_disk,
        "disks": [
            {
                "number": disk.span.number,
                "name": disk.span.name,
                "size": disk.span.size,
                "source": None if disk.span.source is None else list(astuple(disk.span.source)),
                "identity": None if disk.identity is None else dict(disk.identity),
                "hot": np.packbits(disk.hot).tobytes(),
                "pending": np.packbits(disk.pending).tobytes(),
            }
            for disk in found.disks
        ],
    }
    return bytes(msgpack.packb(fields))


def read(data: bytes) -> Found:
    """A whole file, as it was left."""
    half = len(data) // 2
    areas = [_Area.read(data[:half]), _Area.read(data[half:])]
    good = [area for area in areas if area is not None]
    if not good:
        return Found(valid=False, reason="neither of its snapshots verifies")
    newest = max(good, key=lambda area: area.generation)
    if newest.broken:
        return Found(valid=False, reason="a record inside it does not verify")
    if newest.moved:
        return Found(valid=False, reason="its newest snapshot does not verify")
    try:
        return newest.state()
    except (ValueError, KeyError, TypeError, IndexError):
        return Found(valid=False, reason="it says something impossible")


@dataclass
class _Area:
    generation: int
    snapshot: Any
    changes: list[Any]
    broken: bool

    @property
    def moved(self) -> bool:
        return any(change.get("moved") for change in self.changes)

    @staticmethod
    def read(data: bytes) -> _Area | None:
        first = _record(data, 0, None)
        if first is None:
            return None
        payload, generation, at = first
        changes: list[Any] = []
        while (following := _record(data, at, generation)) is not None:
            changes.append(msgpack.unpackb(following[0], strict_map_key=False))
            at = following[2]
        return _Area(
            generation,
            msgpack.unpackb(payload, strict_map_key=False),
            changes,
            _good_beyond(data, at, generation),
        )

    def state(self) -> Found:
        fields = self.snapshot
        if fields["version"] != VERSION:
            return Found(valid=False, reason=f"version {fields['version']}")
        disks = {entry["number"]: _disk(entry) for entry in fields["disks"]}
        in_gap = bool(fields["in_gap"])
        for change in self.changes:
            _apply(change, disks)
            in_gap = bool(change.get("in_gap", in_gap))
        return Found(
            valid=True,
            clean=bool(fields["clean"]) and not self.changes,
            run=int(fields["run"]),
            in_gap=in_gap,
            next_disk=int(fields["next_disk"]),
            disks=tuple(disks.values()),
        )


def _disk(entry: Any) -> DiskFound:
    span = DiskSpan(
        int(entry["number"]), str(entry["name"]), int(entry["size"]), _source(entry["source"])
    )
    if not (0 <= span.number < MAX_DISKS and 0 <= span.size <= MAX_DISK_BYTES):
        raise ValueError("a disk out of bounds")
    flags = [
        np.unpackbits(np.frombuffer(entry[name], np.uint8), count=span.regions).astype(np.bool_)
        for name in ("hot", "pending")
    ]
    return DiskFound(span, entry["identity"], *flags)


def _source(fields: Any) -> SourceId | None:
    if fields is None:
        return None
    path, device, inode, is_block = fields
    return SourceId(str(path), int(device), int(inode), bool(is_block))


def _apply(change: Any, disks: Mapping[int, DiskFound]) -> None:
    for name, flags, value in (
        ("cold", "hot", False),
        ("scanned", "pending", False),
        ("hot", "hot", True),
        ("pending", "pending", True),
    ):
        for number, intervals in change.get(name, {}).items():
            found = getattr(disks[number], flags)
            for start, count in intervals:
                if start + count > len(found):
                    raise ValueError("a region out of bounds")
                found[start : start + count] = value


def _record(data: bytes, at: int, generation: int | None) -> tuple[bytes, int, int] | None:
    """Payload, generation and end of the record at ``at``, if there is a good one."""
    if at + _HEAD.size > len(data):
        return None
    magic, length, its, place, crc = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + length
    if magic != _MAGIC or place != at or end > len(data) or generation not in (None, its):
        return None
    payload = data[at + _HEAD.size : end]
    if zlib.crc32(payload, zlib.crc32(_place(its, at))) != crc:
        return None
    return payload, its, end


def _good_beyond(data: bytes, at: int, generation: int) -> bool:
    found = data.find(_MAGIC, at + 1)
    while found >= 0:
        if _record(data, found, generation) is not None:
            return True
        found = data.find(_MAGIC, found + 1)
    return False


def _place(generation: int, at: int) -> bytes:
    return struct.pack("<QQ", generation, at)


def _intervals(regions: set[int]) -> Any:
    """As [start, count] pairs."""
    ordered = np.array(sorted(regions), np.int64)
    heads = np.flatnonzero(np.concatenate(([True], np.diff(ordered) != 1)))
    counts = np.diff(np.concatenate((heads, [len(ordered)])))
    return np.column_stack((ordered[heads], counts)).tolist()
