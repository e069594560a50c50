"""What is reported durable is read back, in order, after anything (R2, R10)."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stages.cache.journal.reader import JournalReader
from stages.cache.journal.record import FILE_HEAD, decode, encode
from stages.cache.journal.recover import open_journal
from stages.cache.journal.writer import JournalLimits, JournalWriter
from stages.errors import StateDamaged
from stages.ports import Buffer
from stages.stream import ORIGIN, ROW, Entry, JournalGap, JournalUnusable, Kind, Position
from tests.ports.watched import Tripwire, WatchedFiles, machine
from tests.whole.memfiles import MemFile, MemFiles

FOLDER = "/j"
SMALL = JournalLimits(memory=1 << 20, file=3000, sync_bytes=1 << 20, sync_seconds=0.1, ahead=4096)


def entry(number: int, size: int = 700, released: list[int] | None = None) -> Entry:
    payload = random.Random(number).randbytes(size)
    release = None if released is None else partial(released.append, number)
    return Entry(
        Kind.WRITE, 1, number, ROW.pack(number, 1, 0), b"x", (payload,), size, release=release
    )


def read_all(files: MemFiles, durable: Position) -> list[int]:
    reader = JournalReader(files, FOLDER)
    found, position = [], ORIGIN
    while records := reader.read(position, durable, 2000):
        found += [record.wall_us for record in records]
        for record in records:
            assert bytes(record.payload) == random.Random(record.wall_us).randbytes(
                len(record.payload)
            )
        position = records[-1].end
    reader.close()
    return found


async def append(writer: JournalWriter, numbers: range, released: list[int]) -> None:
    for number in numbers:
        one = entry(number, released=released)
        await writer.reserve(one.size)
        writer.push(one, one.size)
        if number % 7 == 0:
            await writer.sync(writer.head)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 1 << 40))
def test_no_damaged_byte_passes(payload: bytes, where: int, offset: int) -> None:
    one = Entry(Kind.SCAN, 3, 5, ROW.pack(1, 1, 0), b"extra", (payload,), len(payload))
    data = bytearray(b"".join(map(bytes, encode(one, 7, 0, offset, 0))))
    whole = decode(memoryview(bytes(data)), 0, 7, 0, offset)
    assert whole is not None
    assert bytes(whole.payload) == payload
    assert decode(memoryview(bytes(data)), 0, 8, 0, offset) is None
    assert decode(memoryview(bytes(data)), 0, 7, 1, offset) is None
    assert decode(memoryview(bytes(data)), 0, 7, 0, offset + 1) is None
    data[where % len(data)] ^= 1
    assert decode(memoryview(bytes(data)), 0, 7, 0, offset) is None


async def test_across_files_and_runs_and_trims(autojump_clock: trio.abc.Clock) -> None:
    files, released = MemFiles(), list[int]()
    ports = machine(files)
    for life in range(3):
        writer, found = await open_journal(ports, FOLDER, limits=SMALL)
        assert found.run == life + 1
        assert not found.damaged
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await append(writer, range(life * 20, life * 20 + 20), released)
            await writer.close()
    assert read_all(files, writer.durable) == list(range(60))
    assert sorted(released) == list(range(60))
    before = writer.retained
    reader = JournalReader(files, FOLDER)
    middle = reader.read(Position(2, 0), writer.durable, 1)[0].end
    await writer.trim(middle)
    assert writer.retained < before
    assert reader.first() <= middle
    with pytest.raises(JournalGap):
        reader.read(Position(1, 0), writer.durable, 1)
    assert reader.read(middle, writer.durable, 1)[0].wall_us == 21


@pytest.mark.parametrize("seed", range(30))
async def test_power_cuts_leave_what_was_durable(seed: int, autojump_clock: trio.abc.Clock) -> None:
    files, dice, released = MemFiles(), random.Random(seed), list[int]()
    ports = machine(files)
    written = 0
    promised = 0
    for _ in range(3):
        writer, found = await open_journal(ports, FOLDER, limits=SMALL)
        assert not found.damaged
        kept = read_all(files, Position(found.run, 0))
        assert kept == list(range(len(kept)))
        assert len(kept) >= promised
        written = promised = len(kept)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            await append(writer, range(written, written + dice.randrange(1, 30)), released)
            await trio.sleep(dice.choice([0, 0.01, 1]))
            promised = len(read_all(files, writer.durable))
            nursery.cancel_scope.cancel()
        files.process_died()
        files.power_cut(seed)


async def test_damage_inside_keeps_the_prefix(autojump_clock: trio.abc.Clock) -> None:
    files = MemFiles()
    writer, _ = await open_journal(machine(files), FOLDER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await append(writer, range(10), [])
        await writer.close()
    (name,) = files.listdir(FOLDER)
    data = bytearray(files.read(f"{FOLDER}/{name}", 1 << 20))
    data[len(data) // 2] ^= 1
    files.put(f"{FOLDER}/{name}", bytes(data))
    reader = JournalReader(files, FOLDER)
    with pytest.raises(StateDamaged, match="is not what was written"):
        position = ORIGIN
        while True:
            position = reader.read(position, writer.durable, 1)[-1].end
    _, found = await open_journal(machine(files), FOLDER)
    assert found.damaged
    kept = read_all(files, Position(found.run, 0))
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 10


async def test_a_bad_head_before_records_is_damage(autojump_clock: trio.abc.Clock) -> None:
    """Records are behind a head that was durable: another version's, or a rotten one. Were the file
    taken for one that was just being made, what guests were told is durable would be forgotten."""
    files = MemFiles()
    writer, _ = await open_journal(machine(files), FOLDER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        await append(writer, range(3), [])
        await writer.close()
    (name,) = files.listdir(FOLDER)
    data = bytearray(files.read(f"{FOLDER}/{name}", 1 << 20))
    data[8] ^= 3  # the version
    files.put(f"{FOLDER}/{name}", bytes(data))
    _, found = await open_journal(machine(files), FOLDER)
    assert found.damaged
    assert not found.kept


@pytest.mark.parametrize("zeros", [0, 4096])
async def test_a_file_that_was_just_being_made_is_no_damage(zeros: int) -> None:
    files = MemFiles()
    await open_journal(machine(files), FOLDER)
    (name,) = files.listdir(FOLDER)
    files.put(
        f"{FOLDER}/{name}", bytes(FILE_HEAD // 2) + b"torn".ljust(FILE_HEAD // 2 + zeros, b"\0")
    )
    _, found = await open_journal(machine(files), FOLDER)
    assert not found.damaged
    assert not found.kept


@pytest.mark.parametrize(("asked", "damaged"), [(False, False), (True, True)])
async def test_a_hole_is_damage_only_where_it_was_durable(
    asked: bool, damaged: bool, autojump_clock: trio.abc.Clock
) -> None:
    """A power cut may keep later pages of what was never fsynced, and lose earlier ones."""
    files = MemFiles()
    writer, _ = await open_journal(machine(files), FOLDER)
    ends = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(6):
            one = entry(number)
            await writer.reserve(one.size)
            ends.append(writer.push(one, one.size).offset)
            if number == 3 and asked:
                await writer.sync(writer.head)
        await trio.sleep(0.05)  # appended, and not yet synced by itself
        nursery.cancel_scope.cancel()
    (name,) = files.listdir(FOLDER)
    data = bytearray(files.read(f"{FOLDER}/{name}", 1 << 21))
    data[FILE_HEAD + ends[1] + 80] ^= 1
    files.put(f"{FOLDER}/{name}", bytes(data))
    _, found = await open_journal(machine(files), FOLDER)
    assert bool(found.damaged) == damaged
    assert found.torn == ends[5] - ends[1]
    assert read_all(files, Position(found.run, 0)) == [0, 1]


async def test_every_file_operation_fails_once(autojump_clock: trio.abc.Clock) -> None:
    """Nothing durable is lost, everything is released once, nobody waits for ever."""
    at, tripped = 0, True
    while tripped:
        inner, wire, released = MemFiles(), Tripwire(at, errno.EIO), list[int]()
        ports = machine(WatchedFiles(wire, inner))
        pushed = 0
        durable = ORIGIN
        try:
            writer, _ = await open_journal(ports, FOLDER, limits=SMALL)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                try:
                    for number in range(12):
                        one = entry(number, released=released)
                        await writer.reserve(one.size)
                        pushed += 1
                        writer.push(one, one.size)
                        await writer.sync(writer.head)
                    await writer.close()
                except JournalUnusable:
                    nursery.cancel_scope.cancel()
                durable = writer.durable
        except OSError:
            pass
        assert sorted(released) == list(range(pushed))
        if durable.offset:
            kept = read_all(inner, durable)
            assert kept == list(range(len(kept)))
        at, tripped = at + 1, bool(wire.tripped)
    assert at > 20


async def test_memory_is_bounded_and_waiters_are_served_in_order(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = JournalLimits(memory=2000)
    writer, _ = await open_journal(machine(MemFiles()), FOLDER, limits=limits)
    assert writer.try_reserve(1500)
    order: list[int] = []

    async def wait(number: int, size: int) -> None:
        await writer.reserve(size)
        order.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1, 1800)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, 2, 400)
        await trio.testing.wait_all_tasks_blocked()
        assert order == []
        assert not writer.try_reserve(10)
        writer.release(1500)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [1]  # the small one does not overtake, and does not fit beside it
        writer.release(1800)
    assert order == [1, 2]
    writer.abandon("its disk does not answer")
    with pytest.raises(JournalUnusable):
        await writer.reserve(1)


class SlowFiles(MemFiles):
    """A disk that needs its time for each append past the page cache."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.direct: list[bool] = []
        self.now = 0.0

    def open_write(
        self,
        path: str,
        *,
        create: bool = False,
        new: bool = False,
        exclusive: bool = False,
        direct: bool = False,
    ) -> MemFile:
        self.direct.append(direct)
        opened = super().open_write(path, create=create, new=new, direct=direct)
        if direct:
            real = opened.append

            def slow(parts: Sequence[Buffer]) -> None:
                self.now += self.seconds
                real(parts)

            opened.append = slow  # type: ignore[method-assign]
        return opened


async def test_a_slow_disk_is_written_through_the_page_cache_while_guests_wait() -> None:
    files = SlowFiles(1.0)
    ports = machine(files)
    clock = ports.clock
    clock.monotonic = lambda: files.now  # type: ignore[method-assign]
    limits = JournalLimits(memory=3 << 20, file=2 << 20, ahead=4096)
    writer, _ = await open_journal(ports, FOLDER, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(60):
            one = entry(number, 1 << 20)
            await writer.reserve(one.size)
            writer.push(one, one.size)
        await writer.close()
    assert files.direct[0]
    assert files.direct.count(False) >= 16
    assert len(files.direct) - files.direct.count(False) <= 5  # and is tried again
    assert read_all(files, writer.durable) == list(range(60))


async def test_a_disk_that_keeps_up_is_always_written_directly() -> None:
    files = SlowFiles(0.001)
    ports = machine(files)
    ports.clock.monotonic = lambda: files.now  # type: ignore[method-assign]
    limits = JournalLimits(memory=3 << 20, file=2 << 20, ahead=4096)
    writer, _ = await open_journal(ports, FOLDER, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(12):
            one = entry(number, 1 << 20)
            await writer.reserve(one.size)
            writer.push(one, one.size)
        await writer.close()
    assert all(files.direct)
