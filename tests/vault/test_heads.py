"""Commits read and folded many at a time: the same as one by one, or ``Odd``."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import DamagedObject
from stages.model import Runs
from stages.store.memory import MemoryStore
from stages.vault import location
from stages.vault.commit import Header, ObjectRef, Part, SegmentIndex, encode_body
from stages.vault.commits import Commit
from stages.vault.container import Kind, build
from stages.vault.fold import SetData, SetZero, steps
from stages.vault.heads import Heads, Odd, read_heads
from stages.vault.sealing import seal_body
from stages.vault.writes import LONGEST_ZERO, MOST_BLOCKS, read_writes
from tests.vault.chain import KEYS, PEOPLE, SCOPE, Chain, header, link_of, log_of
from tests.vault.support import SeededEntropy

NO_REFS = np.zeros((0, 3), np.uint64)
LOG = log_of(MemoryStore())


def runs(pairs: list[tuple[int, int]]) -> Runs:
    table = np.array(pairs, np.uint64).reshape(-1, 2)
    return Runs(table[:, 0], table[:, 1])


@st.composite
def segments(draw: st.DrawFn) -> tuple[SegmentIndex, ...]:
    """Some segments, of disks 0 to 2; the blocks of one may occur in another."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        parts, held = [], 0
        for disk in draw(st.lists(st.integers(0, 2), max_size=3, unique=True)):
            free = draw(st.permutations(range(12)))
            data = [(10 * block, draw(st.integers(1, 9))) for block in free[:3]]
            zero = [(10 * block, draw(st.integers(1, 9))) for block in free[3:5]]
            data = data[: draw(st.integers(0, 3))]
            zero = zero[: draw(st.integers(0, 2))]
            held += sum(count for _, count in data)
            parts.append(Part(disk, runs(data), runs(zero), NO_REFS))
        spans: list[tuple[int, int, int]] = []
        while held:
            blocks = draw(st.integers(1, min(64, held)))
            spans.append((4096 * len(spans), 100, blocks))
            held -= blocks
        table = np.array(spans, np.uint32).reshape(-1, 3)
        found.append(SegmentIndex(draw(st.integers(-1, 1)), table, tuple(parts)))
    return tuple(found)


def make(seq: int, previous: bytes, index: tuple[SegmentIndex, ...], first: int) -> bytes:
    frames = sum(len(segment.spans) for segment in index)
    refs = (ObjectRef(7, 1000, bytes(32)), ObjectRef(9, 2000, bytes(32)))
    found = header(seq, previous, objects=refs, first_frame=first, frames=frames)
    body = seal_body(SCOPE, Kind.COMMIT, KEYS, seq, encode_body(index), SeededEntropy(str(seq)))
    return b"".join(build(Kind.COMMIT, found.fields(SCOPE), PEOPLE.daemon, body))


def commits_of(heads: list[bytes], first: int) -> list[Commit]:
    """The slow way."""
    found = [LOG.parse(seq, head) for seq, head in enumerate(heads, first)]
    for before, after in itertools.pairwise(found):
        if after.header.previous != before.link or after.header.stamp <= before.header.stamp:
            raise DamagedObject("chain", subject="")
    return found


def same(fast: Heads, slow: list[Commit]) -> None:
    for row, commit in enumerate(slow):
        h: Header = commit.header
        assert fast.numbers[row].tolist()[:8] == [
            *(h.seq, h.epoch, h.stamp, h.checkpoint, h.machine, h.first_frame, h.frames),
            h.last_consistent,
        ]
        assert (bool(fast.consistent[row]), fast.link(row)) == (h.consistent, commit.link)
        assert fast.body(row) == commit.body
        assert commit.head == fast.raw[row]
        mine = fast.objects[fast.objects[:, 0] == row, 1:].tolist()
        assert mine == [[ref.number, ref.size] for ref in h.objects]


@given(st.lists(segments(), min_size=1, max_size=5), st.integers(1, 1000), st.data())
def test_as_commit_by_commit(
    indexes: list[tuple[SegmentIndex, ...]], first: int, data: st.DataObject
) -> None:
    heads: list[bytes] = []
    link, frame = bytes(32), 0
    for seq, index in enumerate(indexes, first):
        heads.append(make(seq, link, index, frame))
        link = link_of(heads[-1])
        frame += sum(len(segment.spans) for segment in index)
    found = read_heads(heads, first, SCOPE)
    slow = commits_of(heads, first)
    same(found, slow)
    low = data.draw(st.integers(0, len(heads) - 1))
    high = data.draw(st.integers(low + 1, len(heads)))
    part = found.part(low, high)
    same(part, slow[low:high])
    assert part.before == slow[low].header.previous
    expected: dict[tuple[int, int], int] = {}
    for commit in slow[low:high]:
        for step in steps(commit.header, commit.index(SCOPE, KEYS)):
            assert isinstance(step, SetData | SetZero)
            blocks = step.runs.blocks().tolist()
            values = [location.ZERO] * len(blocks)
            if isinstance(step, SetData):
                values = step.locations[:, 0].tolist()
            expected |= {(step.disk, b): v for b, v in zip(blocks, values, strict=True)}
    writes = read_writes(part, SCOPE, {1: KEYS})
    rows = zip(
        *(each.tolist() for each in (writes.disk, writes.block, writes.location)), strict=True
    )
    assert {(disk, block): where for disk, block, where in rows} == expected


@given(st.data())
def test_a_changed_byte_is_odd(data: st.DataObject) -> None:
    """Or it was of no meaning: then the careful way reads the same."""
    heads = [each[:] for each in Chain().add(3).objects]
    row = data.draw(st.integers(0, 2))
    spoilt = bytearray(heads[row])
    at = data.draw(st.integers(0, len(spoilt) - 1))
    spoilt[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, 3))
    heads[row] = bytes(spoilt[: len(spoilt) - cut])
    try:
        found = read_heads(heads, 1, SCOPE)
    except Odd:
        return
    # Only the last one's signed bytes may differ: its signature is not looked at here.
    assert row == 2
    same(found, commits_of(heads, 1))


PART = Part(0, runs([(5, 2)]), runs([]), NO_REFS)
SPANS = np.array([(0, 10, 2)], np.uint32)


@pytest.mark.parametrize(
    "segment",
    [
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, data=runs([(5, 3)])),)),
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, data=runs([(5, 2), (9, 0)])),)),
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, data=runs([(1 << 48, 2)])),)),
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, zero=runs([(0, LONGEST_ZERO + 1)])),)),
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, refs=np.ones((1, 3), np.uint64)),)),
        SegmentIndex(-1, SPANS * np.array([1, 0, 1], np.uint32), (PART,)),
        SegmentIndex(5, SPANS, (PART,)),
        SegmentIndex(
            -1,
            np.array([(0, 10, 65)], np.uint32),
            (dataclasses.replace(PART, data=runs([(5, 65)])),),
        ),
        SegmentIndex(-1, SPANS, (dataclasses.replace(PART, disk=4096),)),
    ],
)
def test_what_is_odd(segment: SegmentIndex) -> None:
    heads = read_heads([make(1, bytes(32), (segment,), 0)], 1, SCOPE)
    with pytest.raises(Odd):
        read_writes(heads, SCOPE, {1: KEYS})


def test_many_short_runs_of_zeros_are_odd_together() -> None:
    """Nothing of their size is allocated."""
    many = runs([(at * LONGEST_ZERO, LONGEST_ZERO) for at in range(MOST_BLOCKS // LONGEST_ZERO)])
    part = dataclasses.replace(PART, zero=many)
    heads = read_heads([make(1, bytes(32), (SegmentIndex(-1, SPANS, (part,)),), 0)], 1, SCOPE)
    with pytest.raises(Odd, match="many blocks"):
        read_writes(heads, SCOPE, {1: KEYS})


def test_what_is_not() -> None:
    part = dataclasses.replace(PART, zero=runs([(10, LONGEST_ZERO)]))
    heads = read_heads([make(1, bytes(32), (SegmentIndex(-1, SPANS, (part,)),), 0)], 1, SCOPE)
    assert len(read_writes(heads, SCOPE, {1: KEYS}).block) == 2 + LONGEST_ZERO
