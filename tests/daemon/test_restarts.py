"""When what ended by itself is started again, and what status says of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.live import live_row
from pipeline.daemon.child import FIRST, MOST, STEADY, Restarts


def test_twice_as_long_each_time_up_to_a_bound() -> None:
    restarts = Restarts()
    waits = [restarts.after(1.0) for _ in range(10)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-2:] == [MOST, MOST]


def test_from_the_beginning_once_it_stayed_up() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.after(0.0)
    assert restarts.after(STEADY) == FIRST
    assert restarts.after(0.0) == 2 * FIRST


@given(st.lists(st.floats(0, 1e6)))
def test_waits_have_bounds(lives: list[float]) -> None:
    restarts = Restarts()
    assert all(FIRST <= restarts.after(life) <= MOST for life in lives)


def _found(**more: Any) -> dict[str, Any]:
    found = {"state": "replicating", "reason": "", "trouble": "", "percent": 100.0}
    return found | {"journal_bytes": 2048, "delivering": True} | more


def test_status_of_a_machine_that_is_well() -> None:
    row = live_row(_found(), {"state": "committed", "seq": 5}, 0)
    assert row["last_run"] == "replicating; 2.0 KiB of journal"
    assert row["hint"] == ""


def test_status_in_a_gap() -> None:
    found = _found(state="scanning", percent=41.7, reason="first start", trouble="disk: slow")
    row = live_row(found, None, 0)
    assert row["last_run"] == "scanning 42% (first start); disk: slow; 2.0 KiB of journal"


def test_status_while_delivery_waits() -> None:
    note = {"state": "waiting", "message": "no space", "hint": "make room", "again_in": 60.0}
    row = live_row(_found(delivering=False), note | {"at": 1_000_000}, 11_000_000)
    assert row["last_run"] == (
        "replicating; 2.0 KiB of journal; nothing is shipped now: no space; "
        "next try in 50 s at the latest"
    )
    assert row["hint"] == "make room"
    late = live_row(_found(delivering=False), note | {"at": 0}, 1 << 40)
    assert late["last_run"].endswith("next try in 0 s at the latest")


def test_status_of_one_that_is_not_running() -> None:
    row = live_row(None, {"state": "waiting", "message": "old", "hint": "old"}, 0)
    assert row["live"] is None
    assert row["hint"] == ""
