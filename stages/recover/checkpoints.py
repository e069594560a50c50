"""Reading checkpoints: the manifest for a point, and single pages."""

from __future__ import annotations

import numpy as np

from stages.errors import UNREADABLE, DamagedObject, MissingData, ObjectMissing
from stages.model import U64
from stages.recover.opened import Group
from stages.vault import checkpoint, layout
from stages.vault.checkpoint import Manifest, PageName
from stages.vault.commits import Commit
from stages.vault.container import HEAD_SIZE, MAX_BODY, MAX_HEADER, Kind, parse
from stages.vault.terms import check_place, check_signer


async def nearest(group: Group, newest: Commit) -> Manifest | None:
    """The nearest whole checkpoint at or before a commit: one at it, or the one its header names.

    One that is damaged or nobody's is noted in the log's ``ignored`` and passed over: it costs
    time, not data.
    """
    base = group.log.base(newest.header.seq)
    named = (newest.header.seq, newest.header.checkpoint, base)
    for seq in dict.fromkeys(seq for seq in named if seq >= base):
        try:
            manifest = await read(group, seq) if seq else None
        except UNREADABLE as error:
            group.log.note(f"{error}; commits are read instead")
            continue
        if manifest is None:
            if seq and seq in (base, newest.header.checkpoint):
                key = layout.manifest(group.scope.group, seq)
                group.log.note(f"{key}: a checkpoint is missing; commits are read instead")
            continue
        if seq < newest.header.seq or manifest.link == newest.link:
            return manifest
    return None


async def read(group: Group, seq: int) -> Manifest | None:
    """The manifest of the checkpoint at ``seq``, if there is one. Raises ``Damage``."""
    key = layout.manifest(group.scope.group, seq)
    try:
        data = await group.log.store.get(key, 0, HEAD_SIZE + MAX_HEADER + MAX_BODY)
    except ObjectMissing:
        return None
    found = parse(data, key, Kind.MANIFEST)
    check_signer(found, group.ring.charter)
    check_place(found, group.scope)
    if found.header.number("seq") != seq:
        raise DamagedObject("is the manifest of another commit", subject=key)
    keys = await group.ring.keys(found.header.number("epoch"))
    body = data[found.body_at : found.tail_at]
    return checkpoint.read_manifest(found, group.scope, keys, body)


async def oldest(group: Group, base: int) -> Manifest | None:
    """The checkpoint ``base`` before which nothing is left; None if all of the log is.

    Raises ``Damage``.
    """
    manifest = await read(group, base) if base else None
    if base and manifest is None:
        raise no_base(group, base)
    return manifest


def no_base(group: Group, base: int) -> DamagedObject:
    """The error if checkpoint ``base`` cannot be read, and nothing else is left to begin with."""
    return DamagedObject(
        "the checkpoint that this point is read from is damaged or missing, and retention has let "
        "go of the commits before it",
        operation="read the block map",
        subject=layout.manifest(group.scope.group, base),
    )


async def fetch_page(group: Group, name: PageName, place: int, length: int) -> U64:
    """One stored page, by its row in a table. Raises ``Damage``."""
    part = place >> checkpoint.OFFSET_BITS
    offset = place & ((1 << checkpoint.OFFSET_BITS) - 1)
    key = layout.checkpoint_part(group.scope.group, name.seq, part)
    try:
        stored = await group.log.store.get(key, offset, length)
    except ObjectMissing:
        raise MissingData("a checkpoint's pages are missing", subject=key) from None
    try:
        keys = await group.ring.keys(checkpoint.page_epoch(stored, key))
    except UNREADABLE as error:
        raise DamagedObject(f"a page without a key: {error}", subject=key) from None
    return checkpoint.open_page(group.scope, keys, name, stored, key)


def parts_of(manifest: Manifest) -> dict[tuple[int, int], int]:
    """Commit and number of the parts whose pages a checkpoint refers to; and how many bytes of
    each it takes them to be in, at least."""
    tables = [table for disk in manifest.disks for table in (disk.map, disk.digests)]
    tables += [pages.table for pages in manifest.epochs]
    found: dict[tuple[int, int], int] = {}
    for table in tables:
        stored = table[table[:, 2] != 0]
        bits = np.uint64(checkpoint.OFFSET_BITS)
        ends = (stored[:, 1] & np.uint64((1 << checkpoint.OFFSET_BITS) - 1)) + stored[:, 2]
        parts = np.column_stack((stored[:, 0], stored[:, 1] >> bits))
        names, which = np.unique(parts, axis=0, return_inverse=True)
        furthest = np.zeros(len(names), np.uint64)
        np.maximum.at(furthest, which.reshape(-1), ends)
        for (seq, part), end in zip(names.tolist(), furthest.tolist(), strict=True):
            found[seq, part] = max(end, found.get((seq, part), 0))
    return found
