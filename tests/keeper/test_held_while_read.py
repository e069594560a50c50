"""A long restore and a keeper that comes every few minutes, in virtual time: what holds the point.

The vault goes away for an hour from the one who reads, not from the keeper: his lease ends, the
point is let go, and within the grace his next lease has it taken back. He reads every byte.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import pytest
import trio

from pipeline.leasing import AGAIN, EVERY, SECONDS, Reader, leased
from stages.errors import Expired, StoreUnreachable
from stages.keeper.report import GroupReport
from stages.model import BLOCK
from stages.recover.device import PointDevice
from stages.recover.pointmap import PointMap
from stages.recover.points import choose
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.vault.leases import load_leases
from tests.keeper.stores import Recording
from tests.keeper.test_keeper import month
from tests.keeper.world import GRACE, World, make_world
from tests.vault.reading import MACHINE
from tests.vault.support import SECOND, SetClock

LOOKS = 300.0  # seconds between two runs of the keeper
AFTER = 600.0  # as a restore has it
PIECE = 4 * BLOCK


class Going(SetClock):
    """Goes on from where it stands with trio's, which a test may jump on."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return self.wall + round(trio.current_time() * SECOND)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@dataclass
class Tale:
    """``away``: the reader cannot reach the vault. ``said``: what he was told."""

    world: World
    seq: int
    away: bool = False
    said: list[str] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)
    stop: trio.Event = field(default_factory=trio.Event)
    disks: dict[str, bytes] = field(default_factory=dict)

    def rule(self, operation: Operation) -> Fault | None:
        return Fault(before=StoreUnreachable) if self.away else None

    async def read(self) -> None:
        """All disks of the point, a piece every ten minutes; ends when he is told to."""
        store = FaultStore(self.world.store, FaultPlan(self.rule), self.world.clock)
        group = await self.world.open(store)
        point = await PointMap.build(group, MACHINE.files, self.seq)
        link = (await group.log.signed(self.seq)).link
        given = (self.world.machine, self.world.people.operator, group, self.seq, link, "a test")
        try:
            async with leased(store, Reader(*given, after=AFTER), self.said.append):
                for disk in point.machine.disks:
                    device = PointDevice(point, disk, MACHINE.offload, cache_bytes=BLOCK)
                    content = b""
                    while len(content) < disk.size:
                        content += await self.piece(device, len(content), disk.size)
                        await trio.sleep(600)
                    self.disks[disk.name] = content
                self.done.set()
                await self.stop.wait()
        finally:
            point.close()

    async def piece(self, device: PointDevice, offset: int, size: int) -> bytes:
        while True:
            try:
                parts = await device.read(offset, min(PIECE, size - offset))
            except StoreUnreachable:
                await trio.sleep(60)
            else:
                return b"".join(part for part in parts if isinstance(part, bytes | memoryview))

    async def look(self, seconds: float) -> GroupReport:
        """That time goes by, then a run of the keeper."""
        await trio.sleep(seconds)
        report = await self.world.keep()
        assert report.clean, report
        return report.groups[0]

    async def leases(self) -> int:
        scope, charter = self.world.scope, self.world.people.charter
        now = self.world.clock.wall_us()
        return len((await load_leases(self.world.store, scope, charter, now)).running)

    async def offered(self) -> bool:
        floor = (await self.world.open()).log.floor
        return floor is None or floor.offers(self.seq)


async def tale(stack: ExitStack) -> Tale:
    """A point that the keeper's next run would let go."""
    world = await make_world(stack)
    await month(world, random.Random(3), 30, 5)
    rehearsed = replace(world, store=Recording(world.store, world.clock))
    await rehearsed.keep()
    left = await rehearsed.offered()
    seq = next(seq for seq in range(4, 30) if seq not in left)
    clock = Going(world.clock.wall)
    store = Recording(world.store, clock)
    machine = replace(world.machine, clock=clock)
    return Tale(replace(world, store=store, machine=machine), seq)


async def test_a_restore_of_hours_and_an_hour_without_the_vault(autojump_clock: object) -> None:
    with ExitStack() as stack:
        told = await tale(stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.read)
            await trio.sleep(AFTER - 1)
            assert await told.leases() == 0, "a short restore writes nothing"
            await trio.sleep(2)
            for _ in range(24):  # two hours
                report = await told.look(LOOKS)
                assert "being read: a test" in report.wanted[told.seq]
                assert 1 <= await told.leases() <= 2
                assert await told.offered()
            assert not told.said
            await an_hour_away(told)
            while not told.done.is_set():
                report = await told.look(LOOKS)
                assert told.seq in report.wanted
                assert await told.offered()
            assert told.disks == told.world.points[told.seq]
            assert len(told.said) == 1, told.said
            told.stop.set()
        assert await told.leases() == 0
        await told.look(GRACE + 1)
        assert not await told.offered()
        await told.look(GRACE + 1)
        with pytest.raises(Expired, match="let go by retention"):
            await choose(await told.world.open(), "web1", told.seq)


async def an_hour_away(told: Tale) -> None:
    """The lease counts to its end and no longer; the point is let go, and is taken back."""
    told.away, since = True, trio.current_time()
    held = 0.0
    while trio.current_time() - since < 3600:
        report = await told.look(LOOKS)
        counts = await told.leases() > 0
        assert (told.seq in report.wanted) == counts
        held = trio.current_time() - since if counts else held
        assert await told.offered() == counts
    assert SECONDS - EVERY - LOOKS <= held <= SECONDS
    assert [text for text in told.said if "nothing holds" in text] == told.said != []
    told.away = False
    await trio.sleep(AGAIN + 1)
    assert await told.leases() == 1
    report = await told.look(1)
    assert report.written, "a floor that has the point again"
    assert await told.offered()


async def test_who_is_killed_holds_nothing_for_long(autojump_clock: object) -> None:
    with ExitStack() as stack:
        told = await tale(stack)
        killed = FaultStore(
            told.world.store,
            FaultPlan(
                lambda each: Fault(before=StoreUnreachable) if each.name == "delete" else None
            ),
            told.world.clock,
        )
        group = await told.world.open(killed)
        link = (await group.log.signed(told.seq)).link
        given = (told.world.machine, told.world.people.operator, group, told.seq, link, "a test")
        async with leased(killed, Reader(*given), told.said.append):
            await trio.sleep(3 * EVERY + 1)
        assert await told.leases() > 1, "he could not give them back"
        for _ in range(3):
            report = await told.look(SECONDS / 3 - LOOKS)
            assert told.seq in report.wanted
        report = await told.look(SECONDS)
        assert told.seq not in report.wanted
        assert await told.leases() == 0
