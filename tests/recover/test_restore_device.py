"""Restoring onto block devices: everything of the disk is written, nothing beyond it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages.errors import DamagedObject, TargetError
from stages.model import BLOCK, Disk
from stages.recover.target import Target
from stages.system import SystemFiles
from tests.recover.past import CountingStore, Past, noise, past
from tests.recover.targets import Devices, restore, targets

ROOT, DATA = 1, 2
OLD = b"\xaa"
SIZE = 300 * BLOCK + 1536
DISK = Disk(ROOT, "root", SIZE)


async def content(made: Past) -> None:
    await made.write((ROOT, noise(0, 64) | noise(100, 128)))
    await made.write((ROOT, noise(290, 5)), zero={ROOT: ((10, 4),)})


def device(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(OLD * size)
    return path


@pytest.mark.parametrize("extra", [0, 512, 100_000])
@pytest.mark.parametrize("window", [100, 100_000])
async def test_zeros_are_written_too_and_what_lies_beyond_stays(
    tmp_path: Path, extra: int, window: int
) -> None:
    async with past(DISK) as made:
        await content(made)
        path = device(tmp_path, "root", SIZE + extra)
        to = targets(made, tmp_path, devices=("root",))
        report = await restore(made, to, files=Devices(), window=window)
        assert holds(path, made.moments[2].image(ROOT) + OLD * extra)
        assert report.disks[0].content == (64 + 128 + 5 - 4) * BLOCK


async def test_salvage_leaves_nothing_old_in_damaged_places(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await content(made)
        (key, *_) = await store.keys("/data/")
        await store.delete(key)
        path = device(tmp_path, "root", SIZE)
        to = targets(made, tmp_path, devices=("root",))
        with pytest.raises(DamagedObject):
            await restore(made, to, files=Devices())
        device(tmp_path, "root", SIZE)
        report = await restore(made, to, files=Devices(), salvage=True)
        image = bytearray(made.moments[2].image(ROOT))
        for extent in report.damage:
            image[extent.offset : extent.offset + extent.length] = bytes(extent.length)
        assert report.damage
        assert holds(path, bytes(image))


async def test_what_is_refused(tmp_path: Path) -> None:
    async with past(DISK, Disk(DATA, "data", BLOCK)) as made:
        await content(made)
        small = device(tmp_path, "small", SIZE - 1)
        good = device(tmp_path, "good", SIZE)
        (tmp_path / "link").symlink_to(good)
        files = Devices()
        files.mounts["/somewhere"] = "/mnt"
        root, data = made.disks

        async def refused(why: str, *to: Target, at: Devices | SystemFiles = files) -> None:
            with pytest.raises(TargetError, match=why):
                await restore(made, list(to), files=at)

        await refused("holds", Target(root, str(small), device=True))
        await refused("not a block device", Target(root, f"{tmp_path}/none", device=True))
        file = Target(root, str(good), device=True)
        await refused("not a block device", file, at=SystemFiles())
        link = Target(data, f"{tmp_path}/link", device=True)
        await refused("two disks", file, link)
        files.mounts[str(good)] = "/mnt/in-use"
        await refused("in use at /mnt/in-use", file)
        assert holds(good, OLD * SIZE)


async def test_a_device_that_another_process_restores_to(tmp_path: Path) -> None:
    async with past(DISK) as made:
        await content(made)
        path = device(tmp_path, "root", SIZE)
        other = SystemFiles().open_write(str(path))
        assert other.lock()
        with pytest.raises(TargetError, match="another process"):
            await restore(made, targets(made, tmp_path, devices=("root",)), files=Devices())
        other.close()
        assert holds(path, OLD * SIZE)


async def test_one_disk_to_a_device_the_other_to_a_file(tmp_path: Path) -> None:
    async with past(DISK, Disk(DATA, "data", 9 * BLOCK)) as made:
        await content(made)
        path = device(tmp_path, "root", SIZE)

        class Mixed(Devices):
            def stat(self, path: str):  # type: ignore[no-untyped-def]
                return (
                    super().stat(path) if path.endswith("/root") else SystemFiles.stat(self, path)
                )

        await restore(made, targets(made, tmp_path, devices=("root",)), files=Mixed())
        assert holds(path, made.moments[2].image(ROOT))
        assert holds(tmp_path / "data", bytes(9 * BLOCK))


def holds(path: Path, data: bytes) -> bool:
    return path.read_bytes() == data


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A real block device over a file of old bytes."""
    backing = device(tmp_path, "backing", 8 << 20)
    done = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("a loop device takes root")
    yield done.stdout.strip()
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@contextmanager
def mounted(device: str, folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    subprocess.run(["mount", device, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("onto", [False, True])
async def test_a_real_block_device(tmp_path: Path, loop: str, onto: bool) -> None:
    async with past(Disk(ROOT, "root", (8 << 20) - 512)) as made:
        await content(made)
        to = [Target(made.disks[0], loop, device=True, onto=onto)]
        await restore(made, to, files=SystemFiles())
        assert holds(Path(loop), made.moments[2].image(ROOT) + OLD * 512)
        with pytest.raises(TargetError, match="holds"):
            large = Disk(ROOT, "root", (8 << 20) + 1)
            await restore(made, [Target(large, loop, device=True)], files=SystemFiles())


@pytest.mark.parametrize("onto", [False, True])
async def test_a_mounted_block_device_is_refused(tmp_path: Path, loop: str, onto: bool) -> None:
    async with past(Disk(ROOT, "root", 1 << 20)) as made:
        await made.write((ROOT, noise(0, 3)))
        to = [Target(made.disks[0], loop, device=True, onto=onto)]
        in_use = f"in use at {tmp_path}/mnt"
        with mounted(loop, tmp_path / "mnt"), pytest.raises(TargetError, match=in_use):
            await restore(made, to, files=SystemFiles())
