"""Points that somebody reads: held while he does, whoever dies holds nothing for long."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import replace

import pytest
import trio

from pipeline.leasing import AGAIN, EVERY, SECONDS, Reader, leased
from stages.errors import DamagedObject, Expired, NotAdmitted, StoreDenied, StoreUnreachable
from stages.recover.points import choose
from stages.store.faults import Fault, FaultPlan, FaultStore, Operation
from stages.store.memory import MemoryStore
from stages.vault import layout
from stages.vault.floor_log import load_holds
from stages.vault.keyfile import PrivateKey
from stages.vault.leases import (
    LONGEST,
    PARALLEL,
    Lease,
    LeasesFound,
    lease_object,
    load_leases,
    read_lease,
)
from tests.keeper.stores import HoldingStore
from tests.keeper.test_keeper import month
from tests.keeper.world import HOUR, World, make_world
from tests.vault.support import SECOND, START

IDENT = bytes(range(16))


class TrioClock:
    """Trio's, which a test may jump on."""

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return START + round(trio.current_time() * SECOND)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def lease(world: World, seq: int, hours: float = 6, ident: bytes = IDENT) -> str:
    """Put one, as an exporter does."""
    link = (await (await world.open()).log.signed(seq)).link
    made = Lease(seq, link, world.clock.wall, round(hours * 3600), "a test")
    key = layout.lease(world.scope.group, seq, ident)
    await world.store.put(key, lease_object(world.scope, made, world.people.operator.signer))
    return key


async def found(world: World, later: float = 0) -> LeasesFound:
    now = world.clock.wall + round(later * HOUR)
    return await load_leases(world.store, world.scope, world.people.charter, now)


async def test_it_counts_from_when_it_was_stored_until_it_ends() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        key = await lease(world, 1, 6)
        (running,) = (await found(world, 5.9)).running
        assert running.until == world.clock.wall + 6 * HOUR
        assert (running.lease.seq, running.lease.by) == (1, "a test")
        over = await found(world, 6)
        assert not over.running
        assert [info.key for info in over.ended] == [key]


async def test_whom_nobody_believes() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        scope, charter = world.scope, world.people.charter
        made = Lease(1, bytes(32), 0, 60, "x")
        key = layout.lease(scope.group, 1, IDENT)
        right = b"".join(lease_object(scope, made, world.people.operator.signer))
        assert read_lease(right, key, scope, charter, 1) == made
        with pytest.raises(DamagedObject, match="another point"):
            read_lease(right, key, scope, charter, 2)
        strange = b"".join(lease_object(scope, made, world.people.daemon))
        with pytest.raises(NotAdmitted):
            read_lease(strange, key, scope, charter, 1)
        for at in range(0, len(right), 3):
            spoilt = bytearray(right)
            spoilt[at] ^= 4
            with pytest.raises((DamagedObject, NotAdmitted)):
                read_lease(bytes(spoilt), key, scope, charter, 1)
        for seconds in (0, LONGEST + 1):
            with pytest.raises(ValueError, match="a lease of"):
                lease_object(scope, replace(made, seconds=seconds), world.people.operator.signer)
        await world.store.put(key, [strange])
        assert len((await found(world)).notes) == 1
        await world.store.put(layout.leases_prefix(scope.group) + "x", [b"x"])
        assert len((await found(world)).notes) == 2


async def test_a_damaged_one_is_in_the_way_for_a_day() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(1), 12, 8)
        key = layout.lease(world.scope.group, 3, IDENT)
        await world.store.put(key, [b"BSTY what is this"])
        report = (await world.keep()).groups[0]
        assert any("nothing is let go here" in problem for problem in report.problems)
        assert not report.written
        world.wait(24)
        report = (await world.keep()).groups[0]
        assert (report.problems, report.written) == ([], 1)
        assert await world.store.info(key) is None


async def test_a_point_that_is_read_stays_until_its_lease_has_ended() -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        rng = random.Random(2)
        await month(world, rng, 30, 5)
        free = (await world.keep(dry_run=True)).groups[0]
        kept = next(seq for seq in range(4, 20) if seq % 3 == 0)
        assert free.next_floor > kept
        for at in range(5):
            await lease(world, kept, 6, bytes([at] * 16))
            report = (await world.keep()).groups[0]
            assert "being read: a test" in report.wanted[kept]
            assert kept in await world.check(kept)
            world.wait(4)
        world.wait(3)
        report = (await world.keep()).groups[0]
        assert kept not in report.wanted
        assert not [key for key in world.store._keys if "/leases/" in key]
        world.wait(2)
        await world.keep()
        with pytest.raises(Expired, match="let go by retention"):
            await choose(await world.open(), "web1", kept)


async def test_a_lease_the_moment_before_a_floor_is_seen_after_it() -> None:
    class Leasing(HoldingStore):
        async def put(self, key, parts):  # type: ignore[no-untyped-def]
            if "/floors/" in key and not self.done:
                self.done = True
                await lease(world, self._seq)
            return await super().put(key, parts)

    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(3), 30, 5)
        await world.keep(Leasing(world.store, world, 4))
        assert 4 in await world.check(4)
        world.wait(2)
        await world.keep()
        assert 4 in await world.check(4)


async def reader_of(world: World, key: PrivateKey | None = None) -> tuple[MemoryStore, Reader]:
    """Its vault, copied to where time is trio's."""
    clock = TrioClock()
    store = MemoryStore(clock=clock)
    for name, each in world.store._objects.items():
        await store.put(name, [each.data])
    group = await world.open(store)
    link = (await group.log.signed(1)).link
    ports = replace(world.machine, clock=clock)
    return store, Reader(ports, key or world.people.operator, group, 1, link, "a test")


async def running(store: MemoryStore, reader: Reader) -> int:
    scope, charter = reader.group.scope, reader.group.ring.charter
    return len((await load_leases(store, scope, charter, TrioClock().wall_us())).running)


async def test_a_reader_renews_and_gives_back(autojump_clock: object) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        store, reader = await reader_of(world)
        said: list[str] = []
        async with leased(store, reader, said.append):
            for _ in range(20):  # at times the very moment of the next
                assert 1 <= await running(store, reader) <= 3
                await trio.sleep(EVERY * 0.7)
        assert not [key for key in store._keys if "/leases/" in key]
        assert not said


async def test_a_short_reader_writes_nothing(autojump_clock: object) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        store, reader = await reader_of(world)
        keys = list(store._keys)
        async with leased(store, replace(reader, after=600.0), pytest.fail):
            await trio.sleep(599)
            assert store._keys == keys
            await trio.sleep(2)
            assert await running(store, reader) == 1
        assert store._keys == keys
        async with leased(store, replace(reader, by=""), pytest.fail):
            await trio.sleep(10 * EVERY)
            assert store._keys == keys


async def test_who_may_not_hold_is_told_and_reads_on(autojump_clock: object) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        store, reader = await reader_of(world, world.people.second)
        said: list[str] = []
        async with leased(store, reader, said.append):
            await trio.sleep(3 * EVERY)
        (text,) = said
        assert "nothing holds point #1" in text
        assert "neither the operator's nor a keeper's" in text

        def denied(operation: Operation) -> Fault | None:
            writes = operation.name in ("put", "delete") and "/leases/" in operation.key
            return Fault(before=StoreDenied) if writes else None

        store, reader = await reader_of(world)
        said.clear()
        async with leased(FaultStore(store, FaultPlan(denied), TrioClock()), reader, said.append):
            await trio.sleep(3 * EVERY)
        assert len(said) == 1


async def test_a_vault_that_is_away_is_told_once_no_lease_is_left(autojump_clock: object) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        store, reader = await reader_of(world)
        away = False

        def rule(operation: Operation) -> Fault | None:
            return Fault(before=StoreUnreachable) if away else None

        said: list[str] = []
        async with leased(FaultStore(store, FaultPlan(rule), TrioClock()), reader, said.append):
            await trio.sleep(EVERY / 2)
            away = True
            await trio.sleep(SECONDS - EVERY)
            assert not said
            await trio.sleep(2 * EVERY)
            assert len(said) == 1
            assert await running(store, reader) == 0
            away = False
            await trio.sleep(AGAIN + 1)
            assert await running(store, reader) == 1
            assert len(said) == 1


async def test_many_are_read_together(autojump_clock: object) -> None:
    """And told in their order, whatever they are."""
    with ExitStack() as stack:
        world = await make_world(stack)
        await month(world, random.Random(1), 3, 1)
        for at in range(100):
            await lease(world, 1 + at % 3, 6 if at % 5 else 0.5, at.to_bytes(16))
        await world.store.put(layout.leases_prefix(world.scope.group) + "x", [b"x"])
        await world.store.put(layout.lease(world.scope.group, 2, IDENT), [b"BSTY"])
        for seq in (1, 2, 3):
            await world.hold(seq)
        slow = FaultStore(
            world.store,
            FaultPlan(lambda each: Fault(delay=1.0) if each.name == "get" else None),
            TrioClock(),
        )
        given = (slow, world.scope, world.people.charter)
        began = trio.current_time()
        seen = await load_leases(*given, world.clock.wall + HOUR)
        assert trio.current_time() - began <= 101 // PARALLEL + 1
        assert [each.lease.seq for each in seen.running] == sorted(
            1 + at % 3 for at in range(100) if at % 5
        )
        assert len(seen.ended) == 20
        assert (len(seen.notes), len(seen.problems)) == (1, 1)
        began = trio.current_time()
        assert [each.seq for each in (await load_holds(*given)).holds] == [1, 2, 3]
        assert trio.current_time() - began == 1


async def test_a_vault_that_hangs_keeps_no_reader_waiting(autojump_clock: object) -> None:
    with ExitStack() as stack:
        world = await make_world(stack)
        await world.write(random.Random(1))
        store, reader = await reader_of(world)
        slow = FaultPlan(lambda _: Fault(delay=1e6))
        said: list[str] = []
        with trio.fail_after(60):
            async with leased(FaultStore(store, slow, TrioClock()), reader, said.append):
                pass
        assert len(said) == 1
