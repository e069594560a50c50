"""Overlays over a memory device on files in memory, and a model of what they must hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import trio

from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.device import Part
from stages.ports import Files, Machine
from stages.recover.overlay import Overlay
from tests.nbd.memory import MemoryDevice, info
from tests.ports.watched import InlineOffload
from tests.whole.memfiles import MemFiles

T = TypeVar("T")
SIZE = 40 * BLOCK + 700
HOLE = wire.STATE_HOLE | wire.STATE_ZERO


class Base(MemoryDevice):
    """Read-only content with holes; every read takes a turn of the loop. Can be taken away."""

    def __init__(self, size: int = SIZE, seed: int = 0):
        data = bytearray(random.Random(seed).randbytes(size))
        for first in range(4 * BLOCK, size, 16 * BLOCK):
            stop = min(size, first + 7 * BLOCK)
            data[first:stop] = bytes(stop - first)
        super().__init__(info("disk", size, read_only=True), bytes(data))
        self.gone = False
        self.reads = 0

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        assert not self.gone
        assert offset + length <= self.info.size
        self.reads += 1
        await trio.lowlevel.checkpoint()
        middle = offset + length // 2
        view = memoryview(self.content)
        return [view[offset:middle], view[middle : offset + length]]


class FakeClock:
    """Sleeps take no time and are counted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return 0.0

    def wall_us(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await trio.lowlevel.checkpoint()


class HeldOffload(InlineOffload):
    """Stops before the next call, or after one of a method by name, until released."""

    def __init__(self) -> None:
        self.hold = ""
        self.hold_next = False
        self.reached, self.go_on = trio.Event(), trio.Event()

    async def run(self, call: Callable[[], T]) -> T:
        if self.hold_next:
            self.hold_next = False
            self.reached.set()
            await self.go_on.wait()
        found = await super().run(call)
        if self.hold and getattr(call, "__name__", "") == self.hold:
            self.hold = ""
            self.reached.set()
            await self.go_on.wait()
        return found


class NoEntropy:
    def token(self, size: int) -> bytes:
        return bytes(size)


def machine(files: Files, offload: InlineOffload | None = None) -> Machine:
    return Machine(FakeClock(), offload or InlineOffload(), NoEntropy(), files)


async def opened(base: Base, files: Files, offload: InlineOffload | None = None) -> Overlay:
    return await Overlay.open(base, machine(files, offload), "/ov", identity="base")


async def content(overlay: Overlay) -> bytes:
    parts = await overlay.read(0, overlay.info.size)
    return b"".join(bytes(part) for part in parts if not hasattr(part, "file"))


@dataclass
class Disk:
    """An overlay and what it must hold; after a power cut each byte as in one of ``versions``.

    Bytes, not sectors: files in memory also tear writes that share a sector.
    """

    base: Base = field(default_factory=Base)
    files: MemFiles = field(default_factory=MemFiles)
    overlay: Overlay = field(init=False)
    model: bytearray = field(init=False)
    versions: list[bytes] = field(default_factory=list)  # since the last flush

    async def open(self) -> Disk:
        self.overlay = await opened(self.base, self.files)
        self.model = bytearray(self.base.content)
        self.durable()
        return self

    def put(self, offset: int, data: bytes) -> None:
        """Change the model."""
        self.model[offset : offset + len(data)] = data
        self.versions.append(bytes(self.model))

    async def write(self, offset: int, data: bytes) -> None:
        await self.overlay.write(offset, memoryview(data), fua=False)
        self.put(offset, data)

    async def zero(self, offset: int, length: int, *, no_hole: bool) -> None:
        await self.overlay.zero(offset, length, no_hole=no_hole, fua=False)
        self.put(offset, bytes(length))

    async def trim(self, offset: int, length: int) -> None:
        """Whole blocks read zeros, the last of the disk too if the range reaches the end."""
        await self.overlay.trim(offset, length, fua=False)
        size = self.base.info.size
        end = offset + length if offset + length == size else (offset + length) // BLOCK * BLOCK
        start = -(-offset // BLOCK) * BLOCK
        self.put(start, bytes(max(0, end - start)))

    async def flush(self) -> None:
        await self.overlay.flush()
        self.durable()

    def durable(self) -> None:
        """What is there now stays, whatever happens."""
        self.versions = [bytes(self.model)]

    async def restart(self, *, power_cut: int | None = None) -> None:
        """Kill the process, perhaps with the power, and open again; accepts what may be."""
        if power_cut is None:
            self.files.process_died()
        else:
            self.files.power_cut(power_cut)
        self.overlay = await opened(self.base, self.files)
        found = np.frombuffer(await content(self.overlay), np.uint8)
        allowed = np.zeros(len(found), np.bool_)
        for version in self.versions:
            allowed |= found == np.frombuffer(version, np.uint8)
        assert allowed.all(), f"byte {int(np.argmin(allowed))}"
        # What the crash left in doubt stays in doubt until the next flush.
        self.put(0, found.tobytes())

    async def check(self) -> None:
        assert await content(self.overlay) == self.model
        size, at = self.base.info.size, 0
        while at < size:
            for extent in await self.overlay.extents(at, size - at):
                assert extent.length > 0
                if extent.flags & wire.STATE_ZERO:
                    assert not any(self.model[at : at + extent.length])
                at += extent.length
        assert at == size


async def hydrate(overlay: Overlay, turns: int) -> None:
    """All of it, or until some turns of the loop have passed."""
    if not turns:
        await overlay.hydrate()
        assert overlay.hydrated
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(overlay.hydrate)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
