"""A vault that is away for hours, in virtual time: when it is tried again, and what survives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from pipeline.config.model import Config
from pipeline.daemon.delivering import Delivering
from pipeline.daemon.link_client import IntakeGone
from pipeline.daemon.orders import Order, Orders
from pipeline.daemon.probes import Probes
from pipeline.retry import MAX_JITTER, PROBE_SECONDS, STEPS, Ladder, Steps
from pipeline.state import StateFolder
from stages import ports
from stages.errors import (
    BackstayError,
    BrokenChain,
    Fenced,
    NoSpace,
    NotAdmitted,
    StoreDenied,
    StoreUnreachable,
)
from tests.ports.watched import machine
from tests.whole.memfiles import MemFiles

HOUR = 3600.0


class Answering(Probes):
    """``answer`` instead of a vault."""

    def __init__(self, found: ports.Machine, answer: Callable[[], bool]):
        super().__init__(found, PROBE_SECONDS)
        self.answer = answer

    async def probe(self, url: str) -> bool:
        return self.answer()


@dataclass
class VirtualClock:
    """trio's; ``step`` seconds are added to the wall clock."""

    step: float = 0.0

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int((trio.current_time() + self.step) * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@dataclass
class World:
    """A machine whose vault is away until ``back``; ``error`` is what delivery meets."""

    back: float = float("inf")
    error: BackstayError = field(default_factory=lambda: StoreUnreachable("away"))
    commits: bool = False  # once it is back
    clock: VirtualClock = field(default_factory=VirtualClock)
    tries: list[float] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    answers: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        found = machine(MemFiles())
        self.ports = ports.Machine(self.clock, found.offload, found.entropy, found.files)
        self.state = StateFolder.open(self.ports, "/state")

    def kept(self) -> Ladder:
        return Ladder.of(self.state.noted("machines/m/ladder") or {})

    def one(self) -> Delivering:
        disk = {"path": "/d", "capture": "scan"}
        config = Config.model_validate(
            {
                "daemon": {"state": "/state"},
                "vaults": {"v": {"url": "file:/v", "trust": "/t"}},
                "machines": {"m": {"vault": "v", "disks": {"d": disk}}},
            }
        )

        def answer() -> bool:
            self.probes.append(trio.current_time())
            return self.answers() if self.answers else trio.current_time() >= self.back

        probes = Answering(self.ports, answer)
        orders = Orders(trio.Event())
        return Delivering(
            self.ports, config, "m", self.state, orders, probes, Steps(), self.said.append
        )

    async def life(self, one: Delivering) -> None:
        """In place of what ships."""
        self.tries.append(trio.current_time())
        if trio.current_time() < self.back:
            raise self.error
        if self.commits:
            await one._keep(Ladder())
        if one.orders.draining.is_set():
            one.drained = True
            return
        await trio.sleep_forever()

    async def run(self, one: Delivering, seconds: float, *, at_once: bool = False) -> None:
        async def life(delivering: Delivering) -> None:
            await self.life(delivering)

        with mock.patch.object(Delivering, "_life", life), trio.move_on_after(seconds):
            await one.run(at_once=at_once)

    async def during(
        self, one: Delivering, seconds: float, what: Callable[[], Awaitable[None]]
    ) -> None:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await self.run(one, seconds)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await what()


def almost(waits: list[float], steps: list[float]) -> None:
    assert len(waits) >= len(steps)
    for wait, step in zip(waits, steps, strict=False):
        assert step <= wait <= step + min(MAX_JITTER, step / 10)


async def test_the_steps_and_a_vault_that_answers_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World(back=5.5 * HOUR)
    await world.run(world.one(), 10 * HOUR)
    away = [late - early for early, late in pairwise(world.tries[:-1])]
    almost(away, [*STEPS, *[1800.0] * (len(away) - len(STEPS))])
    assert len(away) > len(STEPS) + 5
    assert world.back <= world.tries[-1] <= world.back + 3 * PROBE_SECONDS


async def test_jitter_only_adds_and_is_not_always_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    firsts = set()
    for _ in range(20):
        world = World()
        await world.run(world.one(), 100)
        assert 60 <= world.tries[1] - world.tries[0] <= 65
        firsts.add(world.tries[1] - world.tries[0])
    assert len(firsts) > 10


async def test_one_good_probe_is_not_enough(autojump_clock: trio.testing.MockClock) -> None:
    answers = iter([True, False, True, False])
    world = World(answers=lambda: next(answers, False))
    await world.run(world.one(), 100)
    assert len(world.probes) == 6
    almost([world.tries[1] - world.tries[0]], [60.0])


async def test_only_a_commit_begins_it_anew(autojump_clock: trio.testing.MockClock) -> None:
    world = World(back=200)  # it comes back, nothing is committed, and it goes away again
    await world.run(world.one(), 400)
    assert world.kept().attempt == 3
    world.back = float("inf")
    await world.run(world.one(), 600)
    assert world.kept().attempt >= 4
    world.back, world.commits = 0.0, True
    await world.run(world.one(), 3000)
    assert world.kept() == Ladder()


@pytest.mark.parametrize("error", [NotAdmitted, StoreDenied, Fenced, BrokenChain])
async def test_what_does_not_heal_is_tried_when_told(
    autojump_clock: trio.testing.MockClock, error: type[BackstayError]
) -> None:
    world = World(error=error("no"))
    one = world.one()

    async def person() -> None:
        await trio.sleep(5 * HOUR)
        assert len(world.tries) == 1
        assert world.said[-1]["state"] == "failed"
        assert world.said[-1]["hint"]
        assert world.said[-1]["again_in"] is None
        assert not world.probes
        one.orders.take(Order.RETRY)
        await trio.sleep(5 * HOUR)
        assert len(world.tries) == 2
        world.back = 0.0
        one.orders.take(Order.RETRY)
        await trio.sleep(1)
        assert len(world.tries) == 3

    await world.during(one, 20 * HOUR, person)
    world.back = float("inf")
    await world.run(world.one(), HOUR)  # a new process has read its credentials again: once
    assert len(world.tries) == 4
    await world.run(world.one(), HOUR, at_once=True)
    assert len(world.tries) == 5


async def test_retry_by_hand_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    world = World(error=NoSpace("full"))
    one = world.one()

    async def person() -> None:
        for number in range(2, 6):
            await trio.sleep(10)
            one.orders.take(Order.RETRY)
            await trio.sleep(1)
            assert len(world.tries) == number
        one.orders.take(Order.RESUME)  # of one that is not paused: it goes on waiting
        before = one._due
        await trio.sleep(100)
        assert one._due == before
        assert len(world.tries) == 5

    await world.during(one, HOUR, person)
    assert world.kept().attempt >= 5


async def test_paused_and_resumed(autojump_clock: trio.testing.MockClock) -> None:
    world = World(back=0.0)
    one = world.one()

    async def person() -> None:
        await trio.sleep(1)
        one.orders.take(Order.PAUSE)
        await trio.sleep(1)
        assert world.said[-1]["state"] == "paused"
        one.orders.take(Order.RETRY)
        await trio.sleep(100)
        assert len(world.tries) == 1
        one.orders.take(Order.RESUME)
        await trio.sleep(1)
        assert len(world.tries) == 2

    await world.during(one, HOUR, person)


async def test_paused_while_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    one = world.one()

    async def person() -> None:
        await trio.sleep(1)
        one.orders.take(Order.PAUSE)
        await trio.sleep(HOUR)
        assert len(world.tries) == 1
        one.orders.draining.set()

    await world.during(one, 2 * HOUR, person)
    assert one.drained  # nobody wants it shipped


async def test_a_drain_tries_once_more(autojump_clock: trio.testing.MockClock) -> None:
    world = World(back=10.0)
    one = world.one()

    async def person() -> None:
        await trio.sleep(12)
        one.orders.draining.set()
        await trio.sleep(1)

    await world.during(one, HOUR, person)
    assert len(world.tries) == 2
    assert one.drained


async def test_an_intake_that_is_gone_is_no_step(autojump_clock: trio.testing.MockClock) -> None:
    world = World(error=IntakeGone("not there"))
    await world.run(world.one(), 10)
    assert len(world.tries) > 10
    assert world.kept() == Ladder()


async def test_a_restart_goes_on_waiting(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    await world.run(world.one(), 400)  # attempts at 0, 60, 180; the next at 420
    assert world.kept().attempt == 3
    assert world.kept().error is not None
    await world.run(world.one(), 5)
    assert len(world.tries) == 3
    assert world.said[-1]["state"] == "waiting"
    assert world.said[-1]["attempt"] == 3
    await world.run(world.one(), 200)
    almost([world.tries[3] - world.tries[2]], [240.0])
    await world.run(world.one(), 1, at_once=True)
    assert len(world.tries) == 5


@pytest.mark.parametrize("step", [-86400.0, -100.0, 100.0, 86400.0])
async def test_a_wall_clock_that_steps_between_two_lives(
    autojump_clock: trio.testing.MockClock, step: float
) -> None:
    """It neither waits for ever nor comes as a storm."""
    world = World()
    await world.run(world.one(), 30)
    world.clock.step = step
    await world.run(world.one(), 70)
    assert len(world.tries) in (2, 3)
    for _ in range(10):  # killed again and again
        await world.run(world.one(), 1)
    assert len(world.tries) in (2, 3)


async def test_a_wall_clock_that_steps_while_it_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    one = world.one()

    async def person() -> None:
        await trio.sleep(10)
        for step in (-86400.0, 86400.0):
            world.clock.step = step
            await trio.sleep(10)
            assert len(world.tries) == 1
        await trio.sleep(40)
        assert len(world.tries) == 2

    await world.during(one, HOUR, person)


async def test_one_look_at_a_vault_for_all_who_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    looks: list[float] = []

    def answer() -> bool:
        looks.append(trio.current_time())
        return False

    probes = Answering(world.ports, answer)
    with trio.move_on_after(60.5):
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(probes.until_well, "file:/v")
    assert len(looks) == 4
