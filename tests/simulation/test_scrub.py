"""The rolling scrub in stories: what changed without a write is found and corrected, and nothing
else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from stages.capture.live.scrub import Mismatch
from tests.simulation.knobs import CALM
from tests.simulation.story import Story

QUIET = replace(CALM, writes=150, lives=2, ends=("stop",), scrub=2.0, disks=2)


class Rotting(Story):
    """At the end, when all is well, blocks change without a write."""

    found: list[Mismatch]
    reasons: list[str]

    def mismatched(self, found: Mismatch) -> None:
        super().mismatched(found)
        self.found.append(found)

    async def _scrubbed(self) -> None:
        self.found, self.reasons = [], []
        await super()._scrubbed()
        assert not self.found
        group = self.intake.group
        clean = group.scrub.status().clean_us
        assert clean
        for _ in range(3):
            self.rot()
        begin = group.doubts.gap_begins

        def begins(reason: str) -> None:
            self.reasons.append(reason)
            begin(reason)

        group.doubts.gap_begins = begins  # type: ignore[method-assign]
        while not self.found:  # noqa: ASYNC110
            await trio.sleep(0.1)
        status = group.scrub.status()
        assert status.mismatches == status.doubted == len(self.found[0].blocks)
        await super()._scrubbed()
        status = group.scrub.status()
        assert status.uncorrected == 0
        assert status.mismatches == len(self.rotten)
        assert status.last_us
        assert status.clean_us > clean


@pytest.mark.parametrize("seed", range(3))
def test_what_changed_without_a_write_is_found_and_corrected(seed: int) -> None:
    story = Rotting(seed, QUIET)
    story.run()  # settles: the newest point is the disk
    told = {(one.name, block) for one in story.found for block in one.blocks}
    assert told == story.rotten
    assert all(reason.startswith("scrub: ") for reason in story.reasons)
    assert len(story.reasons) == len(story.found)
    story.forget()


@pytest.mark.parametrize("seed", range(4))
def test_no_false_alarm_while_much_is_written(seed: int) -> None:
    knobs = replace(QUIET, writes=600, pace=(0, 0, 0.01), slow=0.4, odd=0.5, scrub=0.5, disks=1)
    story = Story(seed, replace(knobs, ends=("kill", "power", "stop")))
    story.run()
    assert not story.alarms
    assert story.intake.group.scrub.status().passes >= 2
    story.forget()
