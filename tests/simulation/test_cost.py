"""What a machine costs its vault: no list ever, and a heartbeat where nothing is written (R19)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import trio

from tests.simulation.daemon import Trace
from tests.simulation.knobs import CALM
from tests.simulation.story import Story

HOURS = 3
HEARTBEATS = HOURS * 6
STEADY = replace(
    CALM, writes=160, lives=1, ends=("stop",), pace=(0.5, 2, 3), seal_after=0.5, patience=(1000,)
)


class Tally(Trace):
    """Counts what is noted, by its first two words."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()

    def note(self, *what: object) -> None:
        super().note(*what)
        if len(what) > 1:
            self.counts[str(what[0]), str(what[1])] += 1


class Idle(Story):
    """At the end, when all is well and shipped, nothing happens for hours."""

    idle: Counter[tuple[str, str]]
    busy: Counter[tuple[str, str]]

    async def _scrubbed(self) -> None:
        assert isinstance(self.trace, Tally)
        self.busy = Counter(self.trace.counts)
        await trio.sleep(30)  # what was written last cools, and is trimmed
        before = Counter(self.trace.counts)
        await trio.sleep(HOURS * 3600)
        self.idle = self.trace.counts - before


def test_no_list_and_nothing_but_heartbeats_when_idle() -> None:
    story = Idle(3, STEADY)
    story.trace = Tally()
    story.run()
    busy = {name: count for (kind, name), count in story.busy.items() if kind == "store"}
    assert busy["put"] > 40, "a long life with many commits"
    assert "page" not in busy
    assert "delete" not in busy
    store = {name: count for (kind, name), count in story.idle.items() if kind == "store"}
    # Each is a put, and a look whether a later term has begun.
    assert store == {"put": HEARTBEATS, "info": HEARTBEATS}
    changed = Counter(path for kind, path in story.idle.elements() if kind != "store")
    intake = {path: count for path, count in changed.items() if "/intake/" in path}
    assert not intake, "a machine that nobody writes to changes no file of intake"
    assert sum(changed.values()) <= 14 * HEARTBEATS  # of delivery's own record of its commits
    story.forget()
