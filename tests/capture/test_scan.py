"""The whole scan against a model: whatever the disks hold, the vault ends up with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.capture.examiner import Examiner
from stages.capture.pool import ProcessExaminers
from stages.capture.source import ScanDisk
from stages.digests import DigestKeys
from stages.errors import SourceError, SourceIO, SourceShrunk
from stages.model import BLOCK, CHUNK, CHUNK_BLOCKS, UNKNOWN, Disk, GapBegin, GapEnd, StreamItem
from stages.ports import OpenFile
from stages.system import SystemFiles
from tests.capture.support import FaultyFiles, Scanned, disk_at, io_error, machine, scan, tiny
from tests.capture.vault_model import Sent, VaultModel

MOST_BLOCKS = 100
PATTERNS = 6


def pattern(number: int) -> bytes:
    """Few different contents, so that there are duplicates; 0 is zeros that are written out."""
    if number == 0:
        return bytes(BLOCK)
    if number == 1:
        return bytes(BLOCK - 1) + b"\1"  # looks like zeros at first
    return number.to_bytes(8, "little") * (BLOCK // 8)


@dataclass(frozen=True)
class Write:
    """``count`` blocks from ``block`` (modulo the size) get a pattern; -1 punches a hole."""

    disk: int
    block: int
    count: int
    pattern: int


writes = st.lists(
    st.builds(
        Write,
        st.integers(0, 2),
        st.integers(0, MOST_BLOCKS - 1),
        st.integers(1, 40),
        st.integers(-1, PATTERNS),
    ),
    max_size=12,
)
sizes = st.lists(st.integers(1, MOST_BLOCKS * BLOCK), min_size=1, max_size=3)


class Disks:
    """Real sparse files."""

    def __init__(self, folder: str, sizes: list[int]):
        self.targets = [
            ScanDisk(Disk(number, f"d{number}", size), f"{folder}/{number}.img")
            for number, size in enumerate(sizes, start=1)
        ]
        for target in self.targets:
            Path(target.path).touch()
            os.truncate(target.path, target.disk.size)

    def write(self, writes: list[Write]) -> None:
        for write in writes:
            target = self.targets[write.disk % len(self.targets)]
            size = target.disk.size
            start = write.block % target.disk.blocks * BLOCK
            length = min(write.count * BLOCK, size - start)
            file = SystemFiles().open_write(target.path)
            if write.pattern < 0:
                file.punch(start, length)
            else:
                file.pwrite(start, (pattern(write.pattern) * write.count)[:length])
            file.close()

    def rewrite(self, content: dict[int, bytes]) -> None:
        """Put all of it back, and fill the holes."""
        for target in self.targets:
            Path(target.path).write_bytes(content[target.disk.number][: target.disk.size])

    def content(self) -> dict[int, bytes]:
        """Padded to whole blocks."""
        found = {}
        for target in self.targets:
            content = Path(target.path).read_bytes()
            found[target.disk.number] = content + bytes(-len(content) % BLOCK)
        return found

    def vault(self) -> VaultModel:
        return VaultModel(target.disk for target in self.targets)


def differing(disks: Disks, vault: VaultModel) -> set[tuple[int, int]]:
    """The blocks that the vault does not have, or does not know to have."""
    return {
        (number, block)
        for number, content in disks.content().items()
        for block in range(len(content) // BLOCK)
        if content[block * BLOCK : (block + 1) * BLOCK]
        != vault.disks[number].content[block * BLOCK : (block + 1) * BLOCK]
        or tuple(vault.disks[number].blocks[block].tolist()) == UNKNOWN
    }


async def scan_into(disks: Disks, vault: VaultModel, dedup_bytes: int) -> Sent:
    """Scan, check that exactly what differs is sent, and that the vault then equals the disks."""
    expected = differing(disks, vault)
    found = await scan(disks.targets, vault, dedup_bytes=dedup_bytes)
    sent = vault.apply(found.items)
    assert sent.changed == expected
    for number, content in disks.content().items():
        assert vault.disks[number].content == content
    vault.check()
    check_progress(disks, found, sent)
    if not dedup_bytes:
        assert not sent.refs
    return sent


def check_progress(disks: Disks, found: Scanned, sent: Sent) -> None:
    total = sum(target.disk.size for target in disks.targets)
    assert found.progress.total == found.progress.scanned == total
    assert found.progress.changed == len(sent.changed) * BLOCK
    assert found.progress.zero == len(sent.zero) * BLOCK
    assert found.progress.deduplicated == len(sent.refs) * BLOCK
    assert found.progress.read <= total


property_test = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@property_test
@given(
    sizes=sizes,
    first=writes,
    second=writes,
    lost=st.lists(st.integers(0, MOST_BLOCKS - 1), max_size=4),
    lost_chunks=st.booleans(),
    dedup_bytes=st.sampled_from([0, 48, 1 << 16]),
)
async def test_the_vault_equals_the_disks_after_every_scan(
    sizes: list[int],
    first: list[Write],
    second: list[Write],
    lost: list[int],
    lost_chunks: bool,
    dedup_bytes: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        disks = Disks(folder, sizes)
        vault = disks.vault()
        disks.write(first)
        await scan_into(disks, vault, dedup_bytes)
        disks.write(second)
        for number, kept in vault.disks.items():
            vault.forget_blocks(number, [at for at in lost if at < len(kept.blocks)])
            if lost_chunks:
                kept.chunks[:] = UNKNOWN
        await scan_into(disks, vault, dedup_bytes)
        again = await scan(disks.targets, vault, dedup_bytes=dedup_bytes)
        assert not again.batches


@property_test
@given(sizes=sizes, first=writes, second=writes)
async def test_what_is_written_back_is_not_sent(
    sizes: list[int], first: list[Write], second: list[Write]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        disks = Disks(folder, sizes)
        vault = disks.vault()
        disks.write(first)
        await scan_into(disks, vault, 1 << 16)
        before = disks.content()
        disks.write(second)
        disks.rewrite(before)
        found = await scan(disks.targets, vault)
        assert not found.batches


async def test_a_wrong_digest_is_only_a_block_sent_again(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [5 * CHUNK + 100])
    disks.write([Write(0, 0, 70, 3), Write(0, 20, 3, 4)])
    vault = disks.vault()
    await scan_into(disks, vault, 0)
    kept = vault.disks[1]
    kept.blocks[21] = (77, 77)
    kept.chunks[1] = (88, 88)
    found = await scan(disks.targets, vault, dedup_bytes=0)
    assert vault.apply(found.items).changed == {(1, 21)}
    vault.check()


async def test_duplicates_become_references_across_disks_and_scans(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [3 * CHUNK, 3 * CHUNK])
    disks.write([Write(0, 0, 1, 2), Write(0, 1, 1, 3), Write(1, 5, 4, 2)])
    vault = disks.vault()
    sent = await scan_into(disks, vault, 1 << 16)
    assert sent.data == {(1, 0), (1, 1)}
    assert sent.refs == {(2, 5), (2, 6), (2, 7), (2, 8)}
    # Now (1, 1) is unchanged, in a chunk that is not even looked into: still a target.
    disks.write([Write(1, 40, 2, 3)])
    sent = await scan_into(disks, vault, 1 << 16)
    assert (sent.data, sent.refs) == (set(), {(2, 40), (2, 41)})


async def test_lost_chunk_digests_are_recorded_again_without_content(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [6 * CHUNK])
    disks.write([Write(0, 0, 32, 5)])
    vault = disks.vault()
    await scan_into(disks, vault, 0)
    vault.disks[1].chunks[:] = UNKNOWN
    found = await scan(disks.targets, vault)
    assert [batch.empty for batch in found.batches] == [True] * len(found.batches)
    assert sum(len(batch.chunk_digests) for batch in found.batches) == 6


async def test_an_unchanged_disk_sends_nothing_and_holes_are_not_read(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [64 * CHUNK])
    disks.write([Write(0, 17, 1, 5)])
    vault = disks.vault()
    sent = await scan_into(disks, vault, 0)
    assert sent.batches[-1].zero.start.tolist() == [3 * CHUNK_BLOCKS]
    again = await scan(disks.targets, vault)
    assert again.items == [GapBegin("scan"), GapEnd("quiet")]
    assert again.progress.read <= CHUNK


async def test_a_file_that_grew_is_fuzzy_but_scanned_as_recorded(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [CHUNK + 10])
    os.truncate(disks.targets[0].path, 3 * CHUNK)
    vault = disks.vault()
    found = await scan(disks.targets, vault)
    assert vault.apply(found.items).grade == "fuzzy"


async def test_a_write_during_the_scan_makes_it_fuzzy(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [8 * CHUNK])
    disks.write([Write(0, 0, 100, 4)])

    def write(item: StreamItem) -> None:
        if isinstance(item, GapBegin):
            disks.write([Write(0, 3, 1, 5)])

    found = await scan(disks.targets, disks.vault(), on_item=write)
    assert found.items[-1] == GapEnd("fuzzy")


@pytest.mark.parametrize("at", range(4))
async def test_a_read_error_names_disk_and_byte(tmp_path: Path, at: int) -> None:
    disks = Disks(str(tmp_path), [8 * CHUNK])
    disks.write([Write(0, 0, 100, 4)])
    error = await failing(disks, FaultyFiles(at, io_error))
    assert isinstance(error, SourceIO)
    assert error.subject == disks.targets[0].path
    assert f"byte {at * 2 * CHUNK} (EIO)" in error.message


@pytest.mark.parametrize("at", range(4))
async def test_a_disk_that_shrinks_during_the_scan(tmp_path: Path, at: int) -> None:
    disks = Disks(str(tmp_path), [8 * CHUNK])
    disks.write([Write(0, 0, 100, 4)])
    path = disks.targets[0].path
    faults = FaultyFiles(at, lambda: os.truncate(path, at * 2 * CHUNK + 100))
    error = await failing(disks, faults)
    assert isinstance(error, SourceShrunk)
    assert error.subject == path
    assert error.hint


async def failing(disks: Disks, files: FaultyFiles) -> SourceError:
    items: list[StreamItem] = []
    with pytest.raises(SourceError) as caught:
        await scan(disks.targets, disks.vault(), on=machine(files), on_item=items.append)
    assert not any(isinstance(item, GapEnd) for item in items)
    return caught.value


class Cutting:
    """Cuts a disk off after it was opened, before it is read."""

    def __init__(self, path: Path, size: int):
        self._path = path
        self._size = size

    def open(
        self, disks: Sequence[OpenFile], keys: DigestKeys
    ) -> AbstractAsyncContextManager[Examiner]:
        os.truncate(self._path, self._size)
        return tiny().open(disks, keys)


async def test_a_disk_cut_off_inside_a_hole_does_not_become_zeros(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 4 * CHUNK)
    target = disk_at(path)
    items: list[StreamItem] = []
    with pytest.raises(SourceShrunk):
        await scan(
            [target],
            VaultModel([target.disk]),
            examiners=Cutting(path, CHUNK),
            on_item=items.append,
        )
    assert items == [GapBegin("scan")]


async def test_what_stayed_beside_new_zeros_can_be_referred_to(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [8 * CHUNK])
    disks.write([Write(0, 0, 1, 2), Write(0, 1, 1, 3)])
    vault = disks.vault()
    await scan_into(disks, vault, 1 << 16)
    disks.write([Write(0, 1, 1, 0), Write(0, 70, 1, 2)])
    sent = await scan_into(disks, vault, 1 << 16)
    assert (sent.data, sent.zero, sent.refs) == (set(), {(1, 1)}, {(1, 70)})


async def test_what_was_overwritten_cannot_be_referred_to(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [8 * CHUNK])
    disks.write([Write(0, 0, 1, 2), Write(0, 20, 1, 3)])
    vault = disks.vault()
    await scan_into(disks, vault, 1 << 16)
    disks.write([Write(0, 0, 1, 4), Write(0, 20, 1, -1), Write(0, 70, 1, 2), Write(0, 71, 1, 3)])
    sent = await scan_into(disks, vault, 1 << 16)
    assert sent.data == {(1, 0), (1, 70), (1, 71)}


async def test_a_scan_by_processes(tmp_path: Path) -> None:
    disks = Disks(str(tmp_path), [40 * CHUNK + 999, 20 * CHUNK])
    disks.write([Write(0, 0, 90, 4), Write(0, 40, 30, 0), Write(1, 10, 40, 6), Write(1, 30, 2, 5)])
    vault = disks.vault()
    processes = ProcessExaminers(workers=2, slots=3, batch=4 * CHUNK)
    found = await scan(disks.targets, vault, examiners=processes)
    sent = vault.apply(found.items)
    assert sent.refs
    vault.check()
    for number, content in disks.content().items():
        assert vault.disks[number].content == content
    again = await scan(disks.targets, vault, examiners=processes)
    assert not again.batches
