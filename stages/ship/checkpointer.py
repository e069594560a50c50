"""Writing checkpoints: changed pages in parts, the manifest last."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages.model import U64
from stages.ports import Buffer
from stages.ship.session import LogSession
from stages.vault import checkpoint, layout
from stages.vault.checkpoint import (
    DIGESTS,
    FRAMES,
    MAP,
    PAGE_ROWS,
    DiskPages,
    EpochPages,
    Manifest,
    PageName,
)
from stages.vault.paged import PagedArray

SHARE = 0.05  # checkpoint bytes stay below this share of shipped bytes
GAP_COMMITS = 256  # inside a gap: as many commits as one rollup holds
_PART_BYTES = 8 << 20
_ROW_BYTES = 24  # a row of map and digests together
_PLACE_BYTES = 24  # a row of a page table
_EPOCH_BYTES = 64  # what naming an epoch adds to a manifest, its page table apart
_SEALED = 512  # what sealing a page or a manifest adds, at most


@dataclass
class _Part:
    """Pages gathered for one object."""

    number: int = 0
    size: int = 0
    pages: list[Buffer] = field(default_factory=list)


class Checkpointer:
    """Writes checkpoints of one session's group."""

    def __init__(self, session: LogSession):
        self._session = session
        self._part = _Part()

    def due(self, *, in_gap: bool = False) -> bool:
        """True if a checkpoint now would stay within its share of what was shipped since.

        ``in_gap``: the commit at the tail is no consistent point. Nobody restores it, and what a
        scan goes on to find would have the same pages written again and again: so only once a
        reader would have that many commits to fold.
        """
        ledger = self._session.ledger
        if in_gap and ledger.tail.seq - ledger.tail.checkpoint < GAP_COMMITS:
            return False
        if not any(disk.dirty.flags.any() for disk in ledger.record.disks.values()):
            return False
        return self._most() <= SHARE * ledger.tail.stored

    def _most(self) -> int:
        """Bytes that a checkpoint now would store, at most: incompressible pages, all tables."""
        ledger = self._session.ledger
        size = _SEALED + _EPOCH_BYTES * len(ledger.epoch_rows)
        for disk in ledger.record.disks.values():
            flags = disk.dirty.flags
            pages = int((flags & disk.map.stored(PAGE_ROWS)).sum())
            size += pages * (PAGE_ROWS * _ROW_BYTES + _SEALED) + len(flags) * 2 * _PLACE_BYTES
        for epoch, directory in ledger.record.frames.items():
            kept = max(0, len(ledger.tables.get(f"epoch-{epoch}", ())) - 1) * PAGE_ROWS
            size += (directory.rows - kept) * 16 + _SEALED
        return size + sum(map(len, ledger.tables.values())) * _PLACE_BYTES

    async def write(self) -> None:
        """Write a checkpoint at the tail. Interrupted, it leaves parts that nothing refers to."""
        session = self._session
        seq = session.ledger.tail.seq
        # Named after the epoch too: parts of an interrupted attempt are never taken for these.
        self._part = _Part(session.keys.epoch << 16)
        tables: dict[str, U64] = {}
        disks = []
        for number, disk in sorted(session.ledger.record.disks.items()):
            dirty = disk.dirty.flags
            map_table = await self._pages(f"disk-{number}.map", MAP, number, disk.map, dirty)
            digest_table = await self._pages(
                f"disk-{number}.digests", DIGESTS, number, disk.digests, dirty
            )
            tables[f"disk-{number}.map"] = map_table
            tables[f"disk-{number}.digests"] = digest_table
            disks.append(DiskPages(number, disk.map.rows, map_table, digest_table))
        # In a part of their own: tables of old epochs stay as they are, and whatever lay beside
        # them would stay with them for ever.
        await self._flush()
        epochs = await self._epochs(tables)
        await self._flush()
        manifest = Manifest(seq, session.ledger.tail.link, tuple(disks), tuple(epochs))
        writer = session.writer
        parts = checkpoint.manifest_object(
            writer.scope, session.keys, manifest, writer.signer, writer.machine.entropy
        )
        await writer.store.put(layout.manifest(writer.scope.group, seq), parts)
        await writer.machine.offload.run(lambda: session.ledger.checkpointed(seq, tables))

    async def _epochs(self, tables: dict[str, U64]) -> list[EpochPages]:
        ledger = self._session.ledger
        known = dict(ledger.epoch_rows)
        for epoch, directory in ledger.record.frames.items():
            known[epoch] = directory.rows
        found = []
        for epoch, rows in sorted(known.items()):
            name = f"epoch-{epoch}"
            directory_now = ledger.record.frames.get(epoch)
            if directory_now is None:
                tables[name] = ledger.tables[name]
            else:
                old = ledger.tables.get(name)
                dirty = np.ones(-(-rows // PAGE_ROWS), np.bool_)
                if old is not None:
                    dirty[: max(0, len(old) - 1)] = False  # the last page may have grown
                tables[name] = await self._pages(name, FRAMES, epoch, directory_now, dirty)
            found.append(EpochPages(epoch, rows, tables[name]))
        return found

    async def _pages(
        self, name: str, what: int, owner: int, array: PagedArray, dirty: np.ndarray
    ) -> U64:
        """Store the dirty pages of an array; return its new table."""
        old = self._session.ledger.tables.get(name)
        count = -(-array.rows // PAGE_ROWS)
        table = np.zeros((count, 3), np.uint64)
        if old is not None:
            keep = min(len(old), count)
            table[:keep] = old[:keep]
            dirty = dirty.copy()
            dirty[keep:] = True
        for page in np.flatnonzero(dirty).tolist():
            table[page] = await self._page(PageName(what, owner, page, self._seq), array)
        return table

    async def _page(self, name: PageName, array: PagedArray) -> tuple[int, int, int]:
        first = name.page * PAGE_ROWS
        count = min(PAGE_ROWS, array.rows - first)
        rows = self._session.ledger.rows(array, first, count)
        if isinstance(rows, tuple):
            if _needs_no_page(rows, name.what):
                return name.seq, rows[-1], 0
            rows = np.tile(np.array(rows, np.uint64), (count, 1))
        writer = self._session.writer
        stored = checkpoint.seal_page(
            writer.scope, self._session.keys, name, rows, writer.machine.entropy
        )
        if self._part.size + len(stored) > _PART_BYTES:
            await self._flush()
        place = self._part.number << checkpoint.OFFSET_BITS | self._part.size
        self._part.pages.append(stored)
        self._part.size += len(stored)
        return name.seq, place, len(stored)

    async def _flush(self) -> None:
        if self._part.pages:
            key = layout.checkpoint_part(self._group, self._seq, self._part.number)
            await self._session.writer.store.put(key, self._part.pages)
            self._part = _Part(self._part.number + 1)

    @property
    def _seq(self) -> int:
        return self._session.ledger.tail.seq

    @property
    def _group(self) -> bytes:
        return self._session.writer.scope.group


def _needs_no_page(row: tuple[int, ...], what: int) -> bool:
    """True if a page whose rows all equal ``row`` can be told in a table row."""
    return what == MAP or (what == DIGESTS and row[0] == 0)
