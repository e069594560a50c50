"""Draining takes what it takes."""

from __future__ import annotations

import pytest

from pipeline.health import measure
from pipeline.health.measure import Drain


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MOST", 16)
    drain = Drain()
    for at in range(1000):
        drain.sample(at, at, 5)
    assert len(drain._samples) <= 17


def test_draining() -> None:
    drain = Drain()
    assert drain.sample(0, 0, 100) is None
    assert drain.sample(30, 300, 100) is None
    assert drain.sample(60, 600, 1000) == 100
    assert drain.sample(61, 600, 0) == 0
    assert drain.sample(70, 0, 100) is None  # begun anew
    assert drain.sample(200, 0, 100) is None
    for at in range(300, 3000, 10):
        found = drain.sample(at, (at - 300) * 7, 700)
    assert found is not None
    assert 99 < found < 101


def test_an_idle_machine_says_nothing_of_the_rate() -> None:
    drain = Drain()
    for second in range(3600):
        drain.sample(float(second), 1000, 0)
    found = drain.sample(3600.0, 1000, 64 << 10)
    assert found is None  # nothing was seen of how fast it ships
    for second in range(1, 100):
        found = drain.sample(3600.0 + second, 1000 + second * 100, 64 << 10)
    assert found is not None
    assert 500 < found < 800
