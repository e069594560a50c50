"""What was promised hot is hot after a crash; what is pending stays pending (R1, R6, R9)."""

from __future__ import annotations

import contextlib
import errno
import random

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stages.capture.activity.codec import DiskSpan, Found, SourceId, read
from stages.capture.activity.log import ActivityLog, look
from stages.capture.activity.witness import Witness
from stages.errors import NoSpace, StateError
from stages.stream import REGION
from tests.ports.watched import Tripwire, WatchedFiles, machine
from tests.whole.memfiles import MemFiles

PATH = "/activity"
DISKS = (DiskSpan(0, "root", 40 * REGION), DiskSpan(3, "data", 17 * REGION + 5))


async def begun(
    files: object,
    *,
    all_pending: bool = False,
    max_hot: int = 4096,
    stretch: int = 1,
    witness: Witness | None = None,
) -> ActivityLog:
    pending = {d.number: np.full(d.regions, all_pending, np.bool_) for d in DISKS}
    return await ActivityLog.begin(
        machine(files),  # type: ignore[arg-type]
        PATH,
        run=1,
        disks=DISKS,
        pending=pending,
        in_gap=False,
        next_disk=4,
        max_hot=max_hot,
        stretch=stretch,
        witness=witness,
    )


def found_in(files: MemFiles) -> Found:
    found = look(files, PATH)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(40))
async def test_power_cuts_never_lose_a_mark(seed: int) -> None:
    files, dice = MemFiles(), random.Random(seed)
    log = await begun(files, all_pending=seed % 2 == 0)
    hot: set[tuple[int, int]] = set()
    pending = {(d.number, r) for d in DISKS for r in range(d.regions) if seed % 2 == 0}
    for _ in range(dice.randrange(400)):
        disk = dice.choice(DISKS)
        regions = [dice.randrange(disk.regions) for _ in range(dice.randrange(1, 6))]
        what = dice.choice(["heat", "heat", "track", "scanned", "cool", "gap"])
        if what in ("heat", "track"):
            await log.heat(disk.number, regions, track=what == "track")
            hot |= {(disk.number, region) for region in regions}
            if what == "track":
                pending |= {(disk.number, region) for region in regions}
        elif what == "scanned":
            log.scanned(disk.number, regions)
            pending -= {(disk.number, region) for region in regions}
        elif what == "cool":
            ended = log.start_cycle()
            log.cool({disk.number: regions}, ended)
            hot -= {(disk.number, region) for region in regions}
        else:
            await log.set_gap(dice.random() < 0.5)
        assert log.hot == sum(int((np.asarray(w) > 0).sum()) for w in log.written.values())
    assert _flags(log) == (hot, pending)
    files.power_cut(seed)
    found = found_in(files)
    assert found.valid, found.reason
    assert not found.clean
    for disk_found in found.disks:
        number = disk_found.span.number
        assert {r for d, r in hot if d == number} <= set(np.flatnonzero(disk_found.hot).tolist())
        kept = set(np.flatnonzero(disk_found.pending).tolist())
        assert {r for d, r in pending if d == number} <= kept


def _flags(log: ActivityLog) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    hot = {(d, r) for d, w in log.written.items() for r in np.flatnonzero(np.asarray(w)).tolist()}
    pending = {(d, r) for d, p in log.pending.items() for r in np.flatnonzero(p).tolist()}
    return hot, pending


async def test_a_clean_end_is_told_with_identities() -> None:
    files = MemFiles()
    log = await begun(files)
    await log.heat(0, [1, 2])
    await log.close(identities={0: {"inode": 7}, 3: {"inode": 8}}, clean=True, in_gap=True)
    found = found_in(files)
    assert (found.valid, found.clean, found.in_gap, found.next_disk) == (True, True, True, 4)
    assert [d.identity for d in found.disks] == [{"inode": 7}, {"inode": 8}]
    assert not any(d.hot.any() for d in found.disks)
    await begun(files)
    assert not found_in(files).clean


async def test_marks_asked_for_together_share_an_fsync() -> None:
    files = MemFiles()
    wire = Tripwire()
    log = await begun(WatchedFiles(wire, files))
    wire.names.clear()
    async with trio.open_nursery() as nursery:
        for region in range(20):
            nursery.start_soon(log.heat, 0, [region])
    assert wire.names.count("fdatasync") <= 2


async def test_a_mark_is_in_memory_only_once_it_is_durable() -> None:
    files = MemFiles()
    log = await begun(files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.heat, 0, [5])
        await trio.lowlevel.checkpoint()
        found = look(files, PATH)
        assert found is not None
        assert not log.written[0][5] or found.disks[0].hot[5]
    assert log.written[0][5]


async def test_a_crowded_log_waits_for_cooling() -> None:
    log = await begun(MemFiles(), max_hot=3)
    await log.heat(0, [1, 2, 3])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.heat, 0, [4])
        await log.wait_crowded()
        assert log.is_crowded
        log.cool(log.candidates(log.start_cycle(), 0), log.generation - 1)
    assert [bool(w) for w in log.written[0][:6]] == [False, False, False, False, True, False]


async def test_neighbours_become_hot_together_while_there_is_room() -> None:
    files = MemFiles()
    log = await begun(files, stretch=16, max_hot=100)
    await log.heat(0, [37])
    assert _flags(log)[0] == {(0, region) for region in range(32, 40)}  # the disk ends there
    assert set(np.flatnonzero(found_in(files).disks[0].hot).tolist()) == set(range(32, 40))
    await log.heat(0, [3])  # 8 hot, 16 more might be: that is within a quarter
    assert log.hot == 8 + 16
    await log.heat(3, [2])
    assert log.hot == 8 + 16 + 1


async def test_a_region_written_meanwhile_does_not_cool() -> None:
    log = await begun(MemFiles())
    await log.heat(0, [1, 2])
    ended = log.start_cycle()
    log.written[0][2] = log.generation
    log.cool({0: [1, 2]}, ended)
    assert not log.written[0][1]
    assert log.written[0][2]


async def test_a_log_that_failed_marks_nothing_any_more() -> None:
    wire = Tripwire()
    log = await begun(WatchedFiles(wire, MemFiles()))
    wire.at, wire.code = len(wire.names) + 1, errno.EIO
    with pytest.raises(StateError):
        await log.heat(0, [1])
    assert not log.written[0][1]
    with pytest.raises(StateError):
        await log.heat(0, [2])


async def test_with_a_witness_it_goes_on_without_its_file_until_it_is_renewed() -> None:
    files, wire = MemFiles(), Tripwire()
    for folder in ("/here", "/there"):
        files.mkdir(folder)
    watched = WatchedFiles(wire, files)
    witness = Witness(watched, ["/there/mark"], "/here")
    assert not witness.look()
    witness._apart = ("/there/mark",)  # these files are all on one device
    log = await begun(watched, witness=witness)
    await log.heat(0, [1])
    wire.at, wire.code = len(wire.names) + 1, errno.EIO
    await log.heat(0, [2], track=True)
    assert log.unlogged == "Input/output error"
    assert files.stat("/there/mark") is not None
    await log.heat(3, [4], track=True)
    assert _flags(log) == ({(0, 1), (0, 2), (3, 4)}, {(0, 2), (3, 4)})
    await log.renew()
    assert not log.unlogged
    assert files.stat("/there/mark") is None
    await log.heat(0, [7])
    files.power_cut(1)
    root, data = found_in(files).disks
    assert np.flatnonzero(root.hot).tolist() == [1, 2, 7]
    assert np.flatnonzero(root.pending).tolist() == [2]
    assert np.flatnonzero(data.pending).tolist() == [4]


@given(st.integers(0, 1 << 30), st.integers(0, 7))
def test_damage_never_makes_it_forget(where: int, bit: int) -> None:
    async def make() -> bytes:
        files = MemFiles()
        log = await begun(files)
        for region in range(9):
            await log.heat(0, [region])
        return files.read(PATH, 1 << 24)

    data = bytearray(trio.run(make))
    data[where % 3000] ^= 1 << bit
    found = read(bytes(data))
    if found.valid:
        held = set(np.flatnonzero(found.disks[0].hot).tolist())
        assert held >= set(range(8)), "only the last record can pass for a torn tail"


async def test_many_changes_of_areas() -> None:
    files = MemFiles()
    log = await begun(files)
    dice = random.Random(1)
    for _ in range(8000):
        ended = log.start_cycle()
        log.cool(log.candidates(ended, 0), ended)
        await log.heat(0, dice.sample(range(40), 12))
    hot = {r for r in range(40) if log.written[0][r]}
    found = found_in(files)
    assert found.valid
    assert set(np.flatnonzero(found.disks[0].hot).tolist()) == hot


def _spans(sizes: dict[int, int]) -> list[DiskSpan]:
    return [DiskSpan(number, f"d{number}", size) for number, size in sizes.items()]


@pytest.mark.parametrize("seed", range(30))
async def test_disks_come_grow_and_go_and_no_mark_is_lost(seed: int) -> None:
    """Whatever is asked in between, the file says at least what memory says, after a power cut."""
    files, dice = MemFiles(), random.Random(seed)
    log = await begun(files)
    sizes = {disk.number: disk.size for disk in DISKS}
    await log.change(_spans(sizes))
    for _ in range(dice.randrange(60)):
        what = dice.choice(["heat", "heat", "track", "cool", "scanned", "add", "grow", "go", "new"])
        number = dice.choice(sorted(sizes))
        last = len(log.written[number])
        regions = [dice.randrange(last) for _ in range(dice.randrange(1, 6))]
        if what in ("heat", "track"):
            await log.heat(number, regions, track=what == "track")
            assert all(log.written[number][region] for region in regions)
        elif what == "cool":
            log.cool({number: regions, 99: [1]}, log.start_cycle())
        elif what == "scanned":
            log.scanned(number, regions)
        else:
            before = {n: log.pending[n].copy() for n in sizes}
            hot = {n: np.asarray(log.written[n]) > 0 for n in sizes}
            old, fresh = dict(sizes), set[int]()
            if what == "add":
                sizes[log.next_disk] = dice.randrange(1, 30 * REGION)
            elif what == "grow":
                sizes[number] += dice.choice([1, 5000, REGION, 200 * REGION])
            elif what == "go" and len(sizes) > 1:
                del sizes[number]
            elif what == "new":
                fresh = {number}
            await log.change(_spans(sizes), fresh=fresh)
            for n, size in sizes.items():
                whole = n in fresh or n not in old
                kept = 0 if whole else old[n] // REGION if size > old[n] else len(before[n])
                if kept:
                    assert (log.pending[n][:kept] == before[n][:kept]).all()
                assert log.pending[n][kept:].all()
                marks = np.asarray(log.written[n]) > 0
                assert not marks.any() if whole else (marks[: len(hot[n])] == hot[n]).all()
        assert log.hot == sum(int((np.asarray(w) > 0).sum()) for w in log.written.values())
        assert log.next_disk > max(sizes)
    files.power_cut(seed)
    found = found_in(files)
    assert found.valid, found.reason
    assert {disk.span.number: disk.span.size for disk in found.disks} == sizes
    assert found.next_disk == log.next_disk
    for disk in found.disks:
        number = disk.span.number
        assert disk.hot[np.asarray(log.written[number]) > 0].all()
        assert disk.pending[log.pending[number]].all()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("late", [False, True])
async def test_a_change_that_fails_at_any_step(code: int, late: bool) -> None:
    """Either nothing has changed and the log goes on, or it marks nothing any more; the file is
    whole in both cases."""
    more = [*DISKS, DiskSpan(4, "logs", 3 * REGION)]
    for at in range(40):
        files, wire = MemFiles(), Tripwire(code=code, late=late)
        log = await begun(WatchedFiles(wire, files))
        await log.heat(0, [7])
        wire.at = len(wire.names) + at
        try:
            await log.change(more)
        except (StateError, NoSpace):
            assert log.spans == DISKS
        else:
            if not wire.tripped:
                break
            assert wire.tripped == "close"
        with contextlib.suppress(StateError, NoSpace):
            await log.heat(0, [8])
        files.power_cut(at)
        found = found_in(files)
        assert found.valid
        hot = set(np.flatnonzero(found.disks[0].hot).tolist())
        assert hot >= {r for r in (7, 8) if log.written[0][r]}
        assert [disk.span for disk in found.disks] in (list(DISKS), more)
    else:
        raise AssertionError("it never ends")


def test_which_source_a_disk_is() -> None:
    file = SourceId("/a", 1, 12, is_block=False)
    assert file.same(SourceId("/b", 1, 12, is_block=False)), "it was renamed"
    assert file.same(SourceId("/a", 2, 12, is_block=False)), "its device has another number now"
    assert not file.same(SourceId("/b", 2, 12, is_block=False)), "numbers begin anew in each volume"
    assert not file.same(SourceId("/a", 1, 13, is_block=False))
    assert not file.same(None)
    block = SourceId("/dev/x", 5, 300, is_block=True)
    assert block.same(SourceId("/dev/x", 5, 301, is_block=True))
    assert not block.same(SourceId("/dev/y", 5, 300, is_block=True))
    assert not block.same(SourceId("/dev/x", 5, 300, is_block=False))


async def test_what_is_to_be_scanned_again_is_so_after_it_has_cooled() -> None:
    files = MemFiles()
    log = await begun(files, all_pending=True)
    await log.heat(0, [3])
    log.scanned(0, range(40))
    log.pend(0, [3, 4])
    log.cool({0: [3]}, log.start_cycle())
    await log.heat(0, [9])
    found = found_in(files)
    assert not found.disks[0].hot[3]
    assert np.flatnonzero(found.disks[0].pending).tolist() == [3, 4]
