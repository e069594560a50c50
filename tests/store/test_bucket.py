"""Bucket and line, against what they promise: the average holds, nobody starves, weights equal."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.store.bucket import BURST_LEAST, Bucket, Line, burst_of

MB = 10**6
RATES = st.sampled_from([16 << 10, 300_000, 5 * MB, 20 * MB])
SIZES = st.one_of(st.integers(0, 5000), st.integers(0, 4 << 20), st.just(64 << 20))
# What comes, after how many seconds, and whether the rate changes before it.
STEPS = st.lists(st.tuples(SIZES, st.floats(0, 30), st.none() | RATES), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(RATES, STEPS)
def test_over_any_window_no_more_than_the_rate_and_a_burst(
    rate: int, steps: list[tuple[int, float, int | None]]
) -> None:
    bucket, now, rates = Bucket(), 1000.0, [rate]
    bucket.settle(now, rate)
    admitted: list[tuple[float, int]] = []
    for size, pause, changed in steps:
        now += pause
        bucket.settle(now, rate)
        if changed is not None:
            rate = changed
            rates.append(rate)
            bucket.settle(now, rate)
        wait = bucket.wait(size)
        now += wait
        bucket.settle(now, rate)
        assert bucket.wait(size) < 1e-3, "it waits for what it was told"
        bucket.take(size)
        admitted.append((now, size))
    highest = max(rates)
    # Where the rate falls, so does what has to be there before a large object goes.
    ahead = max(0.0, max(size for size, _, _ in steps) - burst_of(min(rates)))
    totals = [0, *accumulate(size for _, size in admitted)]
    for first, (began, _) in enumerate(admitted):
        for last in range(first, len(admitted)):
            window = admitted[last][0] - began
            sent = totals[last + 1] - totals[first]
            assert sent <= highest * window + burst_of(highest) + ahead + 1 + sent * 1e-9


@given(st.lists(SIZES, min_size=2, max_size=20), RATES)
def test_nothing_waits_longer_than_what_it_and_those_before_it_take(
    sizes: list[int], rate: int
) -> None:
    bucket, now = Bucket(), 0.0
    bucket.settle(now, rate)
    for size in sizes:
        now += bucket.wait(size)
        bucket.settle(now, rate)
        bucket.take(size)
    assert now <= sum(sizes[:-1]) / rate + burst_of(rate) / rate + 1e-3
    assert bucket.debt <= max(0, max(sizes) - burst_of(rate)) + 1


def test_what_is_given_back_can_be_had_again_but_never_more_than_a_burst() -> None:
    bucket = Bucket()
    bucket.settle(0.0, 1 << 20)
    bucket.take(BURST_LEAST)
    assert bucket.wait(1000) > 0
    bucket.take(-BURST_LEAST)
    assert bucket.wait(BURST_LEAST) == 0
    bucket.take(-(1 << 30))
    bucket.take(BURST_LEAST)
    assert bucket.wait(1) == pytest.approx(1 / (1 << 20))


def test_without_a_limit_nothing_is_owed_when_one_begins() -> None:
    bucket = Bucket()
    bucket.settle(0.0, None)
    bucket.take(1 << 40)
    assert bucket.wait(1 << 40) == 0
    bucket.settle(1.0, 1 << 20)
    assert bucket.wait(BURST_LEAST) == 0
    bucket.take(64 << 20)
    assert bucket.debt
    bucket.settle(2.0, None)
    assert bucket.wait(1 << 40) == 0


FLOWS = ("a", "b", "c", "d")


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=30), min_size=2, max_size=4))
def test_those_who_wait_all_the_time_get_the_same(queues: list[list[int]]) -> None:
    line, left = Line(), {FLOWS[at]: list(sizes) for at, sizes in enumerate(queues)}
    for flow, sizes in left.items():
        for size in sizes:
            line.enter(flow, size)
    most = {flow: max(sizes) for flow, sizes in left.items()}
    got: Counter[str] = Counter()
    while all(left.values()):
        first = line.first()
        assert first is not None
        line.grant(first)
        assert first.size == left[first.flow].pop(0), "first come, first served"
        got[first.flow] += first.size
        for one in left:
            for other in left:
                assert got[one] - got[other] <= most[one] + most[other]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "grant", "leave"]), st.sampled_from(FLOWS)),
        max_size=80,
    ),
    st.randoms(use_true_random=False),
)
def test_nobody_starves_whatever_comes_and_goes(steps: list[tuple[str, str]], dice: object) -> None:
    """A ticket is passed by at most what its flow's turns are ahead of the others'."""
    line = Line()
    waiting = []
    passed: Counter[int] = Counter()
    for what, flow in steps:
        if what == "enter":
            waiting.append(line.enter(flow, 10))
        elif what == "leave" and waiting:
            gone = waiting.pop(len(waiting) // 2)
            line.leave(gone)
        elif (first := line.first()) is not None:
            line.grant(first)
            assert first in waiting
            waiting.remove(first)
            heads = {one.flow: one for one in reversed(waiting)}
            for head in heads.values():
                passed[head.number] += 1
                # Between two turns of a flow each other one has at most two of the same size.
                assert passed[head.number] <= 2 * len(FLOWS)
    assert len(line) == len(waiting)


def test_who_leaves_has_lost_nothing() -> None:
    line = Line()
    gone = line.enter("a", 1 << 40)
    line.leave(gone)
    line.enter("b", 10)
    mine = line.enter("a", 10)
    first = line.first()
    assert first is not None
    line.grant(first)
    assert line.first() is mine
    line.grant(mine)
    assert line.first() is None


def test_who_was_away_has_saved_nothing_up() -> None:
    line = Line()
    for _ in range(100):
        line.grant(line.enter("a", 10))
    mine, theirs = [line.enter("a", 10) for _ in range(4)], [line.enter("b", 10) for _ in range(4)]
    order = []
    while (first := line.first()) is not None:
        line.grant(first)
        order.append(first.flow)
    assert all(ticket.granted for ticket in (*mine, *theirs))
    assert order[:4].count("b") <= 3
