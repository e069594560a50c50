"""Planted bugs are found: each in stories that are well without it, and that are long enough."""

from __future__ import annotations

import pytest

from stages.errors import leaves
from tests.simulation.canaries import CANARIES, Canary
from tests.simulation.guests import Wrong
from tests.simulation.story import Story

SEEDS = 500
WRITES, FAULTS = 500, 3


def find(canary: Canary) -> int:
    """The first seed whose story breaks a rule."""
    for seed in range(canary.first, canary.first + SEEDS):
        story = Story(seed, canary.knobs)
        try:
            with canary.bug():
                story.run()
        except (AssertionError, BaseExceptionGroup) as raised:
            if any(isinstance(leaf, AssertionError) for leaf in leaves(raised)):
                return seed
            raise
        finally:
            story.forget()
    raise AssertionError(f"{canary.name} was not found in {SEEDS} stories")


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name)
def test_a_planted_bug_is_found(canary: Canary) -> None:
    seed = find(canary)
    story = Story(seed, canary.knobs)
    story.run()  # it is the bug that was found
    assert story.made >= WRITES
    assert story.faults >= FAULTS
    story.forget()


def test_every_rule_that_needs_one_has_a_canary() -> None:
    rules = {canary.name.partition("_")[0] for canary in CANARIES}
    assert {
        "r1",
        "r2",
        "r3",
        "r4",
        "r5",
        "r6",
        "r7",
        "r8",
        "r9",
        "r11",
        "r12",
        "r14",
        "r20",
    } <= rules
    assert Wrong.__mro__[1] is AssertionError
