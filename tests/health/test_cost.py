"""Forecasts: what was observed, carried on to a month; before that, what is configured."""

from __future__ import annotations

from pipeline.health.cost import (
    ENOUGH_SECONDS,
    HEARTBEAT_SECONDS,
    MONTH_SECONDS,
    SAMPLE_SECONDS,
    WINDOW_SECONDS,
    History,
    idle_month,
    month_by_configuration,
)


def _counts(seconds: float) -> dict[str, int]:
    """A put of 100 bytes each second, a get every other one."""
    return {"put": int(seconds), "get": int(seconds) // 2, "sent": 100 * int(seconds)}


def test_by_configuration() -> None:
    month = month_by_configuration([1.0, 1.0, 15.0])
    assert month.observed_seconds == 0
    assert month.put == month.info == 2 * 2_592_000 + 172_800
    assert (month.get, month.list, month.delete) == (0, 0, 0)
    assert month.sent is None
    assert month.requests == month.put + month.info
    assert idle_month(10) == 10 * MONTH_SECONDS / HEARTBEAT_SECONDS == 43_200


def test_what_was_observed_is_carried_on() -> None:
    history = History()
    assert history.month(0.0, {}) is None
    history.note(100.0, {})
    assert history.month(100.0 + ENOUGH_SECONDS - 1, _counts(599)) is None
    month = history.month(100.0 + ENOUGH_SECONDS, _counts(600))
    assert month is not None
    assert month.observed_seconds == ENOUGH_SECONDS
    assert month.put == MONTH_SECONDS
    assert month.get == MONTH_SECONDS / 2
    assert month.sent == 100 * MONTH_SECONDS
    assert (month.list, month.delete, month.info, month.fetched) == (0, 0, 0, 0)


def test_only_the_last_day_counts_and_memory_is_bounded() -> None:
    history = History()
    for at in range(0, int(5 * WINDOW_SECONDS), 60):
        busy = min(at, int(3 * WINDOW_SECONDS))  # for three days, then nothing
        history.note(float(at), _counts(busy))
    assert len(history._samples) <= WINDOW_SECONDS / SAMPLE_SECONDS + 2
    month = history.month(5 * WINDOW_SECONDS, _counts(3 * WINDOW_SECONDS))
    assert month is not None
    assert WINDOW_SECONDS <= month.observed_seconds <= WINDOW_SECONDS + 2 * SAMPLE_SECONDS
    assert month.put == 0
