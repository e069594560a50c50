"""What a failover, its branch or a failover test stands on is never let go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from stages.vault.failover_log import append_failover, load_failovers
from stages.vault.failovers import NO_RECORD, Event, FailoverPoint, FailoverRecord
from tests.keeper.world import World, make_world

FIRST, OTHER = 2, 4  # points


@asynccontextmanager
async def machine() -> AsyncIterator[World]:
    """Points that retention would let go, all but the newest; none of them is held."""
    with ExitStack() as stack:
        world = await make_world(stack)
        rng = random.Random(40)
        for at in range(8):
            await world.write(rng)
            world.wait(1)
            if at % 3 == 0:
                await world.author.checkpoint()
        world.wait(24 * 30)
        await world.write(rng)
        await world.author.checkpoint()
        yield world


async def record(world: World, event: Event, point: int | None) -> None:
    """What an operation at the other place writes; no branch's group is there yet."""
    store, scope, operator = world.store, world.scope, world.people.operator.signer
    log = await load_failovers(store, scope, world.people.charter)
    shown = None
    if point is not None:
        commit = await (await world.open()).log.signed(point)
        shown = FailoverPoint(point, commit.link, commit.header.stamp)
    branch = b"B" * 16 if event in (Event.OPENED, Event.CHANGED) else None
    made = FailoverRecord(
        0, NO_RECORD, event, world.clock.wall, "replica7", "ann", shown, branch, False, ""
    )
    assert await append_failover(store, scope, operator, log, made) is not None


async def kept(world: World) -> dict[int, str]:
    """What a keeper that has run to its end has kept, and why; all of it reads."""
    for _ in range(3):
        report = await world.keep()
        assert report.clean, report
        world.wait(2)
    wanted = report.groups[0].wanted
    assert set(wanted) <= set(await world.check(*wanted))
    return wanted


OPENED, CHANGED = (Event.OPENED, FIRST), (Event.CHANGED, OTHER)
COMMITTED, REPROTECTED = (Event.COMMITTED, None), (Event.REPROTECTED, None)


@pytest.mark.parametrize(
    ("events", "point"),
    [
        ([OPENED], FIRST),
        ([OPENED, CHANGED], OTHER),
        ([OPENED, COMMITTED], FIRST),
        ([OPENED, COMMITTED, REPROTECTED], FIRST),
        ([OPENED, COMMITTED, (Event.CLOSED, None)], FIRST),
        ([(Event.TEST_OPENED, FIRST)], FIRST),
        ([OPENED, (Event.CANCELLED, None)], None),
        ([(Event.TEST_OPENED, FIRST), (Event.TEST_CLEANED, None)], None),
    ],
    ids=lambda value: (
        "-".join(event.value for event, _ in value) if isinstance(value, list) else str(value)
    ),
)
async def test_the_point_of_a_failover(
    events: list[tuple[Event, int | None]], point: int | None
) -> None:
    async with machine() as world:
        for event, shown in events:
            await record(world, event, shown)
        assert list(await kept(world)) == ([] if point is None else [point])
        left = await world.offered()
        assert (point or 9) in left
        assert ({FIRST, OTHER} - {point}).isdisjoint(left)


@pytest.mark.parametrize("event", [Event.OPENED, Event.TEST_OPENED])
async def test_a_failover_that_is_opened_within_the_grace(event: Event) -> None:
    """The floor that lets its point go is there already: the next one takes it back."""
    async with machine() as world:
        group = await world.open()  # as whoever fails over has opened it
        await world.keep()
        assert FIRST not in await world.offered()
        commit = await group.log.signed(FIRST)
        log = await load_failovers(world.store, world.scope, world.people.charter)
        shown = FailoverPoint(FIRST, commit.link, commit.header.stamp)
        made = FailoverRecord(
            0, NO_RECORD, event, world.clock.wall, "replica7", "ann", shown,
            b"B" * 16 if event is Event.OPENED else None,
        )  # fmt: skip
        operator = world.people.operator.signer
        assert await append_failover(world.store, world.scope, operator, log, made) is not None
        world.wait(2)
        assert list(await kept(world)) == [FIRST]
        assert FIRST in await world.check(FIRST)


async def test_damaged_failover_records_stop_everything_in_their_group() -> None:
    """Which point is shown is not sure then."""
    async with machine() as world:
        await record(world, *OPENED)
        (name,) = [key for key in world.store._objects if "/failovers/" in key]
        data = bytearray(await world.store.get(name))
        data[40] ^= 1
        await world.store.delete(name)
        await world.store.put(name, [data])
        report = await world.keep()
        assert "nothing is let go here" in report.groups[0].problems[0]
        assert len(await world.check()) == 9
