"""Many short stories, each from one seed."""

from __future__ import annotations

import pytest

from tests.simulation.story import Story


@pytest.mark.parametrize("seed", range(40))
def test_story(seed: int) -> None:
    Story(seed).run()
