"""Everything that has a size, made small: pages, caches, rollups, checkpoints come often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from stages.ports import OpenFile
from stages.recover import beneath, changes, delta, folding, points
from stages.recover import verify as recover_verify
from stages.ship import checkpointer, disk_record, record, rollups
from stages.vault import checkpoint, commits, paged, rollup

ROWS = 16  # of a page in the writer's arrays
PAGE = 32  # rows of a checkpoint's page
SPAN = 4  # commits of a rollup


@contextmanager
def small_pages() -> Iterator[None]:
    """Pages of few rows, of which one is cached: arrays are written at any time."""

    def array(file: OpenFile, columns: int, *, cache: int = 0) -> paged.PagedArray:
        made = paged.PagedArray(file, columns, cache=0)
        made._limit = 1
        return made

    with changed(
        (paged, "PAGE_ROWS", ROWS),
        (checkpoint, "PAGE_ROWS", PAGE),
        (checkpointer, "PAGE_ROWS", PAGE),
        (beneath, "PAGE_ROWS", PAGE),
        (changes, "PAGE_ROWS", PAGE),
        (folding, "PAGE_ROWS", PAGE),
        (disk_record, "MAP_PAGE", PAGE),
        (record, "PagedArray", array),
        (disk_record, "PagedArray", array),
        (delta, "PagedArray", array),
    ):
        yield


@contextmanager
def small_rollups() -> Iterator[None]:
    """A rollup every few commits, and readers that use it for any stretch."""
    modules = [rollup, rollups, points, folding, recover_verify]
    spans = [(module, "SPAN", SPAN) for module in modules]
    # A rollup is read if it spares more requests than go at a time.
    with changed((commits, "PARALLEL", 2), *spans):
        yield


@contextmanager
def eager_checkpoints() -> Iterator[None]:
    """A checkpoint after every commit that changed something, inside a gap too."""
    with changed((checkpointer, "SHARE", 1e9), (checkpointer, "GAP_COMMITS", 1)):
        yield


@contextmanager
def changed(*places: tuple[Any, str, object]) -> Iterator[None]:
    """Other values for module variables while it lasts."""
    with ExitStack() as stack:
        for module, name, value in places:
            stack.enter_context(mock.patch.object(module, name, value))
        yield
