"""A folded segment does to a disk what its records do one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.cache.fold.intervals import covered, difference
from stages.cache.fold.open_segment import OpenSegment
from stages.cache.fold.stage import PIECE_BLOCKS, pieces_of
from stages.cache.journal.record import Record, decode, encode
from stages.digests import DigestKeys, block_digests
from stages.errors import StateDamaged
from stages.model import BLOCK, CHUNK_BLOCKS, FRAME_BLOCKS, Batch, Runs, Segment
from stages.scan_extra import ScanExtra
from stages.scan_extra import encode as encode_extra
from stages.stream import ROW, ZERO_ROW, Entry, Kind

KEYS = DigestKeys.derive(bytes(32))
BLOCKS = 96
PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8)


def runs(pairs: list[tuple[int, int]]) -> Runs:
    array = np.array(pairs, np.uint64).reshape(-1, 2)
    return Runs(array[:, 0].copy(), array[:, 1].copy())


@given(PAIRS, PAIRS)
def test_difference(these: list[tuple[int, int]], without: list[tuple[int, int]]) -> None:
    found = difference(runs(these), runs(without))
    expected = {b for s, c in these for b in range(s, s + c)}
    expected -= {b for s, c in without for b in range(s, s + c)}
    assert found.blocks().tolist() == sorted(expected)
    assert all(found.start[1:] > (found.start + found.count)[:-1])
    every = np.arange(90, dtype=np.uint64)
    assert np.flatnonzero(covered(every, found)).tolist() == sorted(expected)


def block(dice: random.Random) -> bytes:
    return bytes(BLOCK) if dice.random() < 0.15 else dice.randbytes(64) + bytes(BLOCK - 64)


def write(dice: random.Random, disk: int) -> Entry:
    """Rows in any order, overlapping, with bytes between that no row names."""
    rows, payload = [], bytearray()
    for _ in range(dice.randrange(1, 6)):
        count = dice.randrange(1, 9)
        first = dice.randrange(BLOCKS - count)
        if dice.random() < 0.2:
            rows.append(ROW.pack(first, count, ZERO_ROW))
            continue
        payload += dice.randbytes(dice.randrange(30))
        rows.append(ROW.pack(first, count, len(payload)))
        payload += b"".join(block(dice) for _ in range(count))
    return Entry(
        Kind.WRITE, disk, 1, b"".join(rows), b"", (bytes(payload),) if payload else (), len(payload)
    )


def scan(dice: random.Random, disk: int) -> Entry:
    first = dice.randrange(BLOCKS // CHUNK_BLOCKS) * CHUNK_BLOCKS
    rows, payload, digests = [], bytearray(), []
    for at in range(first, first + CHUNK_BLOCKS):
        luck = dice.random()
        if luck < 0.3:
            continue
        if luck < 0.5:
            rows.append(ROW.pack(at, 1, ZERO_ROW))
            continue
        content = dice.randbytes(BLOCK)
        rows.append(ROW.pack(at, 1, len(payload)))
        payload += content
        digests.append(block_digests(memoryview(content), [0], KEYS)[0])
    pairs = np.array(digests, np.uint64).reshape(-1, 2)
    chunk = np.array([[dice.getrandbits(60) | 1, 5]], np.uint64)
    extra = encode_extra(ScanExtra(pairs, first // CHUNK_BLOCKS, chunk, CHUNK_BLOCKS * BLOCK))
    parts = (bytes(payload),) if payload else ()
    return Entry(Kind.SCAN, disk, 1, b"".join(rows), extra, parts, len(payload))


def records(entries: list[Entry], dice: random.Random) -> list[Record]:
    """As the reader gives them: several out of one piece."""
    found: list[Record] = []
    at = offset = 0
    while at < len(entries):
        together = entries[at : at + dice.randrange(1, 5)]
        piece, start = bytearray(), offset
        for entry in together:
            piece += b"".join(map(bytes, encode(entry, 1, 0, offset, 0)))
            offset += entry.size
        view = memoryview(bytes(piece))
        for entry in together:
            record = decode(view, start - (offset - len(piece)), 1, 0, start)
            assert record is not None
            found.append(record)
            start += entry.size
        at += len(together)
    return found


def apply_records(disks: dict[int, bytearray], found: list[Record]) -> None:
    for record in found:
        disk = disks[record.disk]
        for first, count, at in record.rows.tolist():
            begin, size = first * BLOCK, count * BLOCK
            zero = at == ZERO_ROW
            disk[begin : begin + size] = bytes(size) if zero else record.payload[at : at + size]


def apply_batch(disk: bytearray, batch: Batch) -> None:
    assert not np.isin(batch.data, batch.zero.blocks()).any()
    assert (np.diff(batch.data.astype(np.int64)) > 0).all()
    payload = np.asarray(batch.payload)
    for at, number in enumerate(batch.data.tolist()):
        content = payload[at].tobytes()
        assert any(content)
        digest = block_digests(memoryview(content), [0], KEYS)[0]
        assert (batch.digests[at] == digest).all()
        disk[number * BLOCK : (number + 1) * BLOCK] = content
    for number in batch.zero.blocks().tolist():
        disk[number * BLOCK : (number + 1) * BLOCK] = bytes(BLOCK)


@given(st.integers(0, 1 << 30))
def test_folding_is_the_same_as_one_by_one(seed: int) -> None:
    dice = random.Random(seed)
    size = BLOCKS * BLOCK
    start = {number: bytearray(dice.randbytes(64) * (size // 64)) for number in (0, 2)}
    plain = {number: bytearray(disk) for number, disk in start.items()}
    folded = {5: bytearray(start[0]), 9: bytearray(start[2])}
    for _ in range(dice.randrange(1, 4)):  # segments
        makers = [dice.choice([write, write, scan]) for _ in range(dice.randrange(1, 14))]
        found = records([make(dice, dice.choice([0, 2])) for make in makers], dice)
        apply_records(plain, found)
        opened = OpenSegment({0: 5, 2: 9}, dice.choice([BLOCK * 4, 1 << 20]))
        touched: dict[int, set[int]] = {5: set(), 9: set()}
        at = 0
        while at < len(found):
            end = at + dice.randrange(1, 5)
            opened.add(found[at:end])
            _ = opened.full  # may compact
            at = end
        for record in found:
            if record.kind is Kind.WRITE:
                mine = touched[{0: 5, 2: 9}[record.disk]]
                for first, count, _at in record.rows.tolist():
                    mine |= {b // CHUNK_BLOCKS for b in range(first, first + count)}
        assert opened.position == found[-1].end
        for batch in opened.batches(KEYS):
            apply_batch(folded[batch.disk], batch)
            known = np.flatnonzero(batch.chunk_digests[:, 0]) + batch.chunk_first
            assert not touched[batch.disk] & set(known.tolist())
    assert folded == {5: plain[0], 9: plain[2]}


def test_a_trim_of_a_whole_disk_is_one_run() -> None:
    trim = Entry(Kind.WRITE, 0, 1, ROW.pack(0, 0xFFFF_FFFE, ZERO_ROW))
    opened = OpenSegment({0: 0}, 1 << 20)
    opened.add(records([trim], random.Random(0)))
    (batch,) = opened.batches(KEYS)
    assert batch.zero.count.tolist() == [0xFFFF_FFFE]


def test_a_disk_that_no_geometry_names() -> None:
    with pytest.raises(StateDamaged, match="disk 4"):
        OpenSegment({0: 0}, 1 << 20).add(records([write(random.Random(3), 4)], random.Random(0)))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_pieces_are_whole_frames_but_for_the_last(sizes: list[int]) -> None:
    pairs, none = np.zeros((0, 2), np.uint64), Runs.none()
    batches = tuple(
        Batch(
            number,
            np.arange(size, dtype=np.uint64),
            np.zeros((size, BLOCK), np.uint8),
            np.zeros((size, 2), np.uint64),
            none,
            pairs,
            pairs,
            0,
            pairs,
            0,
        )
        for number, size in enumerate(sizes)
    )
    pieces = pieces_of(Segment(batches, in_gap=False, grade="crash", geometry=1))
    assert [piece.final for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for piece in pieces[:-1]:
        assert sum(len(batch.data) for batch in piece.batches) == PIECE_BLOCKS
    assert PIECE_BLOCKS % FRAME_BLOCKS == 0
    total = sum(len(batch.data) for piece in pieces for batch in piece.batches)
    assert total == sum(sizes)
