"""msgpack at the edge of trust: whatever comes, either the fields or ``DamagedObject``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import DamagedObject
from stages.vault.codec import Fields, pack

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.binary()
    | st.text()
    | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TAKERS: list[Callable[[Fields], Any]] = [
    lambda fields: fields.number("x"),
    lambda fields: fields.number("x", 7),
    lambda fields: fields.flag("x"),
    lambda fields: fields.text("x", 3),
    lambda fields: fields.raw("x"),
    lambda fields: fields.raw("x", 4),
    lambda fields: fields.array("x", "<u8"),
    lambda fields: fields.array("x", "<u4", 3),
    lambda fields: fields.maps("x", 2),
    lambda fields: fields.optional_map("x"),
]


def take_all(fields: Fields) -> None:
    """Every way of taking a field gives a value or ``DamagedObject`` of the subject."""
    for take in TAKERS:
        try:
            take(fields)
        except DamagedObject as error:
            assert error.subject == "the object"


@given(st.binary(max_size=300))
def test_random_bytes_are_damage_or_fields(data: bytes) -> None:
    try:
        take_all(Fields.decode(data, "the object"))
    except DamagedObject as error:
        assert error.subject == "the object"


@given(st.dictionaries(st.text(max_size=2), VALUES, max_size=4), st.data())
def test_changed_bytes_are_damage_or_fields(fields: dict[str, Any], data: st.DataObject) -> None:
    encoded = bytearray(pack({**fields, "x": fields.get("x")}))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        take_all(Fields.decode(bytes(encoded), "the object"))
    except DamagedObject as error:
        assert error.subject == "the object"


@given(VALUES)
def test_a_field_is_taken_by_its_type_only(value: Any) -> None:
    take_all(Fields({"x": value}, "the object"))
    fields = Fields({"x": value}, "the object")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        assert fields.number("x") == value
    else:
        with pytest.raises(DamagedObject):
            fields.number("x")
    if not isinstance(value, bytes):
        with pytest.raises(DamagedObject):
            fields.raw("x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        msgpack.packb([1]),
        msgpack.packb("text"),
        msgpack.packb({1: 2}),  # keys are names
        msgpack.packb({}) + b"\0",  # something follows
        b"\x81\xa1x\xa1\xff",  # text that is not UTF-8
        b"\xdd\xff\xff\xff\xff",  # four thousand million entries
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\x81\xa1x" + b"\x91" * 5000,  # a list in a list in a list
        b"\x81\xa1x" + b"\xdd\x00\x0f\xff\xff" * 1000,  # each claims a million entries
        b"\x81\xa1x\xc1",  # a code that msgpack does not have
    ],
)
def test_what_is_no_map_of_names_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedObject):
        Fields.decode(data, "the object")


def test_fields_are_checked_for_their_bounds() -> None:
    fields = Fields({"n": 8, "t": "four", "b": b"12345", "m": [{}, {}, {}]}, "the object")
    assert fields.number("n", 8) == 8
    assert fields.text("t", 4) == "four"
    assert fields.raw("b", 5) == b"12345"
    assert len(fields.maps("m", 3)) == 3
    for take in (
        lambda: fields.number("n", 7),
        lambda: fields.text("t", 3),
        lambda: fields.raw("b", 4),
        lambda: fields.maps("m", 2),
        lambda: fields.array("b", "<u8"),
        lambda: fields.number("absent"),
        lambda: fields.flag("n"),
    ):
        with pytest.raises(DamagedObject):
            take()


def test_arrays_are_little_endian_rows() -> None:
    rows = np.arange(6, dtype=np.uint64).reshape(-1, 2)
    fields = Fields({"a": rows.astype("<u8").tobytes(), "none": b""}, "the object")
    assert fields.array("a", "<u8", 2).tolist() == rows.tolist()
    assert fields.array("a", "<u8").tolist() == [0, 1, 2, 3, 4, 5]
    assert fields.array("none", "<u4", 3).shape == (0, 3)
    assert fields.array("none", "<u4").shape == (0,)


def test_an_absent_map_is_none_and_a_wrong_one_damage() -> None:
    fields = Fields({"nil": None, "map": {"x": 1}, "wrong": 1}, "the object")
    assert fields.optional_map("nil") is None
    assert fields.optional_map("absent") is None
    inner = fields.optional_map("map")
    assert inner is not None
    assert inner.number("x") == 1
    with pytest.raises(DamagedObject):
        fields.optional_map("wrong")


def test_the_order_of_fields_is_the_callers() -> None:
    assert pack({"b": 1, "a": 2}) == b"\x82\xa1b\x01\xa1a\x02"
