"""Restoring onto what holds something alike: equal in the end, nothing equal written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import BackstayError, DamagedObject, TargetError
from stages.model import BLOCK, Disk
from stages.recover.onto import differing
from stages.recover.restore import Report
from stages.recover.target import Target
from stages.system import SystemFiles
from tests.ports.watched import Tripwire, WatchedFiles
from tests.recover.past import CountingStore, Past, noise, past
from tests.recover.targets import Devices, Stopped, restore, stop_after

T = TypeVar("T")
ROOT, DATA = 1, 2
SIZE = 40 * BLOCK + 700
DISK = Disk(ROOT, "root", SIZE)
KINDS = st.sampled_from(("zero", "one", "two", "same"))


async def content(made: Past) -> None:
    await made.write((ROOT, noise(0, 16) | noise(20, 4)))
    await made.write((ROOT, noise(12, 10, word="new")), zero={ROOT: ((2, 3),)})
    await made.write(refs={ROOT: ((30, ROOT, 0), (31, ROOT, 1))})


def onto(path: Path, disk: Disk = DISK, *, device: bool = False, resize: bool = False) -> Target:
    return Target(disk, str(path), device=device, onto=True, resize=resize)


class Writes:
    """Counts the blocks that change as a file is written; nothing equal may be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = 0

    def __call__(self, name: str, path: str, call: Callable[[], T]) -> T:
        if path != str(self.path) or name not in ("pwrite", "punch"):
            return call()
        before = self.path.read_bytes()
        done = call()
        changed = len(differing(before, self.path.read_bytes()))
        assert changed
        self.changed += changed
        return done

    def files(self) -> WatchedFiles:
        return WatchedFiles(self, SystemFiles())


def image_of(kinds: list[str], image: bytes) -> bytes:
    """A disk alike: each block zeros, one of two fixed contents, or that of the point."""
    made = bytearray()
    for at, kind in enumerate(kinds):
        block = image[at * BLOCK : (at + 1) * BLOCK]
        fixed = {"zero": 0, "one": 1, "two": 2}
        made += block if kind == "same" else bytes([fixed[kind]]) * len(block)
    return bytes(made)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(KINDS, min_size=DISK.blocks, max_size=DISK.blocks),
    seq=st.integers(1, 3),
    window=st.sampled_from((7, 16, 100)),
)
def test_any_content_becomes_the_point_and_only_differences_are_written(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], seq: int, window: int
) -> None:
    folder = tmp_path_factory.mktemp("onto")

    async def run() -> None:
        async with past(DISK) as made:
            await content(made)
            path = folder / "root"
            image = made.moments[seq].image(ROOT)
            before = image_of(kinds, image)
            path.write_bytes(before)
            watch = Writes(path)
            report = await restore(made, [onto(path)], seq=seq, files=watch.files(), window=window)
            assert path.read_bytes() == image
            (done,) = report.disks
            unlike = differing(before, image)
            assert watch.changed == len(unlike)
            assert done.compared == SIZE
            assert done.written == sum(min(BLOCK, SIZE - at * BLOCK) for at in unlike.tolist())
            assert [each.name for each in folder.iterdir()] == ["root"]
            again = await restore(made, [onto(path)], seq=seq, files=watch.files(), window=window)
            assert again.disks[0].written == 0
            assert watch.changed == len(unlike)

    trio.run(run)


@given(one=st.binary(max_size=3 * BLOCK), flips=st.lists(st.integers(0, 3 * BLOCK - 1), max_size=4))
def test_differing(one: bytes, flips: list[int]) -> None:
    other = bytearray(one)
    for at in flips:
        if at < len(other):
            other[at] ^= 1
    want = {at // BLOCK for at in range(len(one)) if one[at] != other[at]}
    assert set(differing(one, bytes(other)).tolist()) == want
    zeros = {at // BLOCK for at in range(len(one)) if one[at]}
    assert set(differing(one, None).tolist()) == zeros
    assert isinstance(differing(one, one), np.ndarray)


@pytest.mark.parametrize("size", [0, 5, 10 * BLOCK, SIZE - 1, SIZE + 1, SIZE + 9 * BLOCK])
async def test_another_size_needs_to_be_asked_for(tmp_path: Path, size: int) -> None:
    async with past(DISK) as made:
        await content(made)
        path = tmp_path / "root"
        path.write_bytes(b"\x07" * size)
        with pytest.raises(TargetError, match="the disk has"):
            await restore(made, [onto(path)])
        assert path.read_bytes() == b"\x07" * size
        await restore(made, [onto(path, resize=True)])
        assert path.read_bytes() == made.moments[3].image(ROOT)


async def test_a_device_keeps_what_lies_beyond(tmp_path: Path) -> None:
    async with past(DISK) as made:
        await content(made)
        path = tmp_path / "root"
        path.write_bytes(b"\xaa" * (SIZE + 5000))
        await restore(made, [onto(path, device=True)], files=Devices())
        assert path.read_bytes() == made.moments[3].image(ROOT) + b"\xaa" * 5000


async def test_what_is_refused(tmp_path: Path) -> None:
    async with past(DISK, Disk(DATA, "data", SIZE)) as made:
        await content(made)
        path = tmp_path / "root"
        path.write_bytes(bytes(SIZE))
        (tmp_path / "link").symlink_to(path)
        root, data = made.disks

        async def refused(why: str, *to: Target, files: SystemFiles | None = None) -> None:
            with pytest.raises(TargetError, match=why):
                await restore(made, list(to), files=files or SystemFiles())
            assert path.read_bytes() == bytes(SIZE)

        await refused("not a file", onto(tmp_path / "none", root))
        await refused("not a file", onto(tmp_path, root))
        await refused("two disks", onto(path, root), onto(tmp_path / "link", data))
        mounted = Devices()
        mounted.mounts[str(path)] = "/mnt"
        await refused("in use at /mnt", onto(path, root, device=True), files=mounted)
        held = SystemFiles().open_write(str(path))
        assert held.lock()
        await refused("in use by another process", onto(path, root))
        held.close()


async def test_damage_leaves_what_is_there_until_salvage_is_asked_for(tmp_path: Path) -> None:
    store = CountingStore()
    async with past(DISK, store=store) as made:
        await content(made)
        (key, *_) = await store.keys("/data/")
        await store.delete(key)
        path = tmp_path / "root"
        old = b"\x05" * SIZE
        path.write_bytes(old)
        with pytest.raises(DamagedObject):
            await restore(made, [onto(path)])
        between = path.read_bytes()
        report = await restore(made, [onto(path)], salvage=True)
        image = bytearray(made.moments[3].image(ROOT))
        for extent in report.damage:
            end = extent.offset + extent.length
            assert between[extent.offset : end] == old[extent.offset : end]
            image[extent.offset : end] = bytes(extent.length)
        assert report.damage
        assert path.read_bytes() == bytes(image)


async def test_what_reads_back_otherwise_is_told(tmp_path: Path) -> None:
    async with past(DISK) as made:
        await content(made)
        image = tmp_path / "root"
        image.write_bytes(bytes(SIZE))

        def rot(name: str, path: str, call: Callable[[], T]) -> T:
            done = call()
            if name == "fdatasync" and path == str(image):
                with image.open("r+b") as file:
                    file.write(b"rot")
            return done

        with pytest.raises(TargetError, match="read back differently"):
            await restore(made, [onto(image)], files=WatchedFiles(rot, SystemFiles()))


async def test_any_failing_step_is_told_and_the_same_command_finishes(tmp_path: Path) -> None:
    async with past(DISK) as made:
        await content(made)
        path = tmp_path / "root"
        image = made.moments[3].image(ROOT)
        old = bytes(SIZE + BLOCK)

        async def run(wire: Tripwire) -> Report:
            files = WatchedFiles(wire, SystemFiles())
            return await restore(made, [onto(path, resize=True)], files=files, window=10)

        path.write_bytes(old)
        counted = Tripwire()
        await run(counted)
        assert path.read_bytes() == image
        for late in (False, True):
            for at in range(len(counted.names)):
                path.write_bytes(old)
                wire = Tripwire(at, errno.EIO, late)
                try:
                    await run(wire)
                except BackstayError:
                    assert wire.tripped
                else:
                    assert wire.tripped in ("close", ""), wire.tripped
                await run(Tripwire())
                assert path.read_bytes() == image
        assert SystemFiles().listdir(str(tmp_path)) == ["root"]


@pytest.mark.parametrize("stop", range(1, 5))
async def test_an_interrupted_one_goes_on_by_comparing(tmp_path: Path, stop: int) -> None:
    async with past(DISK) as made:
        await content(made)
        path = tmp_path / "root"
        path.write_bytes(b"\x09" * SIZE)
        with pytest.raises(Stopped):
            await restore(made, [onto(path)], window=10, advance=stop_after(stop))
        report = await restore(made, [onto(path)], window=10)
        assert path.read_bytes() == made.moments[3].image(ROOT)
        assert report.disks[0].written == SIZE - stop * 10 * BLOCK
