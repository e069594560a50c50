"""Files past the page cache hold what was appended, however it was cut, and give it back."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.system import SystemFiles, direct
from stages.system.direct import ALIGN, DirectReader, DirectWriter

FILES = SystemFiles()
STAGE = 2 << 20


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def written(path: str, sizes: list[list[int]]) -> bytes:
    """Append parts of these sizes; check the file after each call."""
    file = FILES.open_write(path, create=True, direct=True)
    whole = b""
    for sizes_at_once in sizes:
        parts = [os.urandom(size) for size in sizes_at_once]
        whole += b"".join(parts)
        file.append([memoryview(part) for part in parts])
        found = Path(path).read_bytes()
        assert found[: len(whole)] == whole
        assert found[len(whole) :] == bytes(-len(whole) % ALIGN)
    file.truncate(len(whole))
    file.fsync()
    file.close()
    assert Path(path).read_bytes() == whole
    return whole


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3 * ALIGN), max_size=5), max_size=6),
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)), max_size=6),
)
def test_small_appends_come_back(sizes: list[list[int]], ranges: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/file"
        whole = written(path, sizes)
        reader = FILES.open_read(path, direct=True)
        for offset, length in ranges:
            assert reader.pread(offset, length) == whole[offset : offset + length]
        reader.close()


def test_large_appends_cross_the_buffer(path: str) -> None:
    whole = written(path, [[64], [STAGE - 64], [5], [STAGE + 17, 3 * STAGE], [100]])
    reader = FILES.open_read(path, direct=True)
    assert reader.pread(0, len(whole) + 5) == whole
    assert reader.pread(ALIGN + 1, 2 * STAGE) == whole[ALIGN + 1 : ALIGN + 1 + 2 * STAGE]
    target = bytearray(STAGE)
    assert reader.pread_into(77, memoryview(target)) == STAGE
    assert target == whole[77 : 77 + STAGE]
    assert reader.pread(len(whole), 10) == b""
    reader.close()


def test_what_is_read_while_it_is_appended_to(path: str) -> None:
    file = FILES.open_write(path, create=True, direct=True)
    reader = FILES.open_read(path, direct=True)
    whole = b""
    for size in (10, 5000, 1, 4096, 12_000):
        part = os.urandom(size)
        whole += part
        file.append([part])
        assert reader.pread(0, len(whole)) == whole
    reader.close()
    file.close()


def test_zeros_are_written_ahead_in_whole_blocks(path: str) -> None:
    file = FILES.open_write(path, create=True, direct=True)
    file.append([b"x" * 10])
    file.pwrite(ALIGN, bytes(1 << 20))
    file.append([b"y" * ALIGN])
    found = Path(path).read_bytes()
    assert found == (b"x" * 10 + b"y" * ALIGN).ljust(ALIGN + (1 << 20), b"\0")
    for offset, length in ((1, ALIGN), (ALIGN, 5)):
        with pytest.raises(ValueError, match="not whole blocks"):
            file.pwrite(offset, bytes(length))
    file.close()
    file.close()


def in_whole_pages(size: int) -> memoryview:
    """Random bytes whose first is the first of a page."""
    memory = np.empty(size + ALIGN, np.uint8)
    start = -memory.ctypes.data % ALIGN
    memory[start : start + size] = np.frombuffer(os.urandom(size), np.uint8)
    return memory[start : start + size].data


@pytest.mark.parametrize("refuses", [False, True])
def test_blocks_anywhere_from_whole_pages_and_from_others(
    path: str, refuses: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refuses:
        request.getfixturevalue("refusing")
    file = FILES.open_write(path, create=True, direct=True)
    pages = in_whole_pages(2 * STAGE)
    file.pwrite(10 * ALIGN, pages)
    file.pwrite(0, pages[ALIGN // 2 : ALIGN // 2 + ALIGN])
    file.pwrite(3 * ALIGN, pages[:0])
    found = Path(path).read_bytes()
    assert found[:ALIGN] == pages[ALIGN // 2 : ALIGN // 2 + ALIGN]
    assert found[ALIGN : 10 * ALIGN] == bytes(9 * ALIGN)
    assert found[10 * ALIGN :] == pages
    monkeypatch.setattr(direct, "_copy", None)  # from whole pages nothing is copied
    file.pwrite(ALIGN, pages[:ALIGN])
    with pytest.raises(TypeError):
        file.pwrite(ALIGN, pages[1 : ALIGN + 1])
    file.close()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A file system that takes the flag when a file is opened, and refuses what it asks for."""
    refused: list[str] = []

    def guarded(name: str, call: Callable[..., int]) -> Callable[..., int]:
        def doubtful(fd: int, *rest: object) -> int:
            import fcntl

            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                refused.append(name)
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return call(fd, *rest)

        return doubtful

    monkeypatch.setattr(os, "pwrite", guarded("pwrite", os.pwrite))
    monkeypatch.setattr(os, "preadv", guarded("preadv", os.preadv))
    yield refused


def test_a_file_system_that_refuses_is_used_through_its_cache(
    path: str, refusing: list[str]
) -> None:
    whole = written(path, [[100], [5000], [70_000]])
    reader = FILES.open_read(path, direct=True)
    assert reader.pread(50, 60_000) == whole[50:60_050]
    assert reader.pread(0, 10) == whole[:10]
    reader.close()
    assert refusing == ["pwrite", "preadv"]


def test_a_file_system_that_refuses_the_flag(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def picky(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            if flags & os.O_CREAT:
                os.close(real(path, flags & ~os.O_DIRECT, mode))  # as Linux may: made, then refused
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", picky)
    file = FILES.open_write(path, new=True, direct=True)
    file.append([b"abc"])
    file.close()
    reader = FILES.open_read(path, direct=True)
    assert reader.pread(0, 3) == b"abc"
    reader.close()


def test_a_file_that_is_there_is_not_taken(path: str) -> None:
    Path(path).write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        FILES.open_write(path, new=True, direct=True)
    assert Path(path).read_bytes() == b"mine"


def test_other_errors_come_out(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FILES.open_write(path, create=True, direct=True)
    assert isinstance(file, DirectWriter)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        file.append([b"abc"])
    monkeypatch.undo()
    file.close()
    reader = FILES.open_read(path, direct=True)
    assert isinstance(reader, DirectReader)
    monkeypatch.setattr(os, "preadv", full)
    with pytest.raises(OSError, match="No space"):
        reader.pread(0, 1)
    monkeypatch.undo()
    reader.close()


def test_buffers_are_kept_within_a_bound(tmp_path: Path) -> None:
    files = [FILES.open_write(f"{tmp_path}/{n}", create=True, direct=True) for n in range(9)]
    for file in files:
        file.append([b"abc"])
    assert 1 <= len(direct._spare) <= direct._SPARE  # whoever does not write holds none
    for file in files:
        file.close()
