"""Rollups: 256 commits in one object, cut apart again only where all lengths agree."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import DamagedObject
from stages.vault import rollup
from stages.vault.rollup import SPAN, decode, encode

HEADS = [bytes([at]) * (at % 7) for at in range(SPAN)]
DATA = b"".join(encode(HEADS))


def test_heads_come_back() -> None:
    assert decode(DATA, "the key") == HEADS


def test_the_layout_is_the_documented_one() -> None:
    sizes = struct.pack("<256I", *(len(head) for head in HEADS))
    assert b"BROL\x01\x00\x00\x00\x00\x01\x00\x00" + sizes + b"".join(HEADS) == DATA


@pytest.mark.parametrize("count", [0, 255, 257])
def test_a_rollup_holds_all_its_commits(count: int) -> None:
    with pytest.raises(ValueError, match="256"):
        encode([b""] * count)


def test_every_truncation_is_noticed() -> None:
    for size in range(len(DATA)):
        with pytest.raises(DamagedObject):
            decode(DATA[:size], "the key")
    with pytest.raises(DamagedObject):
        decode(DATA + b"\0", "the key")


@given(st.data())
def test_changed_bytes_are_damage_or_heads(data: st.DataObject) -> None:
    other = bytearray(DATA)
    at = data.draw(st.integers(0, 12 + 4 * SPAN))
    other[at] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(other), "the key")
    except DamagedObject as error:
        assert error.subject == "the key"
    else:
        assert b"".join(found) == bytes(other[12 + 4 * SPAN :])


def test_lengths_are_bounded() -> None:
    sizes = struct.pack("<256I", *[0xFFFFFFFF] * SPAN)
    with pytest.raises(DamagedObject):
        decode(DATA[:12] + sizes + bytes(100), "the key")


def test_what_is_too_large_is_not_a_rollup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "MAX_SIZE", len(DATA) - 1)
    with pytest.raises(DamagedObject):
        decode(DATA, "the key")
