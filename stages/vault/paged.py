"""A huge array in a sparse file, in pages, with a cache bounded in bytes.

Block maps and digests of a 1 TiB disk are gigabytes, yet a run touches little of them and long
stretches hold one value. So a page is *uniform* (its value kept in memory, no file space) or
*stored*. Memory mapping would be shorter, but turns a full state disk into SIGBUS and counts every
touched page as resident; reads and writes report ENOSPC as an error and stay within ``cache``.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import zstandard

from stages.model import U8, U64, Bools, Ints, Runs
from stages.ports import OpenFile

PAGE_ROWS = 4096
_UNIFORM, _STORED = 0, 1
_MAX_STATE = 256 << 20


class PagedArray:
    """``rows`` rows of ``columns`` uint64, all zero at first.

    Not safe for two threads at once: its owner serialises calls. All calls block.
    """

    def __init__(self, file: OpenFile, columns: int, *, cache: int = 8 << 20):
        self._file = file
        self.path = file.path
        self._columns = columns
        self._page_bytes = PAGE_ROWS * columns * 8
        self._limit = max(4, cache // self._page_bytes)
        self._pages: OrderedDict[int, U64] = OrderedDict()
        self._dirty: set[int] = set()
        self._state: U8 = np.zeros(0, np.uint8)
        self._uniform: U64 = np.zeros((0, columns), np.uint64)
        self.rows = 0

    def resize(self, rows: int) -> None:
        """Grow with zeros, or cut; what is cut and grown again is zero.

        Cutting writes nothing: the rows are still there for who restores an older page table.
        Raises ``ValueError`` for more rows than ``sync`` could keep.
        """
        pages = -(-rows // PAGE_ROWS)
        if self._state_bytes(pages) > _MAX_STATE:
            raise ValueError(f"{rows} rows are more than an array holds")
        if rows > self.rows:
            self._clear_tail()
        old = len(self._state)
        if pages < old:
            self._forget(pages, old)
            self._state = self._state[:pages].copy()
            self._uniform = self._uniform[:pages].copy()
        elif pages > old:
            self._state = np.concatenate((self._state, np.zeros(pages - old, np.uint8)))
            extra = np.zeros((pages - old, self._columns), np.uint64)
            self._uniform = np.concatenate((self._uniform, extra))
        self.rows = rows

    def read(self, first: int, count: int) -> U64:
        """Rows ``first`` to ``first + count``: (count, columns), a copy."""
        out = np.empty((count, self._columns), np.uint64)
        for page, low, high, at in self._pieces(first, count):
            if self._state[page] == _UNIFORM:
                out[at : at + high - low] = self._uniform[page]
            else:
                out[at : at + high - low] = self._load(page)[low:high]
        return out

    def write(self, first: int, values: U64) -> None:
        """Set rows from ``first``; ``values`` (n, columns)."""
        for page, low, high, at in self._pieces(first, len(values)):
            self._touch(page)[low:high] = values[at : at + high - low]

    def fill(self, first: int, count: int, value: int | tuple[int, ...]) -> None:
        """Set a run of rows to one value; whole pages cost no file space."""
        if count <= 0:
            return
        self._check(first, count)
        row = np.array(value if isinstance(value, tuple) else (value,) * self._columns, np.uint64)
        end = first + count
        whole_first = -(-first // PAGE_ROWS)
        whole_end = end // PAGE_ROWS
        if end == self.rows:
            whole_end = len(self._state)
        if whole_end <= whole_first:
            whole_first = whole_end = first // PAGE_ROWS
            edges = [(first, end)]
        else:
            edges = [(first, whole_first * PAGE_ROWS), (whole_end * PAGE_ROWS, end)]
        for low, high in edges:
            for page, a, b, _ in self._pieces(low, high - low):
                if self._state[page] == _UNIFORM and (self._uniform[page] == row).all():
                    continue
                self._touch(page)[a:b] = row
        if whole_end > whole_first:
            self._forget(whole_first, whole_end)
            self._state[whole_first:whole_end] = _UNIFORM
            self._uniform[whole_first:whole_end] = row

    def fill_runs(self, runs: Runs, value: int | tuple[int, ...]) -> None:
        """Set all rows of ``runs``, which ascend, to one value; many short runs at once."""
        long = runs.count >= np.uint64(PAGE_ROWS)
        for start, count in zip(runs.start[long].tolist(), runs.count[long].tolist(), strict=True):
            self.fill(start, count, value)
        row = np.array(value if isinstance(value, tuple) else (value,) * self._columns, np.uint64)
        short = np.flatnonzero(~long)
        for at in range(0, len(short), PAGE_ROWS):
            piece = short[at : at + PAGE_ROWS]
            rows = Runs(runs.start[piece], runs.count[piece]).blocks()
            self.scatter(rows, np.broadcast_to(row, (len(rows), self._columns)))

    def gather(self, rows: U64) -> U64:
        """Rows by number, any order: (n, columns)."""
        out = np.empty((len(rows), self._columns), np.uint64)
        order, bounds, pages = self._by_page(rows)
        for page, low, high in zip(pages, bounds[:-1], bounds[1:], strict=True):
            pick = slice(low, high) if order is None else order[low:high]
            if self._state[page] == _UNIFORM:
                out[pick] = self._uniform[page]
            else:
                out[pick] = self._load(page)[rows[pick].astype(np.int64) - page * PAGE_ROWS]
        return out

    def scatter(self, rows: U64, values: U64) -> None:
        """Set rows by number; where a number occurs twice the later value wins."""
        order, bounds, pages = self._by_page(rows)
        for page, low, high in zip(pages, bounds[:-1], bounds[1:], strict=True):
            pick = slice(low, high) if order is None else order[low:high]
            self._touch(page)[rows[pick].astype(np.int64) - page * PAGE_ROWS] = values[pick]

    def assign(self, runs: Runs, values: U64) -> None:
        """Set the blocks of ``runs``, in order, to ``values`` (n, columns)."""
        if len(runs.start) * 64 > len(values):
            self.scatter(runs.blocks(), values)
            return
        at = 0
        for start, count in zip(runs.start.tolist(), runs.count.tolist(), strict=True):
            self.write(start, values[at : at + count])
            at += count

    def uniform(self, first: int, count: int) -> tuple[int, ...] | None:
        """The row that all those rows equal, if they lie in uniform pages; else None."""
        low, high = first // PAGE_ROWS, -(-(first + count) // PAGE_ROWS)
        if self._state[low:high].any() or (self._uniform[low:high] != self._uniform[low]).any():
            return None
        return tuple(self._uniform[low].tolist())

    def stored(self, rows: int) -> Bools:
        """Which stretches of ``rows`` rows (a multiple of the page's) take file space."""
        pages = rows // PAGE_ROWS
        padded = np.zeros(-(-len(self._state) // pages) * pages, np.uint8)
        padded[: len(self._state)] = self._state
        return np.asarray(padded.reshape(-1, pages).any(axis=1), np.bool_)

    def flush(self) -> None:
        """Write dirty pages to the file (no fsync)."""
        for page in sorted(self._dirty):
            self._store(page, self._pages[page])
        self._dirty.clear()

    def sync(self) -> bytes:
        """Make the pages durable; return the page table, to be kept durably by the caller."""
        self.flush()
        self._file.fdatasync()
        raw = self._state.tobytes() + self._uniform.tobytes()
        return self.rows.to_bytes(8, "little") + zstandard.ZstdCompressor(level=1).compress(raw)

    def restore(self, table: bytes) -> None:
        """Take up again where ``sync`` left off. Raises ``ValueError`` on a damaged table."""
        rows = int.from_bytes(table[:8], "little")
        pages = -(-rows // PAGE_ROWS)
        size = self._state_bytes(pages)
        try:
            if size > _MAX_STATE or zstandard.frame_content_size(table[8:]) != size:
                raise ValueError("page table of another size")
            raw = zstandard.ZstdDecompressor().decompress(table[8:])
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        self.rows = rows
        self._state = np.frombuffer(raw, np.uint8, pages).copy()
        self._uniform = (
            np.frombuffer(raw, np.uint64, offset=pages).reshape(pages, self._columns).copy()
        )
        self._pages.clear()
        self._dirty.clear()

    def close(self) -> None:
        """Release the file; what is not synced is lost."""
        self._file.close()

    def _pieces(self, first: int, count: int) -> list[tuple[int, int, int, int]]:
        """Cut a range at page borders: page, first and last row inside, offset in the range."""
        if count <= 0:
            return []
        self._check(first, count)
        found = []
        at = 0
        while at < count:
            page, low = divmod(first + at, PAGE_ROWS)
            step = min(PAGE_ROWS - low, count - at)
            found.append((page, low, low + step, at))
            at += step
        return found

    def _check(self, first: int, count: int) -> None:
        if first < 0 or first + count > self.rows:
            raise IndexError(f"rows {first}+{count} of {self.rows}")

    def _state_bytes(self, pages: int) -> int:
        return pages * (1 + 8 * self._columns)

    def _clear_tail(self) -> None:
        """Zero what the last page holds beyond the last row: a fill writes it up to its end."""
        page, used = divmod(self.rows, PAGE_ROWS)
        if used and (self._state[page] != _UNIFORM or self._uniform[page].any()):
            self._touch(page)[used:] = 0

    def _forget(self, first: int, end: int) -> None:
        """Drop cached pages from ``first`` to before ``end``: nobody will read them again."""
        for page in [page for page in self._pages if first <= page < end]:
            del self._pages[page]
            self._dirty.discard(page)

    def _load(self, page: int) -> U64:
        cached = self._pages.get(page)
        if cached is not None:
            self._pages.move_to_end(page)
            return cached
        while len(self._pages) >= self._limit:  # first: if it fails, nothing has changed
            self._evict()
        if self._state[page] == _UNIFORM:
            loaded = np.empty((PAGE_ROWS, self._columns), np.uint64)
            loaded[:] = self._uniform[page]
        else:
            raw = bytearray(self._page_bytes)
            self._file.pread_into(page * self._page_bytes, memoryview(raw))
            loaded = np.frombuffer(raw, np.uint64).reshape(PAGE_ROWS, self._columns)
        self._pages[page] = loaded
        return loaded

    def _evict(self) -> None:
        page, values = self._pages.popitem(last=False)
        if page in self._dirty:
            try:
                self._store(page, values)
            except OSError:
                self._pages[page] = values  # nothing is lost: the caller sees the error
                self._pages.move_to_end(page, last=False)
                raise
            self._dirty.discard(page)

    def _touch(self, page: int) -> U64:
        values = self._load(page)
        self._state[page] = _STORED
        self._dirty.add(page)
        return values

    def _store(self, page: int, values: U64) -> None:
        self._file.pwrite(page * self._page_bytes, values.data)

    def _by_page(self, rows: U64) -> tuple[Ints | None, list[int], list[int]]:
        """Group row numbers by page: a stable order (None if they are), bounds, pages.

        16 bits sort several times as fast as 64, and are enough for a disk of a terabyte.
        """
        if not len(rows):
            return None, [0], []
        self._check(0, int(rows.max()) + 1)
        pages = rows // np.uint64(PAGE_ROWS)
        order = None
        if (pages[1:] < pages[:-1]).any():
            few = int(pages.max()) < 1 << 16
            order = np.argsort(pages.astype(np.uint16) if few else pages, kind="stable")
            pages = pages[order]
        starts = np.concatenate(([0], np.flatnonzero(pages[1:] != pages[:-1]) + 1))
        return order, [*starts.tolist(), len(rows)], pages[starts].tolist()
