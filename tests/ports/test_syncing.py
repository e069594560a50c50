"""Appends and fsyncs beside the event loop: by the kernel's ring, and by threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.ports import Buffer, OpenFile, Sync
from stages.syncing import HopSync
from stages.system import RingSync, SystemFiles, ThreadOffload
from stages.system import syncing as module
from stages.system.ring import Operation, Ring
from tests.daemon.disks import ext4, fuse

FILES = SystemFiles()

T = TypeVar("T")


class Refusing(ThreadOffload):
    """Threads that must not be asked: the ring does it all."""

    async def run(self, call: Callable[[], T]) -> T:
        raise AssertionError("a hop to a thread")


def no_hops() -> ThreadOffload:
    """What the ring must do by itself, where the kernel lets us have one: containers often do not,
    and then it is threads that are tried."""
    try:
        Ring(4)
    except OSError:
        return ThreadOffload(2)
    return Refusing(1)


@pytest.fixture(params=["ring", "threads"])
def sync(request: pytest.FixtureRequest) -> Sync:
    return RingSync(ThreadOffload(2)) if request.param == "ring" else HopSync(ThreadOffload(2))


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder where files can be written past the page cache, unlike in memory."""
    path = Path("/var/tmp") / f"backstay-sync-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


def direct(path: Path) -> OpenFile:
    return FILES.open_write(str(path), create=True, direct=True)


@pytest.mark.parametrize("past", [True, False])
async def test_the_ring_takes_what_is_little(on_disk: Path, past: bool) -> None:
    ring = RingSync(no_hops())
    file = FILES.open_write(str(on_disk / "a"), create=True, direct=past)
    for number in range(40):
        await ring.append(file, [bytes([number]) * 1000, memoryview(bytes([number]) * 77)])
        await ring.fdatasync(file)
    file.truncate(40 * 1077)
    file.close()
    found = (on_disk / "a").read_bytes()
    assert found == b"".join(bytes([number]) * 1077 for number in range(40))


@given(st.booleans(), st.lists(st.lists(st.binary(max_size=9000), max_size=4), max_size=8))
@settings(max_examples=40, deadline=None)
def test_appends_follow_each_other(past: bool, appends: Sequence[Sequence[bytes]]) -> None:
    """By whatever way, small and large ones mixed with the file's own."""
    path = Path("/var/tmp") / f"backstay-sync-{os.getpid()}.file"
    file = FILES.open_write(str(path), create=True, direct=past)

    async def go() -> None:
        ring = RingSync(ThreadOffload(1))
        for turn, parts in enumerate(appends):
            given: list[Buffer] = [memoryview(part) for part in parts]
            if turn % 3 == 2:
                file.append(given)
            else:
                await ring.append(file, given)

    try:
        trio.run(go)
        whole = b"".join(part for parts in appends for part in parts)
        file.truncate(len(whole))
        assert path.read_bytes() == whole
    finally:
        file.close()
        path.unlink()


async def test_what_is_large_or_not_past_the_cache(sync: Sync, tmp_path: Path) -> None:
    file = FILES.open_append(str(tmp_path / "a"))
    other = direct(tmp_path / "b")
    await sync.append(file, [b"one", b"two"])
    await sync.append(other, [bytes(200_000), b"x"])
    other.truncate(200_001)
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert (tmp_path / "b").read_bytes() == bytes(200_000) + b"x"


async def test_errors_are_the_files_own(sync: Sync) -> None:
    file = FILES.open_read("/dev/null")
    with pytest.raises(OSError) as found:
        await sync.fdatasync(file)
    assert found.value.errno == errno.EINVAL
    file.close()


async def test_a_full_disk_says_so_and_keeps_what_was_there(sync: Sync, tmp_path: Path) -> None:
    with ext4(tmp_path / "disk", tmp_path / "m", 8 << 20) as disk:
        file = direct(tmp_path / "m/a")
        done = 0
        with pytest.raises(OSError) as found:
            while True:
                await sync.append(file, [bytes([done % 250 + 1]) * 60_000])
                done += 1
        assert found.value.errno == errno.ENOSPC and done
        file.truncate(done * 60_000)
        file.close()
        whole = FILES.read(f"{disk.folder}/a", 8 << 20)
    assert whole == b"".join(bytes([at % 250 + 1]) * 60_000 for at in range(done))


async def test_a_dead_disk(sync: Sync, tmp_path: Path) -> None:
    with ext4(tmp_path / "disk", tmp_path / "m") as disk:
        file = direct(tmp_path / "m/a")
        await sync.append(file, [b"good"])
        disk.shut_down()
        for call in (sync.append(file, [b"more"]), sync.fdatasync(file)):
            with pytest.raises(OSError) as found:
                await call
            assert found.value.errno == errno.EIO
        file.close()


async def test_a_disk_that_hangs_holds_up_nobody_else(on_disk: Path, tmp_path: Path) -> None:
    """Neither the event loop nor the other files; and who waits is not let go of what it wrote."""
    ring = RingSync(no_hops())
    other = direct(on_disk / "a")
    over = trio.Event()
    with fuse("memory", "64M") as behind, ext4(behind.image, tmp_path / "m"):
        file = direct(tmp_path / "m/a")
        await ring.append(file, [b"good"])

        async def waits(scope: trio.CancelScope) -> None:
            with scope:
                await ring.append(file, [b"more"])
            over.set()

        behind.freeze()
        try:
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(waits, scope)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                for number in range(20):
                    await ring.append(other, [bytes([number]) * 100])
                assert not over.is_set()
                behind.thaw()
        finally:
            behind.thaw()
        assert over.is_set()
        file.truncate(8)
        file.close()
        assert (tmp_path / "m/a").read_bytes() == b"goodmore"


async def test_many_at_once(on_disk: Path) -> None:
    """More than the ring takes: the others go by threads."""
    ring = RingSync(ThreadOffload(4))
    files = [direct(on_disk / str(number)) for number in range(30)]

    async def several(file: OpenFile, number: int) -> None:
        for turn in range(5):
            await ring.append(file, [bytes([number]) * (100 + turn)])

    async with trio.open_nursery() as nursery:
        for number, file in enumerate(files):
            nursery.start_soon(several, file, number)
    for number, file in enumerate(files):
        file.truncate(510)
        file.close()
        assert (on_disk / str(number)).read_bytes() == bytes([number]) * 510


async def test_no_ring(monkeypatch: pytest.MonkeyPatch, on_disk: Path) -> None:
    """An old kernel, a container that forbids it."""

    def refuse(entries: int) -> Ring:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module, "Ring", refuse)
    ring = RingSync(ThreadOffload(1))
    file = direct(on_disk / "a")
    await ring.append(file, [b"one"])
    await ring.fdatasync(file)
    file.truncate(3)
    assert (on_disk / "a").read_bytes() == b"one"


@pytest.mark.parametrize("begun", [0, 1])
async def test_the_kernel_takes_no_more(
    monkeypatch: pytest.MonkeyPatch, on_disk: Path, begun: int
) -> None:
    """Nothing begun: threads do it, from then on. A part: an error, and threads from then on."""
    ring = RingSync(ThreadOffload(1))
    file = direct(on_disk / "a")
    await ring.append(file, [b"one"])

    def submit(self: Ring, operations: Sequence[Operation], first: int) -> int:
        return begun

    monkeypatch.setattr(Ring, "submit", submit)
    if begun:
        with pytest.raises(OSError, match="only a part"):
            await ring.append(file, [b"two"])
    await ring.append(file, [b"two"])
    await ring.fdatasync(file)
    file.truncate(6)
    assert (on_disk / "a").read_bytes() == b"onetwo"


@pytest.mark.parametrize("code", [errno.EINTR, errno.EAGAIN, errno.ECANCELED])
async def test_what_was_interrupted_is_done_again(
    monkeypatch: pytest.MonkeyPatch, on_disk: Path, code: int
) -> None:
    """As Python does with its own calls: it says nothing of the disk."""
    ring = RingSync(ThreadOffload(1))
    file = direct(on_disk / "a")
    outcomes = Ring.outcomes

    def interrupted(self: Ring) -> list[tuple[int, int]]:
        return [(number, -code) for number, _ in outcomes(self)]

    monkeypatch.setattr(Ring, "outcomes", interrupted)
    await ring.append(file, [b"one"])
    await ring.append(file, [b"two"])
    await ring.fdatasync(file)
    file.truncate(6)
    assert (on_disk / "a").read_bytes() == b"onetwo"


async def test_an_error_of_the_disk_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, on_disk: Path
) -> None:
    """A failed fsync never becomes a success (R5)."""
    threads = no_hops()
    if not isinstance(threads, Refusing):
        return  # no ring here: what a dead disk says to threads is tried above
    ring = RingSync(threads)
    file = direct(on_disk / "a")
    outcomes = Ring.outcomes

    def failed(self: Ring) -> list[tuple[int, int]]:
        return [(number, -errno.EIO) for number, _ in outcomes(self)]

    monkeypatch.setattr(Ring, "outcomes", failed)
    for call in (ring.append(file, [b"one"]), ring.fdatasync(file)):
        with pytest.raises(OSError) as found:
            await call
        assert found.value.errno == errno.EIO
