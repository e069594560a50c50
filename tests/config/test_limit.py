"""Limits of vaults as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.limit import Limit
from pipeline.config.units import Wrong, format_rate, parse_rate
from tests.config.support import read

TEXT = """daemon: {state: ./state}
vaults:
  standby:
    url: file:./vault
    trust: ./backstay.pub
    limit:
      upload: 20MB/s
      schedule:
        - {days: mon-fri, hours: "8:00-18:00", upload: 40Mbit/s}
        - {days: sat, download: 1MiB/s}
machines:
  web1:
    vault: standby
    disks:
      root: {path: ./disk.img, capture: scan}
"""


def test_a_limit_is_read_and_can_be_read_again() -> None:
    limit = read(TEXT).vaults["standby"].limit
    assert limit is not None
    assert (limit.upload, limit.download) == (20_000_000, "unlimited")
    first, second = limit.schedule
    assert (first.days, first.hours, first.upload, first.download) == (
        "mon-fri",
        "08:00-18:00",
        5_000_000,
        None,
    )
    assert (second.hours, second.download) == ("always", 1 << 20)
    dumped = limit.model_dump(mode="json", exclude_none=True)
    assert dumped["upload"] == "20MB/s"
    assert Limit.model_validate(dumped) == limit


def test_without_one_nothing_is_limited() -> None:
    assert (
        read(
            TEXT.replace("    limit:", "    # limit:").split("      upload")[0]
            + TEXT[TEXT.index("machines:") :]
        )
        .vaults["standby"]
        .limit
        is None
    )


@given(st.integers(1, 1 << 45))
def test_rates_are_read_as_they_are_written(rate: int) -> None:
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    ("given", "rate"),
    [("100Mbit/s", 12_500_000), ("1 MiB/s", 1 << 20), ("500B/s", 500), ("8kbit/s", 1000)],
)
def test_rates(given: str, rate: int) -> None:
    assert parse_rate(given) == rate


@pytest.mark.parametrize("given", ["", "20", "20/s", "20MB", "MB/s", "20MBs", "1.5MB/s", 20, None])
def test_texts_that_are_no_rates(given: object) -> None:
    with pytest.raises(Wrong):
        parse_rate(given)
