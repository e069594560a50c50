"""Two checks in a row, up and down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.model import Health, Reason
from pipeline.health.calm import IMMEDIATE, Calm, Change
from pipeline.health.judge import RANK, worst

W, C, N = Health.WARNING, Health.CRITICAL, Health.NORMAL
LEVELS = [N, W, C]


def _found(**levels: Health) -> list[Reason]:
    return [Reason(code, level, code) for code, level in levels.items() if level is not N]


def test_one_check_changes_nothing_and_two_do() -> None:
    calm = Calm()
    assert calm.check(_found(rpo=W)) is None
    assert calm.health is N
    change = calm.check(_found(rpo=W))
    assert change == Change(N, W, (Reason("rpo", W, "rpo"),))
    assert calm.check([]) is None
    assert calm.health is W
    assert calm.check([]) == Change(W, N, ())


def test_straight_to_critical_goes_through_what_both_checks_agree_on() -> None:
    calm = Calm()
    calm.check(_found(rpo=W))
    assert calm.check(_found(rpo=C)) == Change(N, W, (Reason("rpo", W, "rpo"),))
    change = calm.check(_found(rpo=C))
    assert change is not None
    assert change.after is C


def test_flapping_is_not_told() -> None:
    calm = Calm()
    for _ in range(20):
        assert calm.check(_found(rpo=C)) is None
        assert calm.check([]) is None


def test_one_reason_does_not_help_another() -> None:
    calm = Calm()
    calm.check(_found(cpu=C))
    assert calm.check(_found(rpo=C)) is None
    assert calm.health is N


def test_what_is_no_measurement_is_told_at_once() -> None:
    change = Calm().check(_found(**{"scrub-mismatch": C}))
    assert change is not None
    assert change.after is C


CHECKS = st.lists(
    st.fixed_dictionaries({code: st.sampled_from(LEVELS) for code in ("a", "b", "c")}), max_size=30
)


@given(CHECKS)
def test_what_is_shown_lies_between_what_the_last_two_checks_found(
    checks: list[dict[str, Health]],
) -> None:
    calm, last = Calm(), dict.fromkeys("abc", N)
    shown = dict.fromkeys("abc", N)
    for found in checks:
        before = calm.health
        change = calm.check(_found(**found))
        levels = dict.fromkeys("abc", N) | {one.code: one.health for one in calm.reasons}
        for code in "abc":
            pair = sorted((RANK[found[code]], RANK[last[code]]))
            assert pair[0] <= RANK[levels[code]] <= pair[1]
            if RANK[shown[code]] in range(pair[0], pair[1] + 1):
                assert levels[code] is shown[code]  # it changes only when it must
        assert calm.health is worst(calm.reasons)
        assert (change is None) == (calm.health is before)
        last, shown = found, levels
    assert not IMMEDIATE & set("abc")


@given(CHECKS, st.sampled_from(LEVELS))
def test_two_equal_checks_decide(checks: list[dict[str, Health]], level: Health) -> None:
    calm = Calm()
    for found in checks:
        calm.check(_found(**found))
    calm.check(_found(a=level))
    calm.check(_found(a=level))
    assert calm.health is level
    assert len(calm._told) <= 1
