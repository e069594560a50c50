"""A device in memory: what the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from stages.nbd import wire
from stages.nbd.device import Device, DeviceFlags, DeviceInfo, Extent, Part

ALL = DeviceFlags(flush=True, fua=True, trim=True, write_zeroes=True, multi_conn=True)
GRAIN = 4096


def info(name: str = "disk", size: int = 1 << 20, *, read_only: bool = False) -> DeviceInfo:
    return DeviceInfo(name, size, f"memory of {name}", read_only, ALL)


class MemoryDevice(Device):
    """Content in a bytearray; extents say zero where a 4 KiB grain is all zeros."""

    def __init__(self, about: DeviceInfo, content: bytes = b""):
        self._info = about
        self.content = bytearray(about.size)
        self.content[: len(content)] = content
        self.flushes = 0
        self.log: list[tuple[str, int, int]] = []

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def read_only(self) -> MemoryDevice:
        self._info = replace(self._info, read_only=True)
        return self

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        return [memoryview(self.content)[offset : offset + length]]

    async def write(self, offset: int, data: memoryview, fua: bool) -> None:
        memoryview(self.content)[offset : offset + len(data)] = data

    async def flush(self) -> None:
        self.flushes += 1

    async def trim(self, offset: int, length: int, fua: bool) -> None:
        await self.zero(offset, length, no_hole=False, fua=fua)

    async def zero(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        memoryview(self.content)[offset : offset + length] = bytes(length)

    async def extents(self, offset: int, length: int) -> list[Extent]:
        end, at = offset + length, offset
        found: list[Extent] = []
        while at < end and len(found) < 100:  # an answer may be shorter than its question
            stop = min(end, at - at % GRAIN + GRAIN)
            zero = self.content.count(0, at, stop) == stop - at
            found.append(Extent(stop - at, wire.STATE_HOLE | wire.STATE_ZERO if zero else 0))
            at = stop
        return found


class Gated(MemoryDevice):
    """Reads wait for a gate; counts how many do."""

    def __init__(self, about: DeviceInfo | None = None) -> None:
        super().__init__(about or info())
        self.gate = trio.Event()
        self.inside = self.most = 0

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return await super().read(offset, length)
