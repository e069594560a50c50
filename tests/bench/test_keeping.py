"""Retention, measured on a tiny log and a tiny month; what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio

from bench import kept, month
from bench.kept import Ended, wanted
from bench.made import Made
from bench.running import code_of
from bench.scenarios import churn, keeper
from bench.subjects import BACKSTAY
from stages.recover.opened import open_vault
from stages.store.file import FileStore
from stages.system import this_machine
from tests.bench.support import context


def test_a_plan_accounts_for_every_commit(tmp_path: Path) -> None:
    outcome = keeper.run(context(tmp_path))
    assert outcome.wrong == outcome.failed == ()
    assert [entry.subject for entry in outcome.entries] == [name for name, _ in keeper.SPANS]
    assert all(goal.measured for goal in outcome.goals)


def test_a_plan_that_loses_a_commit_is_caught() -> None:
    group = {
        "points_before_floor": 3, "points_let_go": 6, "next_floor": 10, "tail": 20, "problems": [],
    }  # fmt: skip
    assert keeper.checked_plan({"groups": [group], "problems": []}, 20) == {"kept": 3, "gone": 6}
    assert keeper.checked_plan({"groups": [group | {"points_let_go": 5}]}, 20) is None
    assert keeper.checked_plan({"groups": [group | {"problems": ["?"]}]}, 20) is None
    assert keeper.checked_plan({"groups": [group]}, 21) is None


def test_a_month_holds_what_its_points_need(tmp_path: Path) -> None:
    outcome = churn.run(context(tmp_path))
    assert outcome.wrong == ()
    for name in churn.WRITES:
        vault = outcome.entry(f"{name}: {churn.VAULT}")
        assert vault is not None
        assert (vault.median("stored") or 0) > 100_000
    assert all(goal.measured and goal.measured > 0.9 for goal in outcome.goals)


def test_a_point_that_reads_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(*_: object) -> Ended:
        return Ended(held=1, wrong=["point 7 reads otherwise"])

    monkeypatch.setattr(churn, "live_a_month", other)
    outcome = churn.run(context(tmp_path))
    assert outcome.wrong == tuple(
        f"churn: {name}: point 7 reads otherwise" for name in churn.WRITES
    )
    assert outcome.entries == ()
    assert code_of([outcome]) == 1
    assert BACKSTAY not in outcome.failed


def test_a_log_has_the_ages_that_are_asked_for(tmp_path: Path) -> None:
    made = trio.run(month.make_log, tmp_path, 1 << 20, 20, 20 * month.DAY)
    trio.run(_compare, made)


async def _compare(made: Made) -> None:
    ports = this_machine()
    store = FileStore(made.vault, ports)
    vault = await open_vault(store, kept.key_of(made))
    group = await vault.group(bytes.fromhex(made.group))
    assert group.tail == made.tail == 20
    for seconds in (20.0, 5 * month.DAY):
        month.redate(made, seconds)
        ages = [await _time(store, made, seq) for seq in (1, 20)]
        assert ages[1] - ages[0] == pytest.approx(seconds * 19 / 20, abs=0.01)
    numbers = np.zeros((1 << 20) // 4096, np.uint64)
    assert not await kept.reads(group, 1, numbers)


async def _time(store: FileStore, made: Made, seq: int) -> float:
    info = await store.info(f"groups/{made.group}/log/{seq:015d}")
    assert info is not None
    return info.modified


def test_what_the_policy_keeps() -> None:
    hour = 3_600_000_000
    times = [at * hour // 2 for at in range(40 * 24 * 2)]
    found = wanted(times, times[-1])
    assert len([seq for seq in found if times[-1] - times[seq - 1] <= 24 * hour]) == 49
    assert 49 + 24 * 6 + 22 <= len(found) <= 49 + 24 * 6 + 25
