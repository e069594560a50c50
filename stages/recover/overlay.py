"""A writable disk over a read-only base: what the guest writes goes to a local sparse file.

A block is *present* once the file holds all of it. Reads take present blocks from the file, the
rest from the base; a block that is zeroed or trimmed is present and a hole of the file. Marks are
made in memory after the file was written, and kept by a flush: the map as it was *before* the
file's fdatasync began is replaced *after* it, so a map never names a block that is not on the disk.
What a crash leaves in the file for blocks that the map does not name is never read.

Writers and ``hydrate`` lock the blocks they change. Reads lock nothing: a block changes from absent
to present only when file and base give the same bytes for all that is not just being written.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from stages.model import BLOCK
from stages.nbd import wire
from stages.nbd.device import Device, DeviceFlags, DeviceInfo, Extent, FileRange, Part
from stages.nbd.hops import SharedHops
from stages.nbd.ranges import RangeLocks
from stages.nbd.replies import clip
from stages.ports import Buffer, Machine
from stages.recover.overlay_file import OverlayFile, open_overlay
from stages.recover.overlay_map import BlockMap, touched

_PIECE = 4 << 20  # bytes of written zeros, or of copied data, at a time
_COPY = 1 << 20
_CLEAR = 64 << 20  # bytes of zeros that hydration passes at a time
_HYDRATE_FLUSH = 256 << 20
_YIELD_SECONDS = 0.05  # hydration pauses after a span during which the guest was active


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """A snapshot: ``present`` of ``blocks`` need the base no more; ``flushes`` done so far."""

    blocks: int
    present: int
    flushes: int


class Overlay:
    """Copy-on-write ``Device`` over ``base``. Made by ``open``; ``close`` it at the end."""

    def __init__(self, base: Device, file: OverlayFile, blocks: BlockMap, machine: Machine):
        self._base = base
        self._file = file
        self._map = blocks
        self._offload = machine.offload
        self._hops = SharedHops(machine.offload)
        self._clock = machine.clock
        self._info = DeviceInfo(
            base.info.name,
            base.info.size,
            base.info.description,
            read_only=False,
            flags=DeviceFlags(flush=True, fua=True, trim=True, write_zeroes=True, multi_conn=True),
        )
        self._locks = RangeLocks()
        self._flushing = trio.Lock()
        self._begun = self._flushed = 0  # numbers of flushes
        # The first flush syncs in any case: a killed predecessor may have left unsynced writes.
        self._changes, self._saved_changes = 1, 0
        self._saved_version = blocks.version
        self._failed: OSError | None = None
        self._guest_calls = 0

    @classmethod
    async def open(cls, base: Device, machine: Machine, path: str, *, identity: str) -> Overlay:
        """Open or create the overlay in ``path`` (data) and ``path.map``.

        ``identity`` names the base's content (vault, group, point, disk), at most 1024 bytes: an
        overlay of another one is refused. ``TargetError`` if it is, or if the files are in use or
        not an overlay; ``StateDamaged`` if they do not verify.
        """
        prepare = partial(open_overlay, machine.files, path, base.info.size, identity)
        file, blocks = await machine.offload.run(prepare)
        return cls(base, file, blocks, machine)

    @property
    def info(self) -> DeviceInfo:
        """The base's name and size, writable."""
        return self._info

    @property
    def hydrated(self) -> bool:
        """The base is not needed any more."""
        return self._map.complete

    def statistics(self) -> OverlayStatistics:
        """An immutable snapshot."""
        return OverlayStatistics(self._map.blocks, self._map.present, self._flushed)

    async def read(self, offset: int, length: int) -> Sequence[Part]:
        """From the file where present, else from the base."""
        self._guest_calls += 1
        runs = self._map.runs(offset, length)
        ours = [(run.offset, run.size) for run in runs if run.present]
        if not ours:
            return await self._base.read(offset, length)
        contents = iter(await self._hops.run(partial(self._file.read, ours)))
        parts: list[Part] = []
        for run in runs:
            if run.present:
                parts.append(next(contents))
            else:
                parts += await self._base.read(run.offset, run.size)
        return parts

    async def write(self, offset: int, data: memoryview, fua: bool) -> None:
        """Write; what is missing at the edges of whole blocks comes from the base."""
        self._guest_calls += 1
        first, stop = touched(offset, len(data))
        async with self._locks.hold(first, stop):
            head, tail = await self._edges(offset, offset + len(data))
            parts: list[Buffer] = [head, data, tail]
            await self._change(first, stop, partial(self._file.write, offset - len(head), parts))
        if fua:
            await self.flush()

    async def trim(self, offset: int, length: int, fua: bool) -> None:
        """Whole blocks of the range read zeros afterwards; the edges stay as they are."""
        self._guest_calls += 1
        first, stop = self._map.whole(offset, length)
        if first < stop:
            await self._clear(first, stop)
        if fua:
            await self.flush()

    async def zero(self, offset: int, length: int, *, no_hole: bool, fua: bool) -> None:
        """Holes for whole blocks, or written zeros with ``no_hole``; written at the edges."""
        self._guest_calls += 1
        end = offset + length
        first, stop = self._map.whole(offset, length)
        if no_hole or first >= stop:
            await self._write_zeros(offset, end)
        else:
            await self._write_zeros(offset, first * BLOCK)
            await self._clear(first, stop)
            await self._write_zeros(stop * BLOCK, end)
        if fua:
            await self.flush()

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """The file's holes and data where present, else what the base says."""
        self._guest_calls += 1
        runs = self._map.runs(offset, length, most=wire.MAX_EXTENTS)
        ours = [(run.offset, run.size) for run in runs if run.present]
        probe = partial(self._file.extents, ours, wire.MAX_EXTENTS)
        local = iter(await self._hops.run(probe) if ours else ())
        found: list[Extent] = []
        for run in runs:
            if run.present:
                part = next(local, [])
            else:
                part = await self._base.extents(run.offset, run.size)
            found += part
            if sum(extent.length for extent in part) < run.size:
                break  # an answer may be shorter than its question
        return found

    async def flush(self) -> None:
        """Everything written before the call is durable on return.

        Calls that wait while a flush runs share the next one. A file whose sync failed once may
        have lost what it held in memory: every later flush fails too.
        """
        arrived = self._begun
        async with self._flushing:
            if self._flushed > arrived:
                return
            self._begun += 1
            number = self._begun
            await self._sync()
            self._flushed = number

    async def close(self) -> None:
        """Flush and release the file. Hydration and all users must have ended."""
        try:
            await self.flush()
        finally:
            self._file.file.close()

    async def hydrate(self, *, rate: int | None = None) -> None:
        """Copy what the base has and the guest did not overwrite, until the base is not needed.

        At most ``rate`` bytes a second; pauses while the guest is active. Stop it at any await and
        start it again: it goes on with the first absent block. Raises what the base raises.
        """
        copied = 0
        block = self._map.first_absent(0)
        while block is not None:
            seen = self._guest_calls
            size, block = await self._hydrate_at(block)
            copied += size
            if copied >= _HYDRATE_FLUSH:
                copied = 0
                await self.flush()
            pause = size / rate if rate else 0.0
            if self._guest_calls != seen:
                pause = max(pause, _YIELD_SECONDS)
            await self._clock.sleep(pause)
            block = self._map.first_absent(block)
        await self.flush()

    async def _hydrate_at(self, block: int) -> tuple[int, int]:
        """Make some blocks from ``block`` present: (bytes copied, the block to go on with)."""
        start = block * BLOCK
        left = self._map.runs(start, min(self._info.size - start, _CLEAR), most=1)[0].size
        extent = clip(await self._base.extents(start, left), left, one=True)[0]
        size = extent.length
        if extent.flags & wire.STATE_ZERO and (size == left or size >= BLOCK):
            stop = block + (-(-size // BLOCK) if size == left else size // BLOCK)
            await self._fill(block, stop, None)
            return 0, stop
        size = min(left, max(BLOCK, size - size % BLOCK), _COPY)
        # Read before locking: the base may be slow, and the guest must not wait for it.
        content = await self._joined(await self._base.read(start, size))
        stop = block + -(-size // BLOCK)
        await self._fill(block, stop, content)
        return size, stop

    async def _fill(self, first: int, stop: int, content: bytes | None) -> None:
        """Put zeros, or content that begins at ``first``, where blocks are still absent."""
        start = first * BLOCK
        size = min(stop * BLOCK, self._info.size) - start

        def store() -> None:
            for run in absent:
                if content is None:
                    self._file.clear(run.offset, run.size)
                else:
                    part = memoryview(content)[run.offset - start :][: run.size]
                    self._file.write(run.offset, [part])

        async with self._locks.hold(first, stop):
            absent = [run for run in self._map.runs(start, size) if not run.present]
            await self._change(first, stop, store)

    async def _edges(self, start: int, end: int) -> tuple[bytes, bytes]:
        """What the base has before and after the range in blocks that are not present yet."""
        first, stop = touched(start, end - start)
        before, after = first * BLOCK, min(stop * BLOCK, self._info.size)
        head = tail = b""
        if before < start and not self._map.presence(first, 1)[0]:
            head = await self._joined(await self._base.read(before, start - before))
        if end < after and not self._map.presence(stop - 1, 1)[0]:
            tail = await self._joined(await self._base.read(end, after - end))
        return head, tail

    async def _joined(self, parts: Sequence[Part]) -> bytes:
        if any(isinstance(part, FileRange) for part in parts):
            return await self._hops.run(partial(_join, parts))
        return _join(parts)

    async def _write_zeros(self, start: int, end: int) -> None:
        zeros = memoryview(bytes(min(_PIECE, max(0, end - start))))
        for at in range(start, end, _PIECE):
            await self.write(at, zeros[: end - at], fua=False)

    async def _clear(self, first: int, stop: int) -> None:
        offset = first * BLOCK
        size = min(stop * BLOCK, self._info.size) - offset
        async with self._locks.hold(first, stop):
            await self._change(first, stop, partial(self._file.clear, offset, size))

    async def _change(self, first: int, stop: int, call: Callable[[], None]) -> None:
        """Change the file under a lock, then count the blocks as present: no await in between."""
        self._changes += 1
        await self._hops.run(call)
        self._map.mark(first, stop - first)

    async def _sync(self) -> None:
        """The order that makes a map true: snapshot, then data, then the map."""
        if self._failed is not None:
            raise OSError(errno.EIO, "an earlier sync of the overlay failed") from self._failed
        changes = self._changes
        if changes == self._saved_changes:
            return
        snapshot = self._map.snapshot() if self._map.version != self._saved_version else None
        try:
            await self._offload.run(self._file.file.fdatasync)
        except OSError as error:
            self._failed = error
            raise
        if snapshot is not None:
            await self._offload.run(partial(self._file.save, snapshot))
            self._saved_version = snapshot.version
        self._saved_changes = changes


def _join(parts: Sequence[Part]) -> bytes:
    buffers: list[Buffer] = [
        part.file.pread(part.offset, part.length) if isinstance(part, FileRange) else part
        for part in parts
    ]
    return b"".join(buffers)
