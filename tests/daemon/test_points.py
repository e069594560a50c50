"""Recovery points that policies ask for: when they are made, in virtual time, and for real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
import trio.testing

from pipeline.config.model import Config, Policy
from pipeline.config.policy import AppConsistent
from pipeline.config.policy import Points as PointsSection
from pipeline.daemon.points import LABELS, SHIP_SECONDS, Kind, Points
from pipeline.state import StateFolder
from stages import ports
from stages.errors import SourceBusy
from stages.stream import MarkedPoint
from tests.cli.support import KEYS
from tests.config.support import HEAD, TAIL, read
from tests.daemon.running import prepare, replicating, running
from tests.ports.watched import machine
from tests.waiting import until
from tests.whole.memfiles import MemFiles

DAY = 86400.0


class SteppedClock:
    """trio's, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.stepped = 0.0

    def monotonic(self) -> float:
        return trio.current_time()

    def wall_us(self) -> int:
        return int((2 * DAY * 365 + trio.current_time() + self.stepped) * 1e6)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@dataclass
class Place:
    """One machine whose points are made by ``make``, or go wrong there."""

    config: Config
    clock: SteppedClock = field(default_factory=SteppedClock)
    files: MemFiles = field(default_factory=MemFiles)
    is_ready: bool = True
    made: list[tuple[float, Kind]] = field(default_factory=list)
    problem: Callable[[], MarkedPoint] | None = None
    hangs: bool = False

    def ready(self) -> bool:
        return self.is_ready

    async def make(self, name: str, label: str, kind: Kind) -> MarkedPoint:
        assert (name, label) == ("web1", LABELS[kind])
        self.made.append((trio.current_time(), kind))
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        return MarkedPoint(1, 7, 1, kind) if self.problem is None else self.problem()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        found = machine(self.files)
        simulated = ports.Machine(self.clock, found.offload, found.entropy, found.files)
        state = StateFolder.open(simulated, "/state", lock=False)
        points = Points(simulated, state, lambda: self.config, lambda: {"web1": self}, self.make)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(points.run)
            yield
            nursery.cancel_scope.cancel()

    def times(self, kind: Kind) -> list[float]:
        return [at for at, of in self.made if of == kind]


def place(points: float | None = 300, app: float | None = None) -> Place:
    found = read(HEAD + TAIL)
    policy = Policy.model_construct(
        points=None if points is None else PointsSection.model_construct(every=points),
        app_consistent=None
        if app is None
        else AppConsistent.model_construct(every=app, pre="/a", post="/b", timeout=60),
    )
    return Place(found.model_copy(update={"policies": {"default": policy}}))


def _apart(times: list[float], low: float, high: float) -> bool:
    gaps = [after - before for before, after in pairwise(times)]
    return bool(gaps) and all(low <= gap <= high for gap in gaps)


async def test_each_kind_in_its_own_rhythm(autojump_clock: trio.testing.MockClock) -> None:
    here = place(300, 3600)
    async with here.running():
        await trio.sleep(DAY / 2)
    assert len(here.times("point")) in (144, 145)
    assert len(here.times("app")) in (12, 13)
    assert _apart(here.times("point"), 299, 302)


async def test_the_wall_clock_is_set(autojump_clock: trio.testing.MockClock) -> None:
    here = place()
    async with here.running():
        for step in (-DAY, 3 * DAY, -2 * DAY, 3600):
            here.clock.stepped += step
            await trio.sleep(2000)
    assert _apart(here.times("point"), 299, 302)
    # Whatever the last note says, a start makes no storm, and is not silent for longer.
    for step in (-10 * DAY, 10 * DAY):
        here.clock.stepped += step
        before, began = len(here.made), trio.current_time()
        async with here.running():
            await trio.sleep(700)
        fresh = here.times("point")[before:]
        assert 2 <= len(fresh) <= 3
        assert fresh[0] - began <= 302


async def test_restarts_do_not_make_more(autojump_clock: trio.testing.MockClock) -> None:
    here = place()
    for _ in range(40):
        async with here.running():
            await trio.sleep(97)  # so that none is cut off between the point and its note
    assert len(here.made) in (13, 14)


async def test_in_a_gap_none_is_made_and_then_one(autojump_clock: trio.testing.MockClock) -> None:
    here = place()
    async with here.running():
        await trio.sleep(10)
        here.is_ready = False
        await trio.sleep(5000)
        assert len(here.made) == 1
        here.is_ready = True
        await trio.sleep(3)
        assert len(here.made) == 2


async def test_what_fails_is_tried_again_each_minute_and_told_once(
    autojump_clock: trio.testing.MockClock, capfd: object
) -> None:
    here = place(None, 3600)

    def fails() -> MarkedPoint:
        raise SourceBusy("the snapshot hook failed", hint="look")

    here.problem = fails
    async with here.running():
        await trio.sleep(600)
        assert len(here.made) in (10, 11)
        here.problem = lambda: MarkedPoint(1, 0, 0, "", "a gap opened")
        await trio.sleep(130)
        here.problem = None
        await trio.sleep(130)
    told = capfd.readouterr().err.splitlines()  # type: ignore[attr-defined]
    assert told == [
        "web1: no application-consistent point: the snapshot hook failed; look",
        "web1: no application-consistent point: a gap opened",
    ]


async def test_a_vault_that_is_away_makes_no_storm(autojump_clock: trio.testing.MockClock) -> None:
    here = place()
    here.hangs = True
    async with here.running():
        await trio.sleep(3100)
    assert _apart(here.times("point"), 299, 300 + SHIP_SECONDS)


async def test_another_policy_is_followed_at_once(autojump_clock: trio.testing.MockClock) -> None:
    here = place(DAY)
    async with here.running():
        await trio.sleep(1000)
        here.config = place(100).config
        await trio.sleep(1050)
        assert len(here.made) in (10, 11, 12)
        here.config = place(None).config
        count = len(here.made)
        await trio.sleep(1000)
        assert len(here.made) == count


def test_a_daemon_makes_them() -> None:
    """Freeze, mark, thaw, as a policy says; and plain ones beside them."""
    with TemporaryDirectory(prefix="bs-") as folder:
        root = prepare(Path(folder))
        for name in ("freeze", "thaw"):
            (root / name).write_text(f"#!/bin/sh\necho {name} $BACKSTAY_MACHINE >> said\n")
            (root / name).chmod(0o755)
        text = (root / "c.yaml").read_text()
        policy = (
            "policies:\n  default:\n    points: {every: 1h}\n"
            "    app_consistent: {every: 2h, pre: ./freeze, post: ./thaw, timeout: 20s}\n"
        )
        (root / "c.yaml").write_text(text.replace("pipelines:", policy + "pipelines:"))
        with running(root) as daemon:
            replicating(root)
            said = root / "said"
            until("two freezes", lambda: said.exists() and said.read_text().count("thaw") >= 2)
            assert set(said.read_text().splitlines()) == {"freeze web1", "thaw web1"}
            note = root / "state/intake/web1/points"
            until("their points", lambda: note.exists() and "app" in note.read_text())
            found = root.json("points", "web1", *KEYS)["points"]
            assert [point["class"] for point in found].count("app") >= 2
            daemon.end()
