"""What an overlay reads and writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.model import BLOCK
from stages.nbd.device import Extent, FileRange
from stages.recover.overlay import Overlay
from stages.system import this_machine
from tests.nbd.disks import HOLE, SIZE, Base, Disk, content, hydrate, opened
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
