"""RPO never says less than is true, and hardly more; draining takes what it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.health import measure
from pipeline.health.measure import Drain, Rpo


@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 20),  # until the next sample
            st.lists(st.floats(0, 1), max_size=3),  # when in between is written
            st.integers(0, 5),  # writes committed by the end of it
        ),
        max_size=40,
    )
)
def test_rpo_is_the_age_of_the_oldest_write_that_is_not_committed(
    steps: list[tuple[float, list[float], int]],
) -> None:
    now, rpo, written, committed, longest = 100.0, Rpo(), [], 0, 0.0
    assert rpo.sample(now, (1, 0), (1, 0), consistent=True) == 0
    for seconds, shares, count in steps:
        written += [now + share * seconds for share in sorted(shares)]
        now += seconds
        committed = min(len(written), committed + count)
        longest = max(longest, seconds)
        found = rpo.sample(now, (1, len(written)), (1, committed), consistent=True)
        true = now - written[committed] if committed < len(written) else 0.0
        if committed == len(written):
            assert found == 0
        else:
            assert true - 1e-6 <= found <= true + 2 * longest + 1e-6


def test_in_a_gap_the_age_counts_from_its_begin() -> None:
    rpo = Rpo()
    rpo.sample(0, (1, 5), (1, 5), consistent=True)
    assert rpo.sample(10, (1, 5), (1, 5), consistent=False) == 10
    assert rpo.sample(100, (2, 5), (2, 5), consistent=False) == 100
    assert rpo.sample(110, (2, 5), (2, 5), consistent=True) == 0


def test_at_time_zero() -> None:
    rpo = Rpo()
    rpo.sample(0, (1, 5), (1, 0), consistent=True)
    assert rpo.sample(7, (1, 5), (1, 0), consistent=True) == 7


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MOST", 16)
    rpo, drain = Rpo(), Drain()
    for at in range(1000):
        assert rpo.sample(at, (1, at + 1), (1, 0), consistent=True) == at
        drain.sample(at, at, 5)
    assert len(rpo._seen) <= 17
    assert len(drain._samples) <= 17
    found = rpo.sample(1000, (1, 1000), (1, 500), consistent=True)
    assert 500 <= found <= 1000  # coarser, and never too young


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
