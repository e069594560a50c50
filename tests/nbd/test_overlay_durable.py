"""What an overlay keeps through crashes and failing disks, and when it does not open."""

from __future__ import annotations

import errno

import pytest
import trio

from stages.errors import StateDamaged, TargetError
from stages.model import BLOCK
from stages.recover.overlay import Overlay
from stages.recover.overlay_file import MAP_SUFFIX
from tests.nbd.disks import SIZE, Base, Disk, HeldOffload, content, machine, opened
from tests.ports.watched import Tripwire, WatchedFiles
from tests.whole.memfiles import MemFiles


async def test_a_flush_names_only_what_it_synced() -> None:
    """A write that comes while the file is being synced is not in the map of that flush."""
    disk = await Disk().open()
    offload = HeldOffload()
    overlay = disk.overlay = await opened_again(disk, offload)
    await disk.write(0, b"a" * BLOCK)
    offload.hold = "fdatasync"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.flush)
        await offload.reached.wait()
        await overlay.write(12 * BLOCK, memoryview(b"b" * BLOCK), fua=False)
        offload.go_on.set()
    disk.put(12 * BLOCK, b"b" * BLOCK)
    for seed in range(6):
        await disk.restart(power_cut=seed)


async def test_a_block_is_the_bases_until_it_is_written() -> None:
    base, offload = Base(), HeldOffload()
    overlay = await opened(base, MemFiles(), offload)
    offload.hold_next = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(overlay.write, 100, memoryview(b"x" * 100), False)
        await offload.reached.wait()
        assert (await content(overlay)) == base.content
        offload.go_on.set()
    assert (await content(overlay))[100:200] == b"x" * 100


async def opened_again(disk: Disk, offload: HeldOffload) -> Overlay:
    await disk.overlay.close()
    return await opened(disk.base, disk.files, offload)


def counting() -> tuple[Tripwire, WatchedFiles]:
    trip = Tripwire()
    return trip, WatchedFiles(trip, MemFiles())


async def test_flushes_at_once_share_their_syncs() -> None:
    trip, files = counting()
    overlay = await opened(Base(), files)
    trip.names.clear()
    await overlay.flush()  # the first one syncs what a predecessor may have left
    await overlay.flush()
    assert trip.names == ["fdatasync"]
    trip.names.clear()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            data = memoryview(b"x" * BLOCK)
            nursery.start_soon(overlay.write, number * BLOCK, data, True)
    assert 1 <= trip.names.count("fdatasync") <= 4
    await overlay.flush()
    assert trip.names.count("fdatasync") <= 4


async def test_a_failed_sync_is_never_retried_into_success() -> None:
    trip, files = counting()
    overlay = await opened(Base(), files)
    await overlay.write(0, memoryview(b"x" * BLOCK), fua=False)
    trip.at, trip.code = len(trip.names), errno.EIO
    for _ in range(3):
        with pytest.raises(OSError, match=r"error|failed") as caught:
            await overlay.flush()
        assert caught.value.errno == errno.EIO
    assert trip.tripped == "fdatasync"


async def test_a_map_that_cannot_be_written_is_written_by_the_next_flush() -> None:
    trip, files = counting()
    base = Base()
    overlay = await opened(base, files)
    await overlay.write(0, memoryview(b"x" * BLOCK), fua=False)
    trip.at, trip.code = len(trip.names) + 2, errno.ENOSPC
    with pytest.raises(OSError, match="space"):
        await overlay.flush()
    await overlay.close()
    again = await opened(base, files)
    assert (await content(again))[:BLOCK] == b"x" * BLOCK


async def test_whatever_operation_fails_nothing_flushed_is_lost() -> None:
    for at in range(200):
        memory = MemFiles()
        trip = Tripwire(at=at, code=errno.EIO, late=at % 2 == 1)
        base, disk, flushed = Base(), WatchedFiles(trip, memory), b""
        try:
            overlay = await opened(base, disk)
            for value in (b"1", b"2"):
                await overlay.write(BLOCK + 5, memoryview(value * BLOCK), fua=True)
                flushed = value
            await overlay.close()
        except OSError:
            memory.process_died()
        assert bool(trip.tripped) == (at < len(trip.names))
        again = await opened(base, memory)
        found = (await content(again))[BLOCK + 5 : 2 * BLOCK + 5]
        assert len(set(found)) == 1 or not flushed
        assert found[:1] >= flushed
        if not trip.tripped:
            return
    pytest.fail("more operations than expected")


async def test_what_is_refused_at_opening() -> None:
    base, files = Base(), MemFiles()
    overlay = await opened(base, files)
    with pytest.raises(TargetError, match="in use"):
        await opened(base, files)
    await overlay.write(0, memoryview(b"x"), fua=True)
    await overlay.close()
    with pytest.raises(TargetError, match="another point"):
        await Overlay.open(base, machine(files), "/ov", identity="other")
    with pytest.raises(TargetError, match="another point"):
        await opened(Base(SIZE + BLOCK), files)
    kept = files.read("/ov" + MAP_SUFFIX, 1 << 20)
    files.put("/ov" + MAP_SUFFIX, kept[:-1])
    with pytest.raises(StateDamaged):
        await opened(base, files)
    files.put("/ov" + MAP_SUFFIX, kept)
    files.unlink("/ov")
    with pytest.raises(StateDamaged, match="missing"):
        await opened(base, files)
    files.put("/lonely", b"data")
    with pytest.raises(TargetError, match="map"):
        await Overlay.open(base, machine(files), "/lonely", identity="base")
    assert files.read("/lonely", 99) == b"data"


async def test_litter_of_a_crash_is_no_obstacle() -> None:
    base, files = Base(), MemFiles()
    files.put("/ov.map.tmp-overlay", b"half")
    overlay = await opened(base, files)
    await overlay.write(0, memoryview(b"x"), fua=True)
    await overlay.close()
    files.put("/ov.map.tmp-overlay", b"half")
    again = await opened(base, files)
    await again.write(9 * BLOCK, memoryview(b"x"), fua=True)
    await again.close()
    assert files.listdir("/") == ["ov", "ov.map"]
