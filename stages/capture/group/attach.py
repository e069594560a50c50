"""What must be compared when intake starts, or its disks change: pure (R6, R7, R9, R10).

Unclean: what was hot. Clean, and a source's identity is not what it was: all of that disk. A log or
a journal that cannot be relied on: everything. What a scan had not finished: still that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.capture.activity.codec import DiskFound, DiskSpan, Found, SourceId
from stages.errors import IllegalOperation
from stages.model import Bools
from stages.stream import REGION


@dataclass(frozen=True, slots=True)
class DiskNow:
    """A disk as it is found: its name, size in bytes, and whether its source can be told to be
    exactly what was detached. ``vouched``: the operator says that it is."""

    name: str
    size: int
    unchanged: bool
    source: SourceId | None = None
    vouched: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """``spans``: the disks with their numbers; ``pending``: regions to compare, by number.

    ``in_gap``: the stream begins inside a gap. ``reasons``: why, for people.
    """

    spans: tuple[DiskSpan, ...]
    pending: Mapping[int, Bools]
    in_gap: bool
    next_disk: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiskChange:
    """What changes while a group runs. ``spans``: the disks from then on.

    By number: ``gone`` are the sources that go, ``fresh`` those that come (a disk whose source is
    another one is in both), ``grown`` the disks that are larger now. ``reason``: why a gap begins,
    empty if none does.
    """

    spans: tuple[DiskSpan, ...]
    gone: tuple[int, ...]
    fresh: tuple[int, ...]
    grown: tuple[int, ...]
    reason: str


def change(before: Sequence[DiskSpan], disks: Sequence[DiskNow], next_disk: int) -> DiskChange:
    """From the disks of a running group to these. ``unchanged``: its source is the one that is
    open. Sizes never shrink."""
    known = {span.name: span for span in before}
    spans: list[DiskSpan] = []
    fresh: list[int] = []
    grown: list[int] = []
    reasons: list[str] = []
    for disk in disks:
        old = known.get(disk.name)
        number = next_disk if old is None else old.number
        next_disk = max(next_disk, number + 1)
        spans.append(DiskSpan(number, disk.name, disk.size, disk.source))
        if old is None or not disk.unchanged:
            fresh.append(number)
            reasons.append(f"{disk.name}: {'a new disk' if old is None else 'another source'}")
        elif disk.size > old.size:
            grown.append(number)
            reasons.append(f"{disk.name}: has grown from {old.size} to {disk.size} bytes")
    stays = {span.number for span in spans}.difference(fresh)
    gone = tuple(span.number for span in before if span.number not in stays)
    return DiskChange(tuple(spans), gone, tuple(fresh), tuple(grown), "; ".join(reasons))


def attach(
    found: Found | None,
    disks: Sequence[DiskNow],
    *,
    journal_damaged: str,
    journal_lost: bool,
    unlogged: str = "",
) -> Attached:
    """``found`` is the activity log as it was left, None if there was none; ``unlogged`` the
    witness that it does not know everything, if one stands. Raises ``IllegalOperation`` if a disk
    is vouched for and that is not enough."""
    distrust = _distrust(found, journal_damaged, unlogged, journal_lost=journal_lost)
    check_vouched(found, [disk.name for disk in disks if disk.vouched], distrust)
    known = {disk.span.name: disk for disk in found.disks} if found and found.valid else {}
    next_disk = found.next_disk if found and found.valid else 0
    clean = found is not None and found.clean
    spans: list[DiskSpan] = []
    pending: dict[int, Bools] = {}
    reasons: list[str] = [distrust] if distrust else []
    for disk in disks:
        before = known.get(disk.name)
        number = next_disk if before is None else before.span.number
        next_disk = max(next_disk, number + 1)
        spans.append(DiskSpan(number, disk.name, disk.size, disk.source))
        todo, why = _of_disk(disk, before, clean=clean, all_of_it=bool(distrust))
        pending[number] = todo
        if why:
            reasons.append(f"{disk.name}: {why}")
    gone = set(known) - {disk.name for disk in disks}
    was_in_gap = found is None or not found.valid or not found.clean or found.in_gap
    in_gap = was_in_gap or any(bool(todo.any()) for todo in pending.values())
    reasons += [f"{name}: not protected any more" for name in sorted(gone)]
    return Attached(tuple(spans), pending, in_gap, next_disk, tuple(reasons))


def check_vouched(found: Found | None, names: Sequence[str], distrust: str) -> None:
    """That nobody wrote to a disk while it was detached is worth something only if all that was
    written before is known. Raises ``IllegalOperation``."""
    known = {disk.span.name for disk in found.disks} if found is not None else set()
    for name in names:
        if distrust:
            why = distrust
        elif found is None or not found.clean:
            why = "the last stop was not clean: what was written last must be compared"
        elif name not in known:
            why = "it was not protected before: it must be read once"
        else:
            continue
        raise IllegalOperation(
            f"cannot be taken as unchanged: {why}",
            operation="run --unchanged",
            subject=name,
            hint="run it without --unchanged",
        )


def _distrust(found: Found | None, damaged: str, unlogged: str, *, journal_lost: bool) -> str:
    """Why nothing is known of any disk; empty if something is."""
    if found is None:
        return "first start: everything is compared"
    if not found.valid:
        return f"the activity log cannot be relied on ({found.reason}): everything is compared"
    if unlogged:
        return f"the activity log missed writes (says {unlogged}): everything is compared"
    if damaged:
        return f"the journal is damaged ({damaged}): everything is compared"
    if journal_lost:
        return "the journal is not where it was left: everything is compared"
    return ""


def _of_disk(
    disk: DiskNow, before: DiskFound | None, *, clean: bool, all_of_it: bool
) -> tuple[Bools, str]:
    regions = -(-disk.size // REGION)
    if all_of_it:
        return np.ones(regions, np.bool_), ""
    if before is None:
        return np.ones(regions, np.bool_), "a new disk"
    if clean and not (disk.unchanged or disk.vouched):
        return np.ones(regions, np.bool_), "may have been written to while it was detached"
    if not clean and not (disk.source and disk.source.same(before.span.source)):
        return np.ones(regions, np.bool_), "is another file or device than before"
    todo = np.ones(regions, np.bool_)  # what has grown is compared
    same = min(regions, len(before.pending))
    if disk.size != before.span.size:
        same = min(disk.size, before.span.size) // REGION
    todo[:same] = before.pending[:same]
    if not clean:
        todo[:same] |= before.hot[:same]
    if clean and disk.vouched and not disk.unchanged:
        return todo, "not compared: the operator vouches that nobody wrote to it"
    why = "" if clean else f"stopped unclean: {int(todo.sum())} regions are compared"
    return todo, why
