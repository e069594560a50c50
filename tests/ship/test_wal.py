"""The write-ahead log: what is durable is found again, a torn tail is cut, damage is not hidden."""

from __future__ import annotations

import errno
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import StateDamaged
from stages.ship import wal
from stages.ship.wal import ChunkUpdate, Intent, Wal
from tests.ports.watched import Tripwire, WatchedFiles
from tests.whole.memfiles import MemFiles

PATH = "/wal"


def intent(seq: int, size: int = 40) -> Intent:
    """One that fills every field."""
    pairs = np.arange(2 * seq + 4, dtype=np.uint64).reshape(-1, 2)
    return Intent(
        seq=seq,
        epoch=seq % 3 + 1,
        object_digest=bytes([seq % 256]) * 32,
        link=bytes([seq % 251]) * 32,
        head=b"h" * (seq % 7),
        plain=bytes(range(256)) * (size // 256) + b"p" * (size % 256),
        digests=pairs,
        ref_digests=pairs[1:],
        ref_locations=pairs[:, :1],
        chunks=(ChunkUpdate(3, seq, pairs[:1]),),
    )


def written(count: int, size: int = 40) -> MemFiles:
    """A log of so many records."""
    files = MemFiles()
    log = Wal(files.open_append(PATH))
    for seq in range(1, count + 1):
        log.append(intent(seq, size))
    return files


def read(files: MemFiles) -> list[Intent]:
    return list(Wal(files.open_append(PATH)).recover())


def content(files: MemFiles) -> bytes:
    return files.read(PATH, 1 << 30)


def test_what_was_appended_is_found_again() -> None:
    found = read(written(5, 3000))
    assert [each.encode() for each in found] == [intent(seq, 3000).encode() for seq in range(1, 6)]


def test_a_torn_tail_is_cut_wherever_it_ends() -> None:
    whole = content(written(3))
    ends = [len(content(written(count))) for count in range(4)]
    for length in range(len(whole)):
        files = MemFiles()
        files.put(PATH, whole[:length])
        log = Wal(files.open_append(PATH))
        intact = sum(end <= length for end in ends[1:])
        assert [each.seq for each in log.recover()] == list(range(1, intact + 1))
        assert content(files) == whole[: ends[intact]]
        log.append(intent(9))
        assert [each.seq for each in read(files)] == [*range(1, intact + 1), 9]


@pytest.mark.parametrize("tail", [bytes(1), bytes(5000), b"BINT" * 100, b"\xff" * 70])
def test_a_tail_of_anything_is_cut(tail: bytes) -> None:
    files = written(2)
    whole = content(files)
    files.put(PATH, whole + tail)
    assert [each.seq for each in read(files)] == [1, 2]
    assert content(files) == whole


def test_a_damaged_byte_is_told_unless_it_may_be_a_torn_tail() -> None:
    whole = content(written(3))
    last = len(content(written(2)))
    for at in range(len(whole)):
        files = MemFiles()
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        files.put(PATH, bytes(damaged))
        if at < last:
            with pytest.raises(StateDamaged) as raised:
                read(files)
            assert raised.value.hint
            assert content(files) == damaged, "nothing is cut off that may still be looked at"
        else:
            assert [each.seq for each in read(files)] == [1, 2]


def test_a_record_counts_only_where_it_was_written() -> None:
    files = written(3)
    first = len(content(written(1)))
    files.put(PATH, content(files)[first:])
    assert not read(files)


def test_damage_is_found_far_behind() -> None:
    files = written(1)
    gap = bytes(3 * wal._STEP + 11)
    log = Wal(files.open_append(PATH))
    assert list(log.recover())
    log._file.append([gap])
    log.size += len(gap)
    log.append(intent(2))
    with pytest.raises(StateDamaged):
        read(files)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("step", ["append", "fdatasync"])
def test_an_append_that_fails_leaves_nothing(step: str, late: bool) -> None:
    files = written(2)
    whole = content(files)
    wire = Tripwire(code=errno.EIO, late=late)
    log = Wal(WatchedFiles(wire, files).open_append(PATH))
    assert len(list(log.recover())) == 2
    wire.at = len(wire.names) + (step == "fdatasync")
    with pytest.raises(OSError, match="Input/output error"):
        log.append(intent(3))
    assert wire.tripped == step
    assert content(files) == whole
    log.append(intent(4))
    assert [each.seq for each in read(files)] == [1, 2, 4]


def test_a_record_that_could_not_be_read_again_is_not_written() -> None:
    files = written(1)
    log = Wal(files.open_append(PATH))
    assert list(log.recover())
    with mock.patch.object(wal, "MAX_RECORD", 1000), pytest.raises(ValueError, match="intent"):
        log.append(intent(2, 2000))
    assert len(read(files)) == 1


def test_cleared_is_empty() -> None:
    files = written(3)
    log = Wal(files.open_append(PATH))
    assert len(list(log.recover())) == 3
    log.clear()
    assert not content(files)
    assert log.size == 0
    log.append(intent(7))
    assert [each.seq for each in read(files)] == [7]


@given(st.lists(st.integers(0, 3000), max_size=6), st.integers(0, 1 << 16), st.booleans())
@settings(deadline=None)
def test_power_loss_keeps_what_was_durable(sizes: list[int], seed: int, dying: bool) -> None:
    """The last record may have been on its way."""
    files = MemFiles()
    log = Wal(files.open_append(PATH))
    files.sync_dir("/")
    for seq, size in enumerate(sizes, 1):
        log.append(intent(seq, size))
    if dying:
        log._file.append([_record(log, intent(len(sizes) + 1, 2000))])
    files.power_cut(seed)
    found = [each.seq for each in read(files)]
    assert found[: len(sizes)] == list(range(1, len(sizes) + 1))
    assert len(found) <= len(sizes) + dying


def _record(log: Wal, each: Intent) -> bytes:
    payload = each.encode()
    checksum = wal._checksum(log.size, payload)
    return wal._HEAD.pack(wal._MARK, len(payload), checksum) + payload
