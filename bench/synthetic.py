"""Vaults made to measure: huge disks with a long log, holding few bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.made import Made
from bench.maker import Builder
from stages.model import BLOCK, FRAME_BLOCKS, U64, empty_pairs, pack_block
from stages.ship.compose import Stored

_EXTENT = 1024  # blocks written together by the base
_SEGMENT = 4096  # blocks of one data object of the base
_TILE = 32768  # blocks mapped by one commit of references
_SEED = 20240131


async def long_log(folder: Path, disk_bytes: int, written: int, commits: int) -> Made:
    """A disk of which ``written`` bytes are checkpointed, and ``commits`` of 500 blocks after that.

    What is written lies in extents of 4 MiB all over the disk; commits rewrite single blocks of it.
    """
    builder, made = await Builder.begin(folder, disk_bytes)
    dice = np.random.default_rng(_SEED)
    blocks = scattered(disk_bytes // BLOCK, written // BLOCK, dice)
    latest = np.arange(1, len(blocks) + 1, dtype=np.uint64)
    steps = list(range(0, len(blocks), 16 * _SEGMENT))
    for start in steps:
        group: list[Stored] = []
        next_frame = builder.tail.next_frame
        for at in range(start, min(start + 16 * _SEGMENT, len(blocks)), _SEGMENT):
            piece = slice(at, at + _SEGMENT)
            gap = start != steps[-1]
            stored = await builder.store(
                next_frame, blocks[piece], latest[piece], empty_pairs(), in_gap=gap
            )
            next_frame += len(stored.spans)
            group.append(stored)
        await builder.commit(group, settle=True)
    await builder.checkpoint()
    checkpoint = builder.tail.seq
    for number in range(commits):
        count = min(500, len(blocks))
        picked = np.sort(dice.choice(len(blocks), count, replace=False, shuffle=False))
        latest[picked] = np.arange(count, dtype=np.uint64) | np.uint64((number + 1) << 32)
        stored = await builder.store(
            builder.tail.next_frame, blocks[picked], latest[picked], empty_pairs(), in_gap=False
        )
        await builder.commit([stored], settle=False)
    probes = dice.choice(len(blocks), min(64, len(blocks)), replace=False)
    builder.session.ledger.close()
    return replace(
        made,
        tail=builder.tail.seq,
        checkpoint=checkpoint,
        probes=tuple((int(blocks[at]), int(latest[at])) for at in probes),
    )


async def wide_map(folder: Path, disk_bytes: int, mapped: int) -> Made:
    """A huge disk of which ``mapped`` bytes are mapped by references to a few blocks each.

    In stretches of up to 1 GiB all over the disk; no checkpoint yet, the writer's record is kept.
    """
    builder, made = await Builder.begin(folder, disk_bytes)
    dice = np.random.default_rng(_SEED)
    probes: list[tuple[int, int]] = []
    starts = list(tiles(disk_bytes // BLOCK, mapped // BLOCK))
    for number, start in enumerate(starts):
        data = np.arange(start, start + FRAME_BLOCKS, dtype=np.uint64)
        values = np.arange(FRAME_BLOCKS, dtype=np.uint64) | np.uint64((number + 1) << 32)
        others = np.arange(start + FRAME_BLOCKS, start + _TILE, dtype=np.uint64)
        targets = np.uint64(start) + (others - np.uint64(start)) % np.uint64(FRAME_BLOCKS)
        refs = np.column_stack((others, pack_block(0, targets)))
        stored = await builder.store(builder.tail.next_frame, data, values, refs, in_gap=False)
        await builder.commit([stored], settle=True)
        probe = int(dice.integers(_TILE))
        probes.append((start + probe, int(values[probe % FRAME_BLOCKS])))
    builder.session.ledger.checkpoint_state()
    builder.session.ledger.close()
    picked = dice.permutation(len(probes))[:64].tolist()
    return replace(
        made,
        tail=builder.tail.seq,
        probes=tuple(probes[at] for at in picked),
        window=starts[len(starts) // 2],
    )


def scattered(disk: int, written: int, dice: np.random.Generator) -> U64:
    """Ascending blocks (written,) in extents, one somewhere in each equal share of the disk."""
    extents = max(1, written // _EXTENT)
    length = min(_EXTENT, written)
    share = disk // extents
    if share < length:
        raise ValueError(f"{written} blocks do not fit into {disk}")
    starts = np.arange(extents) * share + dice.integers(0, share - length + 1, extents)
    return (starts[:, None] + np.arange(length)).reshape(-1).astype(np.uint64)


def tiles(disk: int, mapped: int) -> Iterator[int]:
    """First blocks of ``mapped`` / ``_TILE`` tiles: eight side by side, then a gap."""
    count = max(1, mapped // _TILE)
    stride = max(8 * _TILE, disk // -(-count // 8))
    for tile in range(count):
        yield tile // 8 * stride + tile % 8 * _TILE
