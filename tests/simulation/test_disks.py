"""Disks that come, grow, change and go, from many seeds, and with the end at every step of it."""

from __future__ import annotations

import os

import pytest

from tests.simulation.disks import Disks

EXPLORE = int(os.environ.get("BACKSTAY_EXPLORE", "1"))


@pytest.mark.parametrize("seed", range(16 * EXPLORE))
def test_any_order(seed: int) -> None:
    Disks(seed).run()


@pytest.mark.long
@pytest.mark.parametrize("what", ["add", "grow", "replace", "remove"])
def test_the_end_at_steps_of_a_change(what: str) -> None:
    """The process ends at file operations of the change in turn, every second time with the power;
    then the configuration is what it was to become. ``BACKSTAY_EXPLORE=14``: at every one."""
    (began, ended) = _told(what, None, power=False).spans[0]
    assert ended > began
    steps = max(1, (ended + 2 - began) // (4 * EXPLORE))
    for at in range(began + 1, ended + 3, steps):
        story = _told(what, at, power=bool(at // steps % 2))
        story.end()


class OneChange(Disks):
    """A life without changes, and one with a change that is chosen."""

    chosen = ""

    def _operator(self, what: str = "") -> None:
        if self.chosen:
            super()._operator(self.chosen)


def _told(what: str, fault_at: int | None, *, power: bool) -> OneChange:
    story = OneChange(5, changes=1)
    story.live(story._quiet)  # all is in the vault
    story.spans.clear()
    story.chosen, story.fault_at = what, fault_at
    story.live(story._busy)
    story.chosen = ""
    if power:
        story.world.files.power_cut(fault_at or 0)
    return story
