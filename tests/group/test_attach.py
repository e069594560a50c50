"""What is compared when intake starts, and what changes while it runs: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.capture.activity.codec import DiskFound, DiskSpan, Found, SourceId
from stages.capture.group.attach import DiskNow, attach, change
from stages.errors import IllegalOperation
from stages.stream import REGION

SIZE = 5 * REGION + 700
HERE = SourceId("/root.img", 1, 7, is_block=False)
OTHER = SourceId("/other.img", 1, 8, is_block=False)
SPAN = DiskSpan(0, "root", SIZE, HERE)


def left(*, clean: bool, hot: tuple[int, ...] = (), pending: tuple[int, ...] = ()) -> Found:
    flags = [np.zeros(SPAN.regions, np.bool_) for _ in range(2)]
    flags[0][list(hot)], flags[1][list(pending)] = True, True
    return Found(True, "", clean, 3, False, 1, (DiskFound(SPAN, {"inode": 7}, *flags),))


def todo(found: Found | None, now: DiskNow, **more: Any) -> list[int]:
    settings: dict[str, Any] = {"journal_damaged": "", "journal_lost": False} | more
    plan = attach(found, [now], **settings)
    (span,) = plan.spans
    return np.flatnonzero(plan.pending[span.number]).tolist()


NOW = DiskNow("root", SIZE, unchanged=True, source=HERE)
ALL = list(range(SPAN.regions))


def test_after_an_unclean_stop_what_was_hot_of_the_same_source() -> None:
    found = left(clean=False, hot=(1, 3), pending=(4,))
    assert todo(found, NOW) == [1, 3, 4]
    assert todo(found, replace(NOW, source=replace(HERE, path="/moved.img"))) == [1, 3, 4]
    assert todo(found, replace(NOW, source=OTHER)) == ALL
    assert todo(found, replace(NOW, source=None)) == ALL
    assert todo(found, replace(NOW, size=SIZE + 1)) == [1, 3, 4, 5]


def test_after_a_clean_stop_nothing_or_all() -> None:
    found = left(clean=True, pending=(2,))
    assert todo(found, NOW) == [2]
    assert todo(found, replace(NOW, unchanged=False)) == ALL


def test_a_word_for_a_disk() -> None:
    vouched = replace(NOW, unchanged=False, vouched=True)
    assert todo(left(clean=True, pending=(2,)), vouched) == [2]
    assert todo(left(clean=True), replace(vouched, size=SIZE + REGION)) == [5, 6]
    for found, more, why in (
        (left(clean=False), {}, "not clean"),
        (None, {}, "first start"),
        (Found(valid=False, reason="torn"), {}, "cannot be relied on"),
        (left(clean=True), {"journal_damaged": "bad"}, "journal is damaged"),
        (left(clean=True), {"journal_lost": True}, "not where it was left"),
    ):
        with pytest.raises(IllegalOperation, match=why) as raised:
            todo(found, vouched, **more)
        assert raised.value.exit_code == 11
    with pytest.raises(IllegalOperation, match="not protected before"):
        todo(left(clean=True), replace(vouched, name="data"))


NAMES = st.sampled_from(["a", "b", "c", "d"])
BEFORE = st.dictionaries(NAMES, st.integers(0, 9), min_size=1)
AFTER = st.dictionaries(NAMES, st.tuples(st.integers(0, 4), st.booleans()), min_size=1)


@given(BEFORE, AFTER)
def test_a_change_is_what_differs(
    before: dict[str, int], after: dict[str, tuple[int, bool]]
) -> None:
    spans = [DiskSpan(at, name, size) for at, (name, size) in enumerate(before.items())]
    now = [
        DiskNow(name, before.get(name, 0) + more, unchanged=unchanged)
        for name, (more, unchanged) in after.items()
    ]
    plan = change(spans, now, 10)
    names = {span.number: span.name for span in (*spans, *plan.spans)}
    assert [(span.name, span.size) for span in plan.spans] == [(d.name, d.size) for d in now]
    assert len({span.number for span in plan.spans}) == len(now), "every number once"
    fresh = {name for name, (_, unchanged) in after.items() if name not in before or not unchanged}
    assert {names[number] for number in plan.fresh} == fresh
    gone = {name for name in before if name not in after or not after[name][1]}
    assert {names[number] for number in plan.gone} == gone
    grown = {name for name, (more, same) in after.items() if more and same and name in before}
    assert {names[number] for number in plan.grown} == grown
    assert bool(plan.reason) == bool(fresh | grown), "a gap for what no scan has seen"
    numbers = {span.name: span.number for span in spans}
    for span in plan.spans:
        assert span.number == numbers[span.name] if span.name in numbers else span.number >= 10
