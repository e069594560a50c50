"""Content that stays in its slot until it is compressed: never another batch's, and no dead end."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import trio
import zstandard

from stages.cache import passthrough
from stages.cache.passthrough import PassThrough
from stages.capture import decide
from stages.capture.examiner import InlineExaminers, SlotPool
from stages.capture.scan import Scan
from stages.capture.slots import Slot
from stages.channel import Channel
from stages.compress.stage import Compress
from stages.model import BLOCK, CHUNK, Batch, Loan, PackedSegment, Rows, Segment, StreamItem
from stages.stage import crew
from stages.system import ThreadOffload
from stages.vault.frame import RAW
from tests.capture.support import disk_at, machine
from tests.capture.vault_model import GROUP_KEY, VaultModel

BATCH = 8 * CHUNK
PIECE = BATCH  # as many as a fresh batch has, as it is outside


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "LENT", PIECE // 2)
    monkeypatch.setattr(passthrough, "PIECE_BYTES", PIECE)


def a_disk(seed: int) -> bytes:
    """Whole stretches, stretches with holes, single blocks in long zeros, the same blocks twice."""
    dice = np.random.default_rng(seed)
    blocks = dice.integers(0, 256, (240 * 16, BLOCK), np.uint8)
    blocks[:, 8:] = blocks[:, :1]  # so that some frames shrink
    blocks[1500:2600] = 0
    blocks[np.arange(1500, 2600, 37)] = 7
    blocks[np.arange(1500, 2600, 37), 0] = np.arange(30)
    holes = dice.random(len(blocks)) < 0.1
    holes[:600] = False
    blocks[holes] = 0
    blocks[3000:3100] = blocks[100:200]
    return blocks.tobytes()


async def packed(path: Path, slots: int, workers: int) -> tuple[list[PackedSegment], list[bool]]:
    """What comes out of scan, cache and compress; for each batch, whether it was lent."""
    stream: Channel[StreamItem] = Channel("stream", max_bytes=2 * BATCH, max_items=256)
    watched: Channel[StreamItem] = Channel("watched", max_bytes=1, max_items=1)
    segments: Channel[Segment] = Channel("segments", max_bytes=2 * BATCH, max_items=64)
    sink: Channel[PackedSegment] = Channel("packed", max_bytes=1 << 30, max_items=1000)
    target, offload = disk_at(path), ThreadOffload(4)
    scan = Scan(
        [target],
        VaultModel([target.disk]),
        stream,
        machine=machine(),
        examiners=InlineExaminers(offload, batch=BATCH, slots=slots),
        group_key=GROUP_KEY,
        dedup_bytes=1 << 16,
    )
    cache = PassThrough(watched, segments, seal_bytes=4 * PIECE, geometry=1)
    compress = Compress(segments, sink, offload, level=1, workers=workers)
    found: list[PackedSegment] = []
    lent: list[bool] = []

    async def watch() -> None:
        with watched:
            async for item in stream:
                if isinstance(item, Batch):
                    lent.append(isinstance(item.payload, Rows))
                await watched.send(item, 1)
                del item

    with trio.fail_after(60):
        async with crew() as nursery:
            for run in (scan.run, watch, cache.run, compress.run):
                nursery.start_soon(run)
            found.extend([one async for one in sink])
    return found, lent


def content_of(found: list[PackedSegment], size: int) -> bytes:
    """The disk that the frames and indexes say."""
    disk = np.zeros((size // BLOCK, BLOCK), np.uint8)
    expander = zstandard.ZstdDecompressor()
    for one in found:
        plain = b"".join(
            frame.data if frame.codec == RAW else expander.decompress(frame.data)
            for frame in one.frames
        )
        at = [batch.data for batch in one.segment.batches]
        disk[np.concatenate(at)] = np.frombuffer(plain, np.uint8).reshape(-1, BLOCK)
        for batch in one.segment.batches:
            targets = batch.refs[:, 1] & np.uint64((1 << 48) - 1)
            disk[batch.refs[:, 0]] = disk[targets]
    return disk.tobytes()


@pytest.mark.parametrize(("slots", "workers"), [(4, 1), (6, 2)])
async def test_what_is_compressed_is_what_was_read(
    tmp_path: Path, slots: int, workers: int
) -> None:
    path = tmp_path / "disk"
    content = a_disk(slots)
    path.write_bytes(content)
    found, lent = await packed(path, slots, workers)
    assert content_of(found, len(content)) == content
    assert any(lent)
    assert not all(lent)


async def test_with_few_slots_nothing_is_lent(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    content = a_disk(0)
    path.write_bytes(content)
    found, lent = await packed(path, 3, 1)
    assert content_of(found, len(content)) == content
    assert not any(lent)


async def test_every_slot_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk"
    path.write_bytes(a_disk(1))
    pools: list[SlotPool] = []
    make = SlotPool.__init__

    def made(pool: SlotPool, slots: list[Slot]) -> None:
        make(pool, slots)
        pools.append(pool)

    monkeypatch.setattr(SlotPool, "__init__", made)
    found, _ = await packed(path, 4, 2)
    del found
    gc.collect()
    with trio.fail_after(10):
        while pools[0].free < 4:  # the last word may be on its way from a thread
            await trio.lowlevel.checkpoint()


def test_rows_are_what_they_say() -> None:
    content = np.arange(10 * BLOCK, dtype=np.uint64).astype(np.uint8).reshape(-1, BLOCK)
    content[:, 0] = np.arange(10)
    rows = Rows(content, np.array([1, 2, 3, 7, 9]), Loan())
    assert np.asarray(rows)[:, 0].tolist() == [1, 2, 3, 7, 9]
    assert rows.together() is None
    together = rows[:3].together()
    assert together is not None
    assert np.shares_memory(together, content)
    assert together[:, 0].tolist() == [1, 2, 3]
    assert len(rows[3:]) == 2
