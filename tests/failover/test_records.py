"""Failover records as bytes: what comes back, what does not, and that the format stands still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crypto.sign import Signer
from stages.errors import BackstayError, DamagedObject, NotAdmitted, UnknownVersion
from stages.vault.container import Kind, build
from stages.vault.failovers import (
    MAX_NOTE,
    MAX_RECORDS,
    MAX_WHO,
    NO_RECORD,
    Event,
    FailoverPoint,
    FailoverRecord,
    failover_object,
    read_failover,
)
from stages.vault.sealing import Scope
from tests.failover.records import OPERATOR, PEOPLE, SCOPE, STRANGER, link, record, sealed

GOLDEN = Path(__file__).parent.parent / "vault" / "golden" / "failover-00000001.hex"

points = st.builds(
    FailoverPoint,
    st.integers(1, 1 << 62),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 1 << 62),
)
any_records = st.builds(
    FailoverRecord,
    number=st.integers(1, MAX_RECORDS),
    previous=st.binary(min_size=32, max_size=32),
    event=st.sampled_from(Event),
    stamp=st.integers(0, 1 << 62),
    host=st.text(max_size=MAX_WHO),
    by=st.text(max_size=MAX_WHO),
    point=points,
    branch=st.binary(min_size=16, max_size=16),
    planned=st.booleans(),
    note=st.text(max_size=200),
)


def read(data: bytes, number: int = 1, scope: Scope = SCOPE) -> FailoverRecord:
    return read_failover(data, scope, PEOPLE.charter, number)[0]


def encodable(made: FailoverRecord) -> bool:
    return all(
        text == text.encode("utf-8", "ignore").decode() for text in (made.host, made.by, made.note)
    )


@given(any_records.filter(encodable))
def test_a_record_comes_back(made: FailoverRecord) -> None:
    data = sealed(made)
    found, digest = read_failover(data, SCOPE, PEOPLE.charter, made.number)
    assert found == made
    assert digest == link(data)


def test_what_concerns_no_point_comes_back_without() -> None:
    made = replace(record(Event.TEST_CLEANED), point=None, branch=None)
    assert read(sealed(made)) == made
    assert made.parent(SCOPE.group) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"number": MAX_RECORDS + 1},
        {"previous": b""},
        {"stamp": -1},
        {"host": "h" * (MAX_WHO + 1)},
        {"by": "b" * (MAX_WHO + 1)},
        {"note": "n" * (MAX_NOTE + 1)},
        {"branch": b"short"},
        {"branch": None},
        {"point": None},
        {"point": FailoverPoint(0, bytes(32), 0)},
        {"point": FailoverPoint(1, b"", 0)},
        {"event": Event.TEST_OPENED, "point": None},
    ],
    ids=str,
)
def test_records_that_cannot_be_are_not_written(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"record|note|branch|point|test"):
        failover_object(SCOPE, replace(record(Event.OPENED), **wrong), OPERATOR)  # type: ignore[arg-type]


def test_only_the_operator_counts() -> None:
    with pytest.raises(NotAdmitted, match="not the operator"):
        read(sealed(record(Event.OPENED), STRANGER))
    with pytest.raises(NotAdmitted):  # an admitted writer is not enough
        read(sealed(record(Event.OPENED), PEOPLE.daemon))


def test_a_record_counts_in_its_place_only() -> None:
    data = sealed(record(Event.OPENED))
    with pytest.raises(DamagedObject, match="another number"):
        read(data, 2)
    with pytest.raises(DamagedObject, match="another vault or group"):
        read(data, scope=PEOPLE.scope(b"another group!!!"))


def test_every_byte_is_proved() -> None:
    data = sealed(record(Event.OPENED))
    for at in range(len(data)):
        spoiled = bytearray(data)
        spoiled[at] ^= 1
        with pytest.raises((DamagedObject, NotAdmitted, UnknownVersion)):
            read(bytes(spoiled))


@given(st.integers(0, 400))
def test_a_cut_record_is_damage(size: int) -> None:
    data = sealed(record(Event.OPENED))
    with pytest.raises(DamagedObject):
        read(data[: min(size, len(data) - 1)])


@pytest.mark.parametrize("change", [{"format": 2}, {"event": "teleported"}])
def test_what_a_newer_release_says_is_not_guessed_at(change: dict[str, object]) -> None:
    fields = SCOPE.fields() | {
        "format": 1,
        "number": 1,
        "previous": NO_RECORD,
        "event": "opened",
        "stamp": 1,
    }
    data = b"".join(build(Kind.FAILOVER, fields | change, OPERATOR))
    with pytest.raises(UnknownVersion, match=r"format 2|teleported"):
        read(data)


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.binary(max_size=8), max_size=6))
def test_any_signed_header_is_an_error_or_a_record(fields: dict[str, object]) -> None:
    try:
        data = b"".join(build(Kind.FAILOVER, SCOPE.fields() | fields, Signer(OPERATOR.seed)))
    except (ValueError, OverflowError):
        return
    with pytest.raises(BackstayError):
        read(data)


def test_the_format_stands_still() -> None:
    """Changed on purpose? Then the format's number goes up, and the golden file with it."""
    assert sealed(record(Event.OPENED)).hex() == GOLDEN.read_text().strip()
