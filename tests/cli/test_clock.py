"""Commands on a machine whose clock is behind the times of the points."""

from __future__ import annotations

import json
import time
from unittest.mock import patch

import pytest

from pipeline.cli.run import _age
from tests.cli.support import KEYS, Shipped

HOUR = 3_600_000_000  # µs


@pytest.mark.parametrize("command", [("points", "web1"), ("rescue",)])
def test_a_clock_that_is_behind_is_told(shipped: Shipped, command: tuple[str, ...]) -> None:
    assert "ahead" not in shipped.backstay(*command, *KEYS).out
    past = time.time_ns() // 1000 - HOUR
    with patch("stages.system.clock.SystemClock.wall_us", lambda _: past):
        said = shipped.backstay(*command, *KEYS)
        fields = shipped.backstay(*command, *KEYS, "--json").fields
    assert said.code == 0
    assert "min ahead of this machine's clock" in said.out
    assert "min ahead of this machine's clock" in json.dumps(fields)


def test_an_age_that_lies_ahead_is_not_nought() -> None:
    assert [_age(stamp, 0) for stamp in (-61_000_000, -5, 30_000_000, HOUR, 3 * HOUR)] == [
        "1 min ago", "0 s ago", "0 s ago", "1 h ahead", "3 h ahead",
    ]  # fmt: skip
