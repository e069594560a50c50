"""Opening a disk at rest, and the grade at the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stages.capture.source import TICK, ScanDisk, Source, open_source
from stages.errors import SourceBusy, SourceError, SourceIO, SourceMissing, SourceShrunk
from stages.model import BLOCK, Disk
from stages.ports import FileStat, OpenFile
from stages.system import SystemFile, SystemFiles
from tests.capture.support import InPlace, StandingClock


class Device(SystemFile):
    """A file that says it is a block device."""

    def stat(self) -> FileStat:
        return replace(super().stat(), is_file=False, is_block=True)


class Devices(SystemFiles):
    """A machine with one block device, mounted somewhere or not."""

    def __init__(self, mounted_at: str | None = None, error: int = 0):
        self._mounted_at = mounted_at
        self._error = error

    def stat(self, path: str) -> FileStat | None:
        found = super().stat(path)
        return found and replace(found, is_file=False, is_block=True)

    def open_read(self, path: str, *, exclusive: bool = False, direct: bool = False) -> OpenFile:
        if self._error and (exclusive or self._error != errno.EBUSY):
            raise OSError(self._error, os.strerror(self._error), path)
        return Device(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)

    def mounted(self, path: str) -> str | None:
        return self._mounted_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * BLOCK * 3)
    return path


def target(path: Path, size: int = 3 * BLOCK) -> ScanDisk:
    return ScanDisk(Disk(1, "root", size), str(path))


def changed_us(path: Path) -> int:
    return path.stat().st_ctime_ns // 1000


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def opened(
    disk: ScanDisk,
    files: SystemFiles | None = None,
    clock: StandingClock | None = None,
    *,
    snapshot: bool = False,
) -> Source:
    return await open_source(
        disk,
        files=files or SystemFiles(),
        offload=InPlace(),
        clock=clock or StandingClock(),
        snapshot=snapshot,
    )


async def refused(kind: type[SourceError], disk: ScanDisk, files: SystemFiles) -> SourceError:
    with pytest.raises(kind) as caught:
        await opened(disk, files)
    assert caught.value.subject == disk.path
    assert caught.value.hint
    return caught.value


async def test_an_untouched_file_is_quiet(path: Path) -> None:
    source = await opened(target(path))
    assert source.quiet()
    source.file.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"y" * BLOCK * 3),
        os.utime,
        lambda path: path.chmod(0o640),
        lambda path: os.truncate(path, 9 * BLOCK),
    ],
    ids=["write", "touch", "chmod", "grow"],
)
async def test_a_file_changed_since_is_fuzzy(path: Path, change: Callable[[Path], None]) -> None:
    os.utime(path, (1, 1))
    source = await opened(target(path))
    change(path)
    assert not source.quiet()
    source.file.close()


async def test_a_file_that_shrank_since(path: Path) -> None:
    source = await opened(target(path))
    os.truncate(path, 1)
    with pytest.raises(SourceShrunk):
        source.quiet()
    source.file.close()


async def test_a_file_changed_a_moment_ago_is_looked_at_again(path: Path) -> None:
    clock = StandingClock(wall=changed_us(path) + 1000)
    source = await opened(target(path), clock=clock)
    assert clock.slept == [TICK]
    assert source.quiet()
    source.file.close()


async def test_a_file_being_written_is_fuzzy_from_the_start(path: Path) -> None:
    clock = StandingClock(wall=changed_us(path), on_sleep=lambda: os.utime(path))
    source = await opened(target(path), clock=clock)
    assert not source.quiet()
    source.file.close()


@pytest.mark.parametrize("offset_us", [-1_000_000, 1_000_000])
async def test_no_wait_for_old_files_nor_for_clocks_that_were_set_back(
    path: Path, offset_us: int
) -> None:
    clock = StandingClock(wall=changed_us(path) + offset_us)
    (await opened(target(path), clock=clock)).file.close()
    assert clock.slept == []


async def test_missing(tmp_path: Path) -> None:
    error = await refused(SourceMissing, target(tmp_path / "none"), SystemFiles())
    assert "does not exist" in error.message


async def test_neither_file_nor_device(tmp_path: Path) -> None:
    await refused(SourceMissing, target(tmp_path), SystemFiles())
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    await refused(SourceMissing, target(tmp_path / "pipe"), SystemFiles())


async def test_smaller_than_the_vault_knows(path: Path) -> None:
    error = await refused(SourceShrunk, target(path, 3 * BLOCK + 1), SystemFiles())
    assert str(3 * BLOCK) in error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, SourceIO),
        (errno.EIO, SourceIO),
        (errno.ENOENT, SourceMissing),
        (errno.ENXIO, SourceMissing),
        (errno.ENOMEDIUM, SourceMissing),
    ],
)
async def test_unreadable(path: Path, code: int, kind: type[SourceError]) -> None:
    error = await refused(kind, target(path), Devices(error=code))
    assert os.strerror(code) in error.message


async def test_a_second_backstay_is_kept_away(path: Path) -> None:
    source = await opened(target(path))
    error = await refused(SourceBusy, target(path), SystemFiles())
    assert "already protected" in error.message
    source.file.close()
    (await opened(target(path))).file.close()


async def test_a_file_system_without_locks_will_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(self: SystemFile) -> bool:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(SystemFile, "lock", no_lock)
    (await opened(target(path))).file.close()


@pytest.mark.parametrize(
    ("mounted_at", "words"), [("/srv", "is mounted on /srv"), (None, "is in use")]
)
async def test_a_busy_device(path: Path, mounted_at: str | None, words: str) -> None:
    error = await refused(SourceBusy, target(path), Devices(mounted_at, errno.EBUSY))
    assert words in error.message
    assert "snapshot" in error.hint


async def test_a_held_device_whose_cache_cannot_be_dropped_is_fuzzy(path: Path) -> None:
    source = await opened(target(path), Devices("/srv", errno.EBUSY), snapshot=True)
    assert not source.exclusive
    assert not source.quiet()
    source.file.close()


async def test_a_mounted_device_that_a_hook_holds_still_is_quiet(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "forget_cache", lambda self: True)
    source = await opened(target(path), Devices("/srv", errno.EBUSY), snapshot=True)
    assert not source.exclusive
    assert source.quiet()
    source.file.close()


async def test_an_exclusive_device_is_quiet_whatever_its_node_says(path: Path) -> None:
    source = await opened(target(path), Devices())
    os.utime(path)
    assert source.quiet()
    source.file.close()


async def test_nothing_stays_open_after_a_refusal(path: Path) -> None:
    before = descriptors()
    await refused(SourceShrunk, target(path, 4 * BLOCK), SystemFiles())
    assert descriptors() == before
