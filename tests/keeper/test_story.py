"""Random histories: whatever happens beside a keeper, killed or not, what is needed is there."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.keeper.world import GRACE, HOUR, RETENTION, World, make_world

EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 4)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("checkpoint"), st.none()),
        st.tuples(st.just("gap"), st.none()),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("hold"), st.integers(0, 1000)),
        st.tuples(st.just("release"), st.none()),
        st.tuples(st.just("branch"), st.integers(0, 1000)),
        st.tuples(st.just("keep"), st.none()),
        st.tuples(st.just("killed"), st.integers(0, 150)),
        st.tuples(st.just("two"), st.none()),
    ),
    min_size=8,
    max_size=40,
)


class Story:
    """Plays steps. ``needed``: held points and those of branches; they never go."""

    def __init__(self, world: World, seed: int):
        self.world = world
        self.rng = random.Random(seed)
        self.held: list[int] = []
        self.needed: set[int] = set()
        self.times: dict[int, int] = {}
        self.consistent: dict[int, bool] = {}

    async def play(self, step: str, how: int | None) -> None:
        world = self.world
        match step:
            case "write":
                for _ in range(how or 1):
                    await self.write(consistent=True)
            case "wait":
                world.wait(how or 1)
            case "checkpoint":
                await world.author.checkpoint()
            case "gap":
                await self.write(consistent=False)
            case "restart":
                await world.restart()
            case "hold" | "branch":
                await self.choose(step, how or 0)
            case "release":
                if self.held:
                    seq = self.held.pop()
                    await world.release(seq)
            case "keep":
                report = await world.keep()
                assert report.clean, report
            case "killed":
                await world.keep_killed(how or 0)
            case "two":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.keep)
                    nursery.start_soon(world.keep)
        await self.check()

    async def write(self, *, consistent: bool) -> None:
        seq = await self.world.write(self.rng, consistent=consistent)
        self.times[seq], self.consistent[seq] = self.world.clock.wall, consistent

    async def choose(self, step: str, how: int) -> None:
        offered = await self.world.offered()
        if not offered:
            return
        seq = offered[how % len(offered)]
        if step == "branch":
            await self.world.branch(seq)
            self.needed.add(seq)
        elif seq not in self.held:
            await self.world.hold(seq)
            self.held.append(seq)

    async def check(self) -> None:
        offered = set(await self.world.check(*self.held, *self.needed))
        points = [seq for seq, consistent in self.consistent.items() if consistent]
        if points:
            assert max(points) in offered
        now = self.world.clock.wall
        young = {s for s in points if now - self.times[s] <= RETENTION.all * 1e6}
        assert young <= offered, young - offered
        self.buckets(points, offered, now)

    def buckets(self, points: list[int], offered: set[int], now: int) -> None:
        """Every hour and every day that has had a point for long enough still has one."""
        for span, period in ((HOUR, RETENTION.hourly), (24 * HOUR, RETENTION.daily)):
            kept = {self.times[seq] // span for seq in offered}
            for seq in points:
                last = (self.times[seq] // span + 1) * span
                if last <= now and now - (last - span) <= period * 1e6:
                    assert self.times[seq] // span in kept, (seq, span)


@settings(
    max_examples=12 * EXPLORE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 1 << 30), STEPS)
def test_what_is_needed_is_there(seed: int, steps: list[tuple[str, int | None]]) -> None:
    async def run() -> None:
        with ExitStack() as stack:
            story = Story(await make_world(stack, "story"), seed)
            await story.play("write", 1)
            for step, how in steps:
                await story.play(step, how)
            for _ in range(3):  # and at last a keeper that nothing disturbs
                story.world.wait(GRACE / 3600 + 0.1)
                await story.play("keep", None)
            await story.world.restart()
            await story.play("write", 1)

    trio.run(run)
