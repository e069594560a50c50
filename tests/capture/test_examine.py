"""Digests, slots, and one batch examined, against the obvious way to do it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages import digests
from stages.capture.examine import READ, ReadFailed, examine
from stages.capture.slots import MAX_BATCH, Layout, Slot
from stages.digests import DigestKeys, as_pairs, same, zero_chunks
from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, UNKNOWN, ZERO, blocks_of, chunks_of
from stages.system import SystemFile
from tests.capture.vault_model import GROUP_KEY, block_digest, chunk_digest

KEYS = DigestKeys.derive(GROUP_KEY)
BATCH = 40 * CHUNK  # several reads
RNG = np.random.default_rng(3)


class Disk(SystemFile):
    """A sparse file that counts the bytes read."""

    def __init__(self, path: Path, extents: dict[int, bytes], size: int):
        super().__init__(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), str(path))
        self.truncate(size)
        for offset, content in extents.items():
            self.pwrite(offset, content)
        self.read = 0

    def pread_into(self, offset: int, target: memoryview) -> int:
        got = super().pread_into(offset, target)
        self.read += got
        return got


@pytest.fixture
def slot() -> Iterator[Slot]:
    layout = Layout(BATCH, 1)
    memory = bytearray(b"\xaa" * layout.size)  # as another batch may have left it
    yield layout.carve(memoryview(memory))[0]


def scratch() -> memoryview:
    return memoryview(bytearray(b"\xbb" * READ))


def check(disk: Disk, offset: int, length: int, slot: Slot, *, changed: set[int]) -> None:
    """Everything ``examine`` promises of the chunks that ``changed`` names, and of the others."""
    outcome = examine(disk, offset, length, slot, scratch(), KEYS)
    content = disk.pread(offset, length)
    content += bytes(-len(content) % BLOCK)
    assert outcome.changed == len(changed)
    for chunk in range(chunks_of(length)):
        part = content[chunk * CHUNK : (chunk + 1) * CHUNK]
        expected = chunk_digest(part) if len(part) == CHUNK else UNKNOWN
        assert tuple(slot.chunks[chunk].tolist()) == expected
        if chunk in changed:
            check_blocks(slot, chunk * CHUNK_BLOCKS, part)


def check_blocks(slot: Slot, first: int, part: bytes) -> None:
    for at in range(len(part) // BLOCK):
        block = part[at * BLOCK : (at + 1) * BLOCK]
        digest = tuple(slot.blocks[first + at].tolist())
        assert digest == block_digest(block)
        if digest != ZERO:
            assert slot.content[first + at].tobytes() == block


def noise(blocks: int) -> bytes:
    return RNG.bytes(blocks * BLOCK)


def test_everything_new(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {0: noise(40 * CHUNK_BLOCKS)}, BATCH)
    slot.known[:] = UNKNOWN
    check(disk, 0, BATCH, slot, changed=set(range(40)))


def test_what_is_known_is_read_once_and_not_copied(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {0: noise(40 * CHUNK_BLOCKS)}, BATCH)
    slot.known[:] = UNKNOWN
    examine(disk, 0, BATCH, slot, scratch(), KEYS)
    slot.known[:] = slot.chunks
    slot.content[:] = 0xCC
    disk.read = 0
    check(disk, 0, BATCH, slot, changed=set())
    assert disk.read == BATCH
    assert (slot.content == 0xCC).all()


@pytest.mark.parametrize("chunk", [0, 7, 8, 39])
@pytest.mark.parametrize("kind", ["noise", "one byte", "zeros", "some zeros", "hole"])
def test_one_chunk_changes(tmp_path: Path, slot: Slot, chunk: int, kind: str) -> None:
    disk = Disk(tmp_path / "d", {0: noise(40 * CHUNK_BLOCKS)}, BATCH)
    slot.known[:] = UNKNOWN
    examine(disk, 0, BATCH, slot, scratch(), KEYS)
    slot.known[:] = slot.chunks
    start = chunk * CHUNK
    match kind:
        case "noise":
            disk.pwrite(start + 3 * BLOCK, noise(5))
        case "one byte":
            (last,) = disk.pread(start + CHUNK - 1, 1)
            disk.pwrite(start + CHUNK - 1, bytes([last ^ 1]))
        case "zeros":
            disk.pwrite(start, bytes(CHUNK))
        case "some zeros":
            disk.pwrite(start + BLOCK, bytes(3 * BLOCK))
        case "hole":
            disk.punch(start, CHUNK)
    check(disk, 0, BATCH, slot, changed={chunk})


def test_zeros_that_were_known_get_content_and_the_reverse(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {CHUNK: bytes(CHUNK), 9 * CHUNK: noise(1)}, 20 * CHUNK)
    slot.known[:] = ZERO
    slot.known[5] = (9, 9)
    check(disk, 0, 20 * CHUNK, slot, changed={5, 9})


def test_content_that_looks_like_zeros(tmp_path: Path, slot: Slot) -> None:
    almost = bytearray(CHUNK)
    almost[-1] = 1
    disk = Disk(tmp_path / "d", {0: bytes(almost)}, 2 * CHUNK)
    slot.known[:] = ZERO
    check(disk, 0, 2 * CHUNK, slot, changed={0})


@pytest.mark.parametrize("size", [1, BLOCK, CHUNK - 1, CHUNK, CHUNK + 1, 17 * CHUNK + 5 * BLOCK])
@pytest.mark.parametrize("sparse", [True, False])
def test_the_tail_is_padded_and_has_no_chunk_digest(
    tmp_path: Path, slot: Slot, size: int, sparse: bool
) -> None:
    disk = Disk(tmp_path / "d", {} if sparse else {0: RNG.bytes(size)}, size)
    slot.known[:] = UNKNOWN
    check(disk, 0, size, slot, changed=set(range(chunks_of(size))))
    slot.known[:] = slot.chunks
    partial = blocks_of(size) % CHUNK_BLOCKS
    for known in (UNKNOWN, ZERO, (9, 9)):
        if partial:
            slot.known[chunks_of(size) - 1] = known
        check(disk, 0, size, slot, changed={chunks_of(size) - 1} if partial else set())


def test_only_data_is_read(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {5 * CHUNK + BLOCK: noise(1), 30 * CHUNK: noise(20)}, BATCH)
    slot.known[:] = UNKNOWN
    check(disk, 0, BATCH, slot, changed=set(range(40)))
    assert disk.read <= 3 * CHUNK


def test_a_range_in_the_middle(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {0: noise(60 * CHUNK_BLOCKS)}, 60 * CHUNK)
    slot.known[:] = UNKNOWN
    check(disk, 13 * CHUNK, 22 * CHUNK, slot, changed=set(range(22)))


def test_short_reads_in_the_kernel_are_no_end(
    tmp_path: Path, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path / "d", {0: noise(20 * CHUNK_BLOCKS)}, 20 * CHUNK)
    real = os.preadv

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return real(fd, [buffers[0][:7001]], offset)

    monkeypatch.setattr(os, "preadv", short)
    slot.known[:] = UNKNOWN
    check(disk, 0, 20 * CHUNK, slot, changed=set(range(20)))


def test_the_end_of_the_disk_inside_the_range(tmp_path: Path, slot: Slot) -> None:
    disk = Disk(tmp_path / "d", {0: noise(20 * CHUNK_BLOCKS)}, 20 * CHUNK)
    disk.truncate(20 * CHUNK - 77)
    with pytest.raises(ReadFailed) as caught:
        examine(disk, 0, 20 * CHUNK, slot, scratch(), KEYS)
    assert (caught.value.offset, caught.value.code) == (20 * CHUNK - 77, 0)


def test_zero_chunks() -> None:
    words = np.zeros((4, CHUNK_BLOCKS, BLOCK // 8), np.uint64)
    words[1, 5, 0] = 1
    words[2, 15, 511] = 1
    assert zero_chunks(words).tolist() == [True, False, False, True]


def test_a_digest_never_says_unknown_or_zero() -> None:
    raw = bytes(8) + b"12345678" + b"abcdefgh" + bytes(8)
    pairs = as_pairs(raw)
    assert pairs[:, 0].tolist() == [1, int.from_bytes(b"abcdefgh", "little")]
    assert same(pairs, UNKNOWN).tolist() == same(pairs, ZERO).tolist() == [False, False]


def test_keys_are_separate_and_never_shown() -> None:
    assert KEYS.block != KEYS.chunk
    assert DigestKeys.derive(bytes(32)) != KEYS
    assert repr(KEYS) == "DigestKeys()"
    with pytest.raises(ValueError, match="32 bytes"):
        DigestKeys.derive(b"short")


def test_digests_are_pinned() -> None:
    """Vaults keep no digests, but state folders do: another function would mean a full compare."""
    content = memoryview(bytes(range(256)) * (CHUNK // 256))
    block = digests.block_digests(content, [3], KEYS)[0].tolist()
    chunk = as_pairs(digests.raw_chunk_digests(content, [0], KEYS))[0].tolist()
    assert (block, chunk) == PINNED


PINNED = (
    [7507161546941517298, 3346883277399126643],
    [1898223896073151657, 14326579576360713400],
)


@pytest.mark.parametrize("batch", [0, CHUNK - 1, CHUNK + BLOCK, MAX_BATCH + CHUNK])
def test_layouts_that_are_none(batch: int) -> None:
    with pytest.raises(ValueError, match="not a layout"):
        Layout(batch, 1)


def test_slots_do_not_overlap() -> None:
    layout = Layout(2 * CHUNK, 3)
    memory = bytearray(layout.size)
    slots = layout.carve(memoryview(memory))
    for number, slot in enumerate(slots, start=1):
        slot.content[:] = number
        slot.known[:] = slot.chunks[:] = slot.blocks[:] = number
    for number, slot in enumerate(slots, start=1):
        for part in (slot.content, slot.known, slot.chunks, slot.blocks):
            assert (part == number).all()
        assert bytes(slot.memory) == bytes([number]) * 2 * CHUNK
