"""What an overlay copies from its base beside its guest."""

from __future__ import annotations

import trio

from stages.model import BLOCK
from stages.recover.overlay import Overlay
from tests.nbd.disks import HOLE, SIZE, Base, Disk, content, hydrate, machine
from tests.whole.memfiles import MemFiles


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


async def test_hydration_clears_what_a_crash_left() -> None:
    disk = await Disk().open()
    hole = 5 * BLOCK
    await disk.overlay.write(hole, memoryview(b"x" * BLOCK), fua=False)
    disk.put(hole, b"x" * BLOCK)
    await disk.restart()  # the write is in the file, but in no map
    assert not any((await content(disk.overlay))[hole : hole + BLOCK])
    await disk.overlay.hydrate()
    assert await content(disk.overlay) == disk.base.content
