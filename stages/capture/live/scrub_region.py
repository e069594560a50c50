"""Does a region of a source still hold what the vault holds? Judged only where that can be told.

While a group is consistent, what a block of the source holds has to become what the vault holds.
When may a difference be judged? A window is open from before the comparison to its end, so every
write that ended in it is marked. So the newest version of a block that is not marked, and not
locked, stands in the stream before the head at the moment when the window was opened; and once
delivery has committed everything up to there, its digests are of that version or a later one, and a
later one would be marked. Without that wait the vault would simply be behind. Judged is in one step
with closing the window, and only if no gap has begun: a gap says itself that the vault differs.

Blocks whose digest is not known (after a crash, until they are written or scanned again) prove
nothing and are counted as ``unproven``, like those that are written meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import trio

from stages.capture.examiner import Examined, InlineExaminers
from stages.capture.live.windows import Windows
from stages.digests import DigestKeys, same
from stages.model import CHUNK, CHUNK_BLOCKS, U64, UNKNOWN, Bools, blocks_of, chunks_of
from stages.ports import Machine, OpenFile
from stages.stream import REGION, REGION_BLOCKS, Downstream, Position

_CHUNKS = REGION // CHUNK
_PATIENCE = 60.0  # seconds for delivery to catch up; then the region is looked at later


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Blocks of a disk that differ from the vault without a write."""

    disk: int
    name: str
    region: int
    blocks: tuple[int, ...]  # of the disk, ascending

    def __str__(self) -> str:
        count, first = len(self.blocks), self.blocks[0]
        return (
            f"{self.name}: {count} block{'s' * (count != 1)} from {first} on differ from the vault "
            "without a write"
        )


class Scrubbed(Protocol):
    """A disk that is scrubbed."""

    name: str
    size: int

    def locked(self, first: int, count: int) -> Bools | None:
        """Which blocks a write in progress holds; None for none."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the scrub needs of its group.

    ``steady``: no gap is open, writes are journalled, nothing is being changed. ``disks``: those
    there are. ``hold``: runs a call alone, no scan or change of disks beside it; it is cancelled
    when one has to begin, and the result is then None. ``head``: of the stream. ``yielding`` waits
    while scans have to. ``diverged``: called within ``hold``: make these regions pending, durably,
    and begin a gap.
    """

    steady: Callable[[], bool]
    disks: Callable[[], Mapping[int, Scrubbed]]
    file: Callable[[int], OpenFile]
    hold: Callable[[Callable[[], Awaitable[Mismatch | bool]]], Awaitable[Mismatch | bool | None]]
    head: Callable[[], Position]
    yielding: Callable[[], Awaitable[None]]
    diverged: Callable[[Mismatch], Awaitable[None]]
    downstream: Downstream
    windows: Windows


class Judge:
    """Compares single regions of a group's disks with the vault."""

    def __init__(self, machine: Machine, host: Host):
        self._machine = machine
        self._host = host

    async def compare(self, disk: int, region: int, target: Scrubbed) -> tuple[Bools, int] | None:
        """Which blocks (n,) of the region differ, and how many prove nothing; None: not now.

        Raises ``DeliveryGone``, ``SourceIO`` if the region cannot be read.
        """
        host = self._host
        offset = region * REGION
        length = min(REGION, target.size - offset)
        first, count = region * REGION_BLOCKS, blocks_of(length)
        keys = DigestKeys.derive(await host.downstream.key())
        host.windows.open(disk, region)
        try:
            if not await self._caught_up():
                return None
            blocks = await host.downstream.blocks(disk, first, count)
            chunks = await host.downstream.chunks(disk, region * _CHUNKS, chunks_of(length))
            examiners = InlineExaminers(self._machine.offload, batch=REGION, slots=1)
            async with examiners.open([host.file(disk)], keys) as examiner:
                seen = await examiner.examine(0, offset, length, chunks)
                try:
                    # No await from here on: what is judged holds for one moment.
                    if not host.steady():
                        return None
                    written = host.windows.close(disk, region)[:count]
                    held = target.locked(first, count)
                    open_to_doubt = written if held is None else written | held
                    return judged(seen, chunks, blocks, open_to_doubt)
                finally:
                    seen.release()
        finally:
            host.windows.close(disk, region)

    async def _caught_up(self) -> bool:
        """Delivery has committed all that stands in the stream now; False: not in time."""
        with trio.move_on_after(_PATIENCE) as waited:
            await self._host.downstream.wait_committed(self._host.head())
        return not waited.cancelled_caught


def judged(seen: Examined, chunks: U64, blocks: U64, doubt: Bools) -> tuple[Bools, int]:
    """Of n blocks: those that differ from the vault's, and how many prove nothing.

    ``doubt`` (n,): written meanwhile. A chunk whose digest is the vault's is equal as a whole.
    """
    count = len(blocks)
    changed = np.repeat(~same(seen.chunks, chunks), CHUNK_BLOCKS)[:count]
    changed[(count // CHUNK_BLOCKS) * CHUNK_BLOCKS :] = True  # a last chunk has no digest
    unknown = same(blocks, UNKNOWN)
    unproven = changed & (doubt | unknown)
    differs = changed & ~unproven & ~same(seen.blocks, blocks)
    return differs, int(np.count_nonzero(unproven))
