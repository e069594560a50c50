"""The arrays of one disk: block map, digests of blocks and of chunks, and what changed of them.

A commit that arrives late may have been planned when the disk was larger: what lies beyond its
present end is passed over, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from stages.model import CHUNK_BLOCKS, U64, UNKNOWN, Bools, Disk, Runs, distinct
from stages.model import ZERO as ZERO_DIGEST
from stages.ports import Files
from stages.vault import location
from stages.vault.paged import PagedArray

MAP_PAGE = 8192  # rows of a checkpoint page: 32 MiB of disk


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
        with ExitStack() as opened:  # all of them or none
            found = []
            for name in ("map", "digests", "chunks"):
                found.append(files.open_write(f"{stem}.{name}", create=True))
                opened.callback(found[-1].close)
            opened.pop_all()
        self.map = PagedArray(found[0], 1)
        self.digests = PagedArray(found[1], 2)
        self.chunks = PagedArray(found[2], 2, cache=2 << 20)
        self.dirty = DirtyPages()

    def resize(self, disk: Disk) -> None:
        """Follow the disk's size; what is new is unset and unknown, also of a chunk cut short."""
        rows = min(self.map.rows, disk.blocks)
        if self.map.rows != disk.blocks and rows % CHUNK_BLOCKS:
            self.chunks.fill(rows // CHUNK_BLOCKS, 1, UNKNOWN)
        self.map.resize(disk.blocks)
        self.digests.resize(disk.blocks)
        self.chunks.resize(-(-disk.blocks // CHUNK_BLOCKS))
        self.dirty.resize(disk.blocks)

    def arrays(self) -> Iterator[tuple[str, PagedArray]]:
        """All arrays by name."""
        yield "map", self.map
        yield "digests", self.digests
        yield "chunks", self.chunks

    def set_data(self, runs: Runs, locations: U64, digests: U64) -> None:
        """Blocks of ``runs`` are at ``locations`` (n, 1) and have ``digests`` (n, 2)."""
        if self._leaves(runs):
            keep = runs.blocks() < np.uint64(self.map.rows)
            runs, locations, digests = self._cut(runs), locations[keep], digests[keep]
        self.forget_chunks(runs)
        self.map.assign(runs, locations)
        self.digests.assign(runs, digests)
        self.dirty.mark_runs(runs)

    def set_zero(self, runs: Runs) -> None:
        """Blocks are zero now, and so are the chunks that lie inside a run."""
        runs = self._cut(runs)
        self.forget_chunks(runs)
        self.map.fill_runs(runs, location.ZERO)
        self.digests.fill_runs(runs, ZERO_DIGEST)
        first = (runs.start + np.uint64(CHUNK_BLOCKS - 1)) // np.uint64(CHUNK_BLOCKS)
        ends = runs.start + runs.count
        last = ends // np.uint64(CHUNK_BLOCKS)  # never a part chunk: it may grow
        whole = last > first
        self.chunks.fill_runs(Runs(first[whole], (last - first)[whole]), ZERO_DIGEST)
        self.dirty.mark_runs(runs)

    def set_refs(self, blocks: U64, locations: U64, digests: U64) -> None:
        """Blocks (n,) take ``locations`` (n, 1) and ``digests`` (n, 2) of what they equal."""
        keep = blocks < np.uint64(self.map.rows)
        blocks = blocks[keep]
        self.forget_chunks(Runs.of(distinct(blocks)))
        self.map.scatter(blocks, locations[keep])
        self.digests.scatter(blocks, digests[keep])
        self.dirty.mark(blocks)

    def set_chunks(self, first: int, digests: U64) -> None:
        """Digests (n, 2) of consecutive chunks, as seen when all their blocks were."""
        self.chunks.write(first, digests[: max(0, self.chunks.rows - first)])

    def doubt(self, runs: Runs) -> None:
        """What the vault holds in these blocks is unknown."""
        runs = self._cut(runs)
        self.forget_chunks(runs)
        self.digests.fill_runs(runs, UNKNOWN)

    def forget_chunks(self, runs: Runs) -> None:
        """What is known of the chunks that these runs touch no longer holds."""
        chunk = np.uint64(CHUNK_BLOCKS)
        first = runs.start // chunk
        last = (runs.start + runs.count - np.uint64(1)) // chunk
        long = last - first > np.uint64(4096)
        for start, end in zip(first[long].tolist(), last[long].tolist(), strict=True):
            self.chunks.fill(start, end - start + 1, UNKNOWN)
        touched = distinct(Runs(first[~long], (last - first)[~long] + np.uint64(1)).blocks())
        self.chunks.scatter(touched, np.zeros((len(touched), 2), np.uint64))

    def _leaves(self, runs: Runs) -> bool:
        return len(runs.start) > 0 and int((runs.start + runs.count).max()) > self.map.rows

    def _cut(self, runs: Runs) -> Runs:
        """Runs as far as the disk reaches."""
        if not self._leaves(runs):
            return runs
        rows = np.uint64(self.map.rows)
        inside = runs.start < rows
        start, count = runs.start[inside], runs.count[inside]
        return Runs(start, np.minimum(count, rows - start))
