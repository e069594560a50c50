"""When a machine may be scanned in full: as its policy says, in virtual time; and that it is so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from unittest import mock

import pytest
import trio
import trio.testing

from pipeline.config.model import Config, Policy
from pipeline.daemon.permits import HOLDS_SECONDS, Permits
from pipeline.state import StateFolder
from stages import ports
from stages.capture.group import comparing as group_module
from stages.capture.live.scanner import Scanner
from tests.config.support import HEAD, TAIL, read
from tests.ports.watched import machine
from tests.simulation.knobs import CALM
from tests.simulation.story import Story
from tests.whole.memfiles import MemFiles

HOUR = 3600.0
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()


@dataclass
class HandClock:
    now: float = 1000.0
    wall: float = NOON

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.wall * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.lowlevel.checkpoint()

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@dataclass
class Place:
    clock: HandClock
    state: StateFolder
    permits: Permits
    config: Config

    def consistent(self, ago: float) -> None:
        stamp = self.clock.wall_us() - int(ago * 1e6)
        self.state.note("machines/web1/last-point", {"stamp": stamp})


def place(**policy: str) -> Place:
    found, clock = machine(MemFiles()), HandClock()
    simulated = ports.Machine(clock, found.offload, found.entropy, found.files)
    state = StateFolder.open(simulated, "/state", lock=False)
    settings = Policy(timezone="UTC", **policy)  # type: ignore[arg-type]
    config = read(HEAD + TAIL).model_copy(update={"policies": {"default": settings}})
    return Place(clock, state, Permits(simulated, state, "web1", lambda: config), config)


async def test_full_scans_wait_for_the_window() -> None:
    here = place(resync_window="18:30-06:00")
    here.consistent(3 * HOUR)
    said = await here.permits(False)
    assert said == "waits for the resync window (2026-11-26 13:00 UTC at the latest)"
    assert await here.permits(True) == ""  # a disk that is new
    here.consistent(10)
    here.clock.passes(6.5 * HOUR)
    assert await here.permits(False) == ""


async def test_four_hours_override_it_whatever_the_clock_does() -> None:
    here = place(resync_window="18:30-06:00")
    here.consistent(10)
    assert await here.permits(False)
    here.clock.wall -= 5 * HOUR  # it is 07:00 now
    here.clock.passes(4 * HOUR - 10)
    assert await here.permits(False)
    here.clock.passes(11)
    assert await here.permits(False) == ""


async def test_initial_replication_waits_for_its_time() -> None:
    here = place(initial_replication="2026-11-26 22:00")
    said = await here.permits(True)
    assert said == "initial replication waits for its time (2026-11-26 22:00 UTC at the latest)"
    here.clock.passes(10 * HOUR)
    assert await here.permits(True) == ""
    again = place(initial_replication="2026-11-26 22:00")
    again.consistent(10)  # it is replicated already
    assert await again.permits(False) == ""


async def test_a_person_may_order_it_and_answers_hold_for_a_moment() -> None:
    here = place(resync_window="18:30-06:00")
    here.consistent(10)
    assert await here.permits(False)
    here.permits.force()
    assert await here.permits(False) == ""
    here.clock.passes(HOLDS_SECONDS + 1)
    assert await here.permits(False) == ""  # until it would go anyway
    here.clock.passes(7 * HOUR)
    assert await here.permits(False) == ""
    here.clock.passes(16 * HOUR)
    here.consistent(10)
    assert await here.permits(False)  # the next one waits again
    here.clock.passes(1)
    here.consistent(5 * HOUR)
    assert await here.permits(False)  # an answer of a second ago
    here.clock.passes(HOLDS_SECONDS)
    assert await here.permits(False) == ""


async def test_a_machine_that_is_gone() -> None:
    here = place(resync_window="18:30-06:00")
    here.permits.name = "web2"
    assert await here.permits(False) == ""


@pytest.mark.parametrize("seed", range(3))
def test_a_group_keeps_to_it_and_goes_on_where_it_was(seed: int) -> None:
    """Permission comes and goes in the middle of scans: no region is read without."""
    knobs = replace(CALM, writes=150, lives=2, ends=("kill", "stop"), disks=2)
    story = Story(seed, knobs)
    told: list[str] = []
    begin = Scanner.scan

    async def permit(fresh: bool) -> str:
        await trio.lowlevel.checkpoint()
        said = "" if int(trio.current_time() // 25) % 2 else "not now"
        told.append(said)
        return said

    async def scan(self: Scanner, plan: object) -> None:
        told.append("scans")
        await begin(self, plan)  # type: ignore[arg-type]

    opened = story._open

    async def opening(*arguments: object) -> object:
        intake = await opened(*arguments)  # type: ignore[arg-type]
        intake.group.comparing.permit = permit
        return intake

    story._open = opening  # type: ignore[method-assign,assignment]
    with (
        mock.patch.object(group_module, "FULL_REGIONS", 0),
        mock.patch.object(Scanner, "scan", scan),
    ):
        story.run()
    assert "scans" in told
    assert "" in told
    assert told[0] == "not now"
    for before, after in pairwise(told):
        if after == "scans":
            assert not before
    story.forget()
