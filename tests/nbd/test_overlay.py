"""What an overlay reads, writes and keeps."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import StateDamaged, TargetError
from stages.model import BLOCK
from stages.nbd.device import Extent, FileRange
from stages.recover.overlay import Overlay
from stages.recover.overlay_file import MAP_SUFFIX
from stages.system import this_machine
from tests.nbd.disks import HOLE, SIZE, Base, Disk, HeldOffload, content, machine, opened
from tests.ports.watched import Tripwire, WatchedFiles
from tests.whole.memfiles import MemFiles


async def test_an_untouched_overlay_reads_as_its_base() -> None:
    disk = await Disk().open()
    await disk.check()
    about = disk.overlay.info
    assert (about.name, about.size, about.read_only) == ("disk", SIZE, False)
    assert about.flags.multi_conn
    assert about.flags.write_zeroes


async def test_writes_change_the_overlay_and_not_the_base() -> None:
    disk = await Disk().open()
    before = bytes(disk.base.content)
    for offset, length in ((0, 1), (100, BLOCK), (5 * BLOCK, 3 * BLOCK), (SIZE - 3, 3), (9000, 9)):
        await disk.write(offset, b"w" * length)
        await disk.check()
    assert disk.base.content == before


async def test_whole_blocks_are_written_without_reading_the_base() -> None:
    disk = await Disk().open()
    await disk.write(2 * BLOCK, b"x" * 2 * BLOCK)
    assert disk.base.reads == 0
    await disk.write(2 * BLOCK + 5, b"y")
    assert disk.base.reads == 0
    await disk.write(8 * BLOCK + 5, b"y" * BLOCK)
    assert disk.base.reads == 2
    last = SIZE // BLOCK * BLOCK
    await disk.write(last, b"z" * (SIZE - last))
    assert disk.base.reads == 2
    await disk.check()


async def test_zero_and_trim() -> None:
    disk = await Disk().open()
    await disk.zero(100, 3 * BLOCK, no_hole=False)
    await disk.zero(10 * BLOCK + 1, 20, no_hole=False)
    await disk.zero(12 * BLOCK, 2 * BLOCK, no_hole=True)
    await disk.trim(20 * BLOCK + 1, 3 * BLOCK)
    await disk.trim(38 * BLOCK, SIZE - 38 * BLOCK)
    await disk.trim(30 * BLOCK + 1, 100)
    await disk.check()


async def test_extents_of_both() -> None:
    disk = await Disk().open()
    await disk.write(0, b"x" * BLOCK)
    await disk.zero(BLOCK, 2 * BLOCK, no_hole=False)
    found = await disk.overlay.extents(100, 12 * BLOCK)
    kinds = [(extent.flags, extent.length) for extent in found]
    assert kinds[:3] == [(0, BLOCK - 100), (HOLE, 2 * BLOCK), (0, BLOCK)]  # base's data
    assert set(found[3:]) == {Extent(BLOCK, HOLE), Extent(BLOCK, 0), Extent(100, 0)}


OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, SIZE - 1), st.integers(1, 3 * BLOCK)),
    st.tuples(st.sampled_from(["zero", "fill"]), st.integers(0, SIZE - 1), st.integers(1, SIZE)),
    st.tuples(st.just("trim"), st.integers(0, SIZE - 1), st.integers(1, SIZE)),
    st.tuples(st.just("write"), st.integers(0, SIZE // BLOCK), st.just(BLOCK)).map(
        lambda drawn: (drawn[0], drawn[1] * BLOCK, drawn[2])
    ),
    st.sampled_from([("flush", 0, 0), ("kill", 0, 0), ("close", 0, 0), ("hydrate", 0, 0)]),
    st.tuples(st.just("power"), st.integers(0, 1 << 30), st.just(0)),
    st.tuples(st.just("hydrate"), st.integers(1, 6), st.just(0)),
)


async def perform(disk: Disk, number: int, operation: tuple[str, int, int]) -> None:
    kind, offset, length = operation
    length = min(length, SIZE - offset)
    if kind == "write":
        await disk.write(offset, bytes([number + 1]) * length)
    elif kind in ("zero", "fill"):
        await disk.zero(offset, length, no_hole=kind == "fill")
    elif kind == "trim":
        await disk.trim(offset, length)
    elif kind == "flush":
        await disk.flush()
    elif kind == "close":
        await disk.overlay.close()
        disk.durable()
        await disk.restart()
    elif kind == "hydrate":
        await hydrate(disk.overlay, offset)
    else:
        await disk.restart(power_cut=offset if kind == "power" else None)


async def hydrate(overlay: Overlay, turns: int) -> None:
    """All of it, or until some turns of the loop have passed."""
    if not turns:
        await overlay.hydrate()
        assert overlay.hydrated
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(overlay.hydrate)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@settings(deadline=None, max_examples=150)
@given(st.lists(OPERATIONS, max_size=14))
async def test_any_operations_match_a_model(operations: list[tuple[str, int, int]]) -> None:
    disk = await Disk().open()
    base = bytes(disk.base.content)
    for number, operation in enumerate(operations):
        await perform(disk, number, operation)
    await disk.check()
    await disk.flush()
    await disk.restart(power_cut=1)
    await disk.check()
    assert disk.base.content == base


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 31), st.integers(1, 4)), min_size=2, max_size=24))
async def test_writes_at_once_lose_nothing(pieces: list[tuple[int, int]]) -> None:
    """Sectors of the same blocks, written side by side with a flush and hydration."""
    disk = await Disk().open()
    taken: dict[int, int] = {}
    for number, (first, count) in enumerate(pieces):
        for sector in range(first, first + count):
            taken.setdefault(sector, number + 1)

    async def one(sector: int, value: int) -> None:
        data = bytes([value]) * 512
        await disk.overlay.write(sector * 512, memoryview(data), fua=value % 5 == 0)
        disk.put(sector * 512, data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.overlay.hydrate)
        for sector, value in taken.items():
            nursery.start_soon(one, sector, value)
        nursery.start_soon(disk.overlay.flush)
    await disk.check()
    await disk.flush()
    await disk.restart(power_cut=3)


async def test_a_hydrated_overlay_does_without_its_base() -> None:
    disk = await Disk().open()
    await disk.write(3 * BLOCK + 7, b"mine" * 3000)
    await disk.trim(30 * BLOCK, BLOCK)
    await hydrate(disk.overlay, 3)
    seen = [disk.overlay.hydrated]
    await disk.overlay.hydrate()
    assert [*seen, disk.overlay.hydrated] == [False, True]
    assert disk.overlay.statistics().present == SIZE // BLOCK + 1
    disk.base.gone = True
    await disk.check()
    await disk.restart(power_cut=9)
    assert disk.overlay.hydrated
    await disk.write(5, b"x")
    await disk.check()


async def test_hydration_keeps_holes_and_to_its_rate() -> None:
    base, files = Base(), MemFiles()
    ports = machine(files)
    overlay = await Overlay.open(base, ports, "/ov", identity="base")
    await overlay.hydrate(rate=1 << 20)
    copied = sum(ports.clock.slept) * (1 << 20)  # type: ignore[attr-defined]
    assert 0 < copied < SIZE
    for at in range(0, SIZE, BLOCK):
        if not any(base.content[at : at + BLOCK]):
            assert [e.flags for e in await overlay.extents(at, min(BLOCK, SIZE - at))] == [HOLE]
    assert await content(overlay) == base.content


async def test_hydration_gives_way_to_the_guest() -> None:
    ports = machine(MemFiles())
    overlay = await Overlay.open(Base(20 << 20), ports, "/ov", identity="base")

    async def guest() -> None:
        while not overlay.hydrated:
            await overlay.read(0, 1)
            await trio.lowlevel.checkpoint()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest)
            nursery.start_soon(overlay.hydrate)
    slept: list[float] = ports.clock.slept  # type: ignore[attr-defined]
    assert len([pause for pause in slept if pause >= 0.05]) >= len(slept) // 2
    assert len(slept) > 20


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


async def test_hydration_clears_what_a_crash_left() -> None:
    disk = await Disk().open()
    hole = 5 * BLOCK
    await disk.overlay.write(hole, memoryview(b"x" * BLOCK), fua=False)
    disk.put(hole, b"x" * BLOCK)
    await disk.restart()  # the write is in the file, but in no map
    assert not any((await content(disk.overlay))[hole : hole + BLOCK])
    await disk.overlay.hydrate()
    assert await content(disk.overlay) == disk.base.content


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


async def test_on_real_files_over_a_file(tmp_path: Path) -> None:
    """Sparse, holes punched, base sent as ranges of a file."""
    ports = this_machine()
    image = tmp_path / "image"
    image.write_bytes(bytes(Base().content))
    base = Base()
    file = ports.files.open_read(str(image))

    async def ranges(offset: int, length: int) -> list[FileRange]:
        return [FileRange(file, offset, length)]

    base.read = ranges  # type: ignore[method-assign]
    overlay = await Overlay.open(base, ports, str(tmp_path / "ov"), identity="base")
    await overlay.write(5000, memoryview(b"x" * 10_000), fua=False)
    await overlay.zero(3 * BLOCK, 20 * BLOCK, no_hole=False, fua=False)
    await overlay.hydrate()
    await overlay.close()
    file.close()
    expected = bytearray(base.content)
    expected[5000:15_000] = b"x" * 10_000
    expected[3 * BLOCK : 23 * BLOCK] = bytes(20 * BLOCK)
    again = await Overlay.open(base, ports, str(tmp_path / "ov"), identity="base")
    assert again.hydrated
    assert await content(again) == expected
    holes = [e for e in await again.extents(0, SIZE) if e.flags == HOLE]
    assert max(hole.length for hole in holes) >= 16 * BLOCK
    found = ports.files.stat(str(tmp_path / "ov"))
    assert found is not None
    assert found.allocated < SIZE
    await again.close()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK + 1])
async def test_tiny_disks(size: int) -> None:
    base, files = Base(size), MemFiles()
    overlay = await opened(base, files)
    if size:
        await overlay.write(size - 1, memoryview(b"!"), fua=True)
        assert await content(overlay) == bytes(base.content[:-1]) + b"!"
    await overlay.hydrate()
    assert overlay.hydrated
    await overlay.close()
