"""The tuning planner against made-up cost functions: it finds the best, and never sees in noise
what is not there more often than it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.tune.noise import chance, fewest, interval
from bench.tune.plan import Answer, Measure, Pair, Rules, Verdict, search
from bench.tune.space import Option, Setting

OPTIONS = (
    Option("a.x", (1, 2, 4, 8)),
    Option("a.y", (1, 2, 3, 4, 5)),
    Option("b.z", (10, 20, 30)),
)
START: Setting = MappingProxyType({"a.x": 2, "a.y": 3, "b.z": 20})
MIB = 1 << 20
Cost = Callable[[Setting], Measure]


def drive(cost: Cost, noise: float = 0.0, seed: int = 0, rules: Rules | None = None) -> Verdict:
    """Answer all that the planner asks; ``noise`` is the spread of the logarithm of seconds."""
    dice = np.random.default_rng(seed)

    def measured(setting: Setting) -> Measure:
        found = cost(setting)
        return Measure(found.seconds * math.exp(dice.normal(0, noise)), found.peak, found.stored)

    asking, answer = search(START, OPTIONS, rules or Rules()), None
    try:
        pair: Pair = next(asking)
        while True:
            answer = Answer(measured(pair.candidate), measured(pair.incumbent))
            pair = asking.send(answer)
    except StopIteration as done:
        verdict: Verdict = done.value
        return verdict


def bowl(best: Setting) -> Cost:
    """Each step away from the best costs a tenth."""

    def cost(setting: Setting) -> Measure:
        away = sum(
            abs(one.values.index(int(setting[one.name])) - one.values.index(int(best[one.name])))
            for one in OPTIONS
        )
        return Measure(1.1**away, 100 * MIB, 1000)

    return cost


ANYWHERE = st.fixed_dictionaries({one.name: st.sampled_from(one.values) for one in OPTIONS})


@settings(max_examples=40, deadline=None)
@given(best=ANYWHERE, noise=st.sampled_from([0.0, 0.003]), seed=st.integers(0, 1000))
def test_the_best_is_found_whatever_it_is(best: dict[str, int], noise: float, seed: int) -> None:
    verdict = drive(bowl(best), noise, seed)
    assert dict(verdict.setting) == best
    if best != dict(START):
        assert verdict.sure >= 0.95
        assert verdict.low <= verdict.gain <= verdict.high
        assert verdict.gain == pytest.approx(bowl(best)(START).seconds, rel=0.05)


def test_noise_alone_is_recommended_no_more_often_than_alpha() -> None:
    """Loose on the way, so that the last comparison is what holds it."""
    rules = Rules(pairs=3, final=6, step_alpha=0.5, alpha=0.1, most=60)
    flat = Measure(1.0, 100 * MIB, 1000)
    verdicts = [drive(lambda _: flat, 0.1, seed, rules) for seed in range(300)]
    tried = sum(any(step.taken for step in verdict.steps) for verdict in verdicts)
    accepted = sum(verdict.setting != START for verdict in verdicts)
    assert tried > 100  # noise does get so far
    assert accepted <= 300 * 0.1  # 30; each had a chance of less than a tenth


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=8))
def test_chance_is_a_probability_that_knows_its_own_limit(ratios: list[float]) -> None:
    found = chance(ratios)
    assert 0.5 ** len(ratios) - 1e-9 <= found <= 1
    assert chance([1 / ratio for ratio in ratios]) >= 1 - found - 1e-9
    low, high = interval(ratios)
    assert min(ratios) - 1e-9 <= low <= high <= max(ratios) + 1e-9


def test_chance_of_known_rows() -> None:
    assert chance([1.1] * 5) == pytest.approx(1 / 32)
    assert chance([1.1, 1 / 1.1]) == pytest.approx(0.75)
    assert chance([]) == 1
    assert fewest(0.05) == 5
    with pytest.raises(ValueError, match="few pairs"):
        Rules(final=4, alpha=0.05)


def faster_with_more(**more: int) -> Cost:
    def cost(setting: Setting) -> Measure:
        x = int(setting["a.x"])
        return Measure(
            1 / x, more.get("peak", 50 * MIB) * x, 1000 + more.get("stored", 0) * (x - 2)
        )

    return cost


def test_what_needs_too_much_memory_is_not_taken() -> None:
    verdict = drive(faster_with_more(peak=60 * MIB), rules=Rules(memory=250 * MIB))
    assert verdict.setting["a.x"] == 4
    assert verdict.steps[1].why == "it needs too much memory"
    assert len(verdict.steps[1].ratios) == 1  # known after the first


def test_what_needs_as_much_as_before_is_taken_whatever_the_limit() -> None:
    assert drive(faster_with_more(peak=0), rules=Rules(memory=0)).setting["a.x"] == 8


def test_growth_is_counted_from_the_first_setting() -> None:
    grows = faster_with_more(stored=10)  # 1 % a step of one
    assert drive(grows, rules=Rules(growth=0.03)).setting["a.x"] == 4
    assert drive(grows, rules=Rules(growth=None, memory=1 << 30)).setting["a.x"] == 8


def test_a_setting_that_fails_is_passed_over_and_hurry_ends_the_search() -> None:
    asking = search(START, OPTIONS, Rules())
    pair = next(asking)
    known = Measure(1.0, MIB, 1000)
    assert pair.candidate["a.x"] == 4
    pair = asking.send(Answer(None, known))
    assert pair.candidate["a.x"] == 1
    with pytest.raises(StopIteration) as done:
        asking.send(Answer(None, known, hurry=True))
    verdict = done.value.value
    assert verdict.setting == START
    assert [step.why for step in verdict.steps] == ["it failed", "it failed"]
    assert verdict.pairs == 2


def test_the_search_is_bounded() -> None:
    verdict = drive(bowl(START), rules=Rules(most=7))
    assert verdict.pairs <= 7 + Rules().pairs + Rules().final
