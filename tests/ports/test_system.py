"""The real ports: files across short reads and writes, holes, locks, devices, threads."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import trio

from stages.ports import OpenFile
from stages.system import (
    SystemClock,
    SystemFiles,
    ThreadOffload,
    find_mount,
    find_swap,
    this_machine,
)

FILES = SystemFiles()
MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenFile]:
    opened = FILES.open_write(f"{tmp_path}/file", new=True)
    yield opened
    opened.close()


def test_pread_stops_at_the_end(file: OpenFile) -> None:
    file.pwrite(0, b"0123456789")
    assert file.pread(0, 10) == b"0123456789"
    assert file.pread(7, 10) == b"789"
    assert file.pread(10, 5) == b""
    assert file.pread(1000, 5) == b""
    assert file.pread(3, 0) == b""


def test_reads_go_on_after_short_ones(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, preadv = os.pread, os.preadv
    file.pwrite(0, bytes(range(100)))
    monkeypatch.setattr(os, "pread", lambda fd, length, at: pread(fd, min(length, 7), at))
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: preadv(fd, [view[:7] for view in views], at)
    )
    assert file.pread(10, 50) == bytes(range(10, 60))
    assert file.pread(90, 50) == bytes(range(90, 100))
    target = bytearray(50)
    assert file.pread_into(90, memoryview(target)) == 10
    assert file.pread_into(10, memoryview(target)) == 50
    assert target == bytes(range(10, 60))


def test_writes_go_on_after_short_ones(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, writev = os.pwrite, os.writev

    def short_writev(fd: int, views: Sequence[memoryview]) -> int:
        return writev(fd, [views[0][:7]])

    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: pwrite(fd, view[:7], at))
    monkeypatch.setattr(os, "writev", short_writev)
    file.append([bytes(range(20)), b"", bytes(range(20, 50))])
    file.pwrite(50, bytes(range(50, 100)))
    assert file.pread(0, 200) == bytes(range(100))


def test_arrays_of_any_shape_are_bytes(file: OpenFile) -> None:
    array = np.arange(3000, dtype=np.uint64).reshape(3, 1000)
    empty = np.empty((0, 4096), np.uint8)
    file.append([empty.data, array.data, array.data])
    file.pwrite(array.nbytes, (array + np.uint64(1)).data)
    file.pwrite(0, empty.data)
    found = np.zeros_like(array)
    assert file.pread_into(0, found.data) == array.nbytes
    assert (found == array).all()
    assert file.pread_into(array.nbytes, found.data) == array.nbytes
    assert (found == array + np.uint64(1)).all()
    assert file.pread_into(0, empty.data) == 0


def test_more_parts_than_one_writev_takes(file: OpenFile) -> None:
    parts = [bytes([number % 251]) * (number % 5) for number in range(5000)]
    file.append(parts)
    assert file.pread(0, 100_000) == b"".join(parts)


def test_append_mode(tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    for text in (b"one", b"two"):
        file = FILES.open_append(path)
        file.append([text, b"."])
        file.close()
    assert FILES.read(path, 8) == b"one.two."
    with pytest.raises(OSError, match="larger") as caught:
        FILES.read(path, 7)
    assert caught.value.errno == errno.EFBIG


def test_new_files_are_private_and_exclusive(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    file = FILES.open_write(path, new=True)
    assert file.stat().mode == 0o600
    file.close()
    file.close()
    with pytest.raises(FileExistsError):
        FILES.open_write(path, new=True)
    with pytest.raises(FileNotFoundError):
        FILES.open_write(f"{tmp_path}/other")
    with pytest.raises(OSError, match="Bad file"):
        file.pread(0, 1)


def test_holes_are_found_and_punched(file: OpenFile) -> None:
    file.truncate(8 * MIB)
    assert file.next_data(0) is None
    assert file.next_hole(0) == 0
    file.pwrite(2 * MIB, b"x" * MIB)
    file.pwrite(5 * MIB, b"y" * MIB)
    assert file.next_data(0) == 2 * MIB
    assert file.next_hole(2 * MIB) == 3 * MIB
    assert file.next_data(3 * MIB) == 5 * MIB
    assert file.next_data(6 * MIB) is None
    assert file.next_data(9 * MIB) is None
    assert file.next_hole(9 * MIB) == 8 * MIB
    file.punch(2 * MIB, MIB)
    assert file.pread(2 * MIB, MIB) == bytes(MIB)
    assert file.next_data(0) == 5 * MIB
    assert file.stat().size == 8 * MIB
    assert file.stat().allocated < 2 * MIB


def test_a_file_without_holes(file: OpenFile) -> None:
    file.pwrite(0, b"x" * MIB)
    assert file.next_hole(0) == MIB
    assert file.next_data(10) == 10


def test_a_lock_excludes_another_descriptor_until_close(tmp_path: Path) -> None:
    path = f"{tmp_path}/lock"
    first, second = FILES.open_write(path, create=True), FILES.open_write(path)
    assert first.lock()
    assert first.lock()  # one's own again
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_scratch_leaves_no_name(tmp_path: Path) -> None:
    file = FILES.scratch(str(tmp_path))
    file.pwrite(0, b"x")
    assert file.pread(0, 1) == b"x"
    assert list(tmp_path.iterdir()) == []
    file.close()


def test_stat(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    found = FILES.stat(f"{tmp_path}/file")
    assert found is not None
    assert (found.size, found.is_file, found.is_dir, found.is_block) == (5, True, False, False)
    folder = FILES.stat(str(tmp_path))
    assert folder is not None
    assert folder.is_dir
    assert FILES.stat(f"{tmp_path}/none") is None
    assert FILES.stat(f"{tmp_path}/file/none") is None


def test_names(tmp_path: Path) -> None:
    a, b = f"{tmp_path}/a", f"{tmp_path}/b"
    (tmp_path / "a").write_bytes(b"a")
    assert FILES.link(a, b)
    assert not FILES.link(a, b)
    assert FILES.listdir(str(tmp_path)) == ["a", "b"]
    assert FILES.unlink(a)
    assert not FILES.unlink(a)
    FILES.rename(b, a)
    assert FILES.listdir(str(tmp_path)) == ["a"]
    assert FILES.listdir(f"{tmp_path}/none") == FILES.listdir(a) == []
    FILES.sync_dir(str(tmp_path))
    with pytest.raises(NotADirectoryError):
        FILES.sync_dir(a)


def test_folders(tmp_path: Path) -> None:
    folder = f"{tmp_path}/folder"
    FILES.mkdir(folder)
    FILES.mkdir(folder)
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(FileExistsError):
        FILES.mkdir(f"{folder}/file")
    assert not FILES.rmdir(folder)
    FILES.unlink(f"{folder}/file")
    assert FILES.rmdir(folder)
    assert not FILES.rmdir(folder)
    assert FILES.free_bytes(str(tmp_path)) > 0


def test_a_folder_removed_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(path: str, _mode: int) -> None:
        raise FileExistsError(errno.EEXIST, "File exists", path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(FileNotFoundError):
        FILES.mkdir(f"{tmp_path}/gone")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        FILES.mkdir(f"{tmp_path}/dangling")
    FILES.mkdir(str(tmp_path))


def test_a_file_and_a_character_device_are_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert FILES.mounted(f"{tmp_path}/file") is None
    assert FILES.mounted(str(tmp_path)) is None
    assert FILES.mounted("/dev/null") is None
    with pytest.raises(FileNotFoundError):
        FILES.mounted(f"{tmp_path}/none")


MOUNTS = r"""
21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/zz2 rw
22 21 0:45 / /srv/my\040data rw - btrfs /dev/zz5 rw
23 21 0:50 /vol /mnt rw master:1 shared:2 - nfs4 server:/zz7 rw
24 21 0:51 / /run rw - tmpfs zz8 rw
""".strip()
SWAPS = """Filename Type Size Used Priority
/dev/zz10 partition 1 0 -2
/srv/zz11 file 1 0 -3
"""


def test_mounts_are_found_by_number_and_by_source() -> None:
    assert find_mount(MOUNTS, {"zz", "zz2"}, {"8:0", "8:2"}) == "/"
    assert find_mount(MOUNTS, {"zz5"}, {"8:5"}) == "/srv/my data"
    assert find_mount(MOUNTS, {"zz7"}, {"8:7"}) is None
    assert find_mount(MOUNTS, {"zz8"}, {"8:8"}) is None


def test_swaps_are_found_by_their_whole_name() -> None:
    assert find_swap(SWAPS, {"zz10"}) == "swap"
    assert find_swap(SWAPS, {"zz1"}) is None
    assert find_swap(SWAPS, {"zz11"}) is None


def test_this_machine_reads_its_own_tables() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert find_mount(mounts, set(), {"not a number"}) is None
    assert find_mount(mounts, set(), {mounts.split(" ")[2]}) == mounts.split(" ")[4]


def test_clock_and_entropy() -> None:
    machine = this_machine()
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.wall_us() > 1_600_000_000_000_000
    assert len(machine.entropy.token(32)) == 32
    assert machine.entropy.token(32) != machine.entropy.token(32)


async def test_offload_runs_elsewhere_and_hands_on_errors() -> None:
    offload = ThreadOffload(1)
    assert await offload.run(threading.get_ident) != threading.get_ident()

    def fail() -> None:
        raise KeyError(1)

    with pytest.raises(KeyError):
        await offload.run(fail)


async def test_offload_does_not_abandon_a_call_that_has_begun() -> None:
    offload = ThreadOffload(1)
    begun, go = trio.Event(), threading.Event()
    soon = trio.lowlevel.current_trio_token().run_sync_soon
    done: list[str] = []

    def call() -> None:
        soon(begun.set)
        go.wait()
        done.append("written")

    async def run() -> None:
        await offload.run(call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await begun.wait()
        nursery.cancel_scope.cancel()
        go.set()
    assert done == ["written"]


async def test_offload_bounds_its_threads() -> None:
    offload = ThreadOffload(2)
    lock, inside, most = threading.Lock(), 0, 0
    barrier = threading.Barrier(2)

    def call() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait()
        with lock:
            inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(offload.run, call)
    assert most == 2
