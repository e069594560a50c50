"""Holes: jumped over, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest

from stages.capture.plan import FRESH, HOLE, PIECES, RUNS, WINDOW, Hole, Look, Piece, Plan
from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, U64, UNKNOWN, ZERO, Disk

TIB = 1 << 40


class Sparse:
    """A disk with data in some ranges."""

    def __init__(self, *data: tuple[int, int]):
        self._data = data

    def next_data(self, offset: int) -> int | None:
        for start, stop in self._data:
            if offset < stop:
                return max(start, offset)
        return None


class Uniform:
    """Digests that are the same everywhere, but for some blocks that are unknown."""

    def __init__(self, blocks: tuple[int, int], chunks: tuple[int, int], odd: tuple[int, ...] = ()):
        self._blocks = blocks
        self._chunks = chunks
        self._odd = odd
        self.calls = 0

    def blocks(self, disk: int, first: int, count: int) -> U64:
        self.calls += 1
        assert count <= WINDOW * CHUNK_BLOCKS
        return self._tile(self._blocks, first, count, self._odd)

    def chunks(self, disk: int, first: int, count: int) -> U64:
        self.calls += 1
        assert count <= WINDOW
        return self._tile(self._chunks, first, count, [at // CHUNK_BLOCKS for at in self._odd])

    def _tile(self, pair: tuple[int, int], first: int, count: int, odd: object) -> U64:
        found = np.tile(np.array(pair, np.uint64), (count, 1))
        assert isinstance(odd, list | tuple)
        for at in odd:
            if first <= at < first + count:
                found[at - first] = UNKNOWN
        return found


def plan(size: int, file: Sparse, known: Uniform, batch: int = 8 << 20) -> list[Piece]:
    made = Plan(0, Disk(1, "d", size), file, known, batch)
    pieces: list[Piece] = []
    while step := made.step():
        assert len(step) <= PIECES
        pieces += step
    return pieces


def test_a_huge_hole_known_to_be_zero_is_nothing() -> None:
    known = Uniform(ZERO, ZERO)
    pieces = plan(TIB // 16, Sparse(), known)
    assert all(isinstance(piece, Hole) and piece.batch is None for piece in pieces)
    assert known.calls == TIB // 16 // CHUNK // WINDOW
    assert len(pieces) == TIB // 16 // CHUNK // HOLE


def test_a_huge_hole_not_known_is_one_run_every_4_gib() -> None:
    pieces = plan(TIB // 64, Sparse(), Uniform(UNKNOWN, UNKNOWN))
    starts = []
    for piece in pieces:
        assert isinstance(piece, Hole)
        assert piece.batch is not None
        assert piece.batch.zero.count.tolist() == [HOLE * CHUNK_BLOCKS]
        assert not len(piece.batch.chunk_digests)
        starts += piece.batch.zero.start.tolist()
    assert starts == list(range(0, TIB // 64 // BLOCK, HOLE * CHUNK_BLOCKS))


def test_one_unknown_block_in_a_hole() -> None:
    odd = 5 * WINDOW * CHUNK_BLOCKS + 333
    (piece,) = plan(CHUNK * WINDOW * 6, Sparse(), Uniform(ZERO, ZERO, (odd,)))
    assert isinstance(piece, Hole)
    assert piece.batch is not None
    assert (piece.batch.zero.start.tolist(), piece.batch.zero.count.tolist()) == ([odd], [1])
    # The chunk is zero as a whole now, which its run alone does not say.
    assert piece.batch.chunk_first == odd // CHUNK_BLOCKS
    assert piece.batch.chunk_digests.tolist() == [list(ZERO)]


def test_lost_chunk_digests_of_a_hole_come_back_in_bounded_pieces() -> None:
    pieces = plan(CHUNK * WINDOW * 2, Sparse(), Uniform(ZERO, UNKNOWN))
    for piece in pieces:
        assert isinstance(piece, Hole)
        assert piece.batch is not None
        assert piece.batch.empty
        assert len(piece.batch.chunk_digests) == WINDOW
    assert len(pieces) == 2


def test_many_runs_end_a_hole_early() -> None:
    odd = tuple(range(0, 2 * WINDOW * CHUNK_BLOCKS, CHUNK_BLOCKS // 2))
    pieces = plan(CHUNK * WINDOW * 2, Sparse(), Uniform(ZERO, ZERO, odd))
    assert len(pieces) == 2
    assert len(odd) // 2 > RUNS


@pytest.mark.parametrize("size", [1, BLOCK, CHUNK - 1, CHUNK + 1, 3 * CHUNK + BLOCK])
def test_the_tail_of_a_hole(size: int) -> None:
    (piece,) = plan(size, Sparse(), Uniform(UNKNOWN, UNKNOWN))
    assert isinstance(piece, Hole)
    assert piece.batch is not None
    assert piece.scanned == size
    assert piece.batch.zero.total == -(-size // BLOCK)
    (piece,) = plan(size, Sparse(), Uniform(ZERO, ZERO))
    assert piece == Hole(None, size)


def test_what_is_called_the_digest_of_a_cut_chunk_is_not_believed() -> None:
    (piece,) = plan(2 * CHUNK + BLOCK, Sparse(), Uniform(UNKNOWN, ZERO))
    assert isinstance(piece, Hole)
    assert piece.batch is not None
    assert piece.batch.zero.start.tolist() == [2 * CHUNK_BLOCKS]


def test_data_is_covered_in_order_and_long_batches_only_where_it_is_known() -> None:
    file = Sparse((100 * CHUNK + 5, 1000 * CHUNK), (5000 * CHUNK, 5001 * CHUNK - 9))
    size = 6000 * CHUNK + 77
    for digest, most in ((UNKNOWN, FRESH), (ZERO, FRESH), ((7, 7), 8 << 20)):
        pieces = plan(size, file, Uniform(digest, digest))
        at = 0
        for piece in pieces:
            if isinstance(piece, Look):
                assert piece.offset == at
                assert piece.length <= most
                assert len(piece.known) == -(-piece.length // CHUNK)
                at += piece.length
            else:
                at += piece.scanned
        assert at == size
        looks = [piece for piece in pieces if isinstance(piece, Look)]
        assert max(look.length for look in looks) == most
        assert looks[0].offset == 100 * CHUNK
