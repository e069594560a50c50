"""Commits: header and body come back; a body that lies about its sizes is damage, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crypto.sign import Signer
from stages.errors import DamagedObject, UnknownVersion
from stages.model import BLOCK_BITS, FRAME_BLOCKS, Runs
from stages.vault import commit
from stages.vault.codec import pack
from stages.vault.commit import (
    Header,
    ObjectRef,
    Part,
    SegmentIndex,
    decode_body,
    encode_body,
    read_header,
)
from stages.vault.container import Kind, build, parse
from stages.vault.sealing import Scope
from tests.vault.test_runs import runs_of

SCOPE = Scope(bytes(16), bytes(range(16)), "aegis256")
SIGNER = Signer(bytes(32))
HEADER = Header(
    seq=9,
    epoch=2,
    previous=bytes(range(32)),
    objects=(ObjectRef(0, 1000, bytes(32)), ObjectRef(7, 1, bytes(range(32)))),
    first_frame=5,
    frames=3,
    consistent=True,
    last_consistent=8,
    grade="quiet",
    stamp=1_700_000_000_000_001,
    wall=1_700_000_000_000_000,
    checkpoint=4,
    machine=1,
)
Entry = dict[str, Any]


def read(fields: Entry, seq: int = 9, scope: Scope = SCOPE) -> Header:
    data = b"".join(build(Kind.COMMIT, fields, SIGNER))
    return read_header(parse(data, "the key", Kind.COMMIT), scope, seq)


def test_a_header_comes_back() -> None:
    assert read(HEADER.fields(SCOPE)) == HEADER


@pytest.mark.parametrize("field", sorted(HEADER.fields(SCOPE)))
@pytest.mark.parametrize("value", [None, -1, 1 << 63, "text", b"bytes", [1], {}, 1.5])
def test_a_field_of_another_kind_is_damage(field: str, value: object) -> None:
    with pytest.raises(DamagedObject):
        read(HEADER.fields(SCOPE) | {field: value})
    with pytest.raises(DamagedObject):
        read({name: each for name, each in HEADER.fields(SCOPE).items() if name != field})


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 10},
        {"vault": bytes(range(16))},
        {"group": bytes(16)},
        {"epoch": 0},
        {"epoch": 1 << 24},
        {"frames": (1 << 24) + 1},
        {"first_frame": (1 << 32) - 2},  # with three frames: one without a number
        {"first_frame": 1 << 32, "frames": 1},
        {"last_consistent": 9},
        {"checkpoint": 9},
        {"grade": "perfect"},
        {"objects": [{"number": 0, "size": 1, "digest": bytes(31)}]},
        {"objects": [{"number": 0, "size": 1, "digest": bytes(32)}] * 4097},
    ],
)
def test_headers_out_of_bounds_are_damage(change: Entry) -> None:
    with pytest.raises(DamagedObject):
        read(HEADER.fields(SCOPE) | change)


def test_the_last_frames_of_an_epoch_have_numbers() -> None:
    assert read(HEADER.fields(SCOPE) | {"first_frame": (1 << 32) - 3}).first_frame == (1 << 32) - 3


def test_headers_to_come_are_told_as_such() -> None:
    with pytest.raises(UnknownVersion):
        read(HEADER.fields(SCOPE) | {"format": 2})


BLOCK = st.integers(0, (1 << BLOCK_BITS) - 1)
RUN = st.tuples(BLOCK, st.integers(1, FRAME_BLOCKS))
ZERO = st.tuples(BLOCK, st.integers(1, 1 << BLOCK_BITS))
REF = st.tuples(BLOCK, st.integers(0, (1 << 60) - 1), st.integers(1, 100))


@st.composite
def segments(draw: st.DrawFn) -> SegmentIndex:
    """A segment whose frames hold exactly what its parts name."""
    parts = [
        Part(
            disk=draw(st.integers(0, 4095)),
            data=runs_of(draw(st.lists(RUN, max_size=3))),
            zero=runs_of(draw(st.lists(ZERO, max_size=3))),
            refs=np.array(draw(st.lists(REF, max_size=3)), np.uint64).reshape(-1, 3),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    held = sum(part.data.total for part in parts)
    sizes = [FRAME_BLOCKS] * (held // FRAME_BLOCKS) + [held % FRAME_BLOCKS] * (
        held % FRAME_BLOCKS > 0
    )
    spans = [(at * 1000, 999, blocks) for at, blocks in enumerate(sizes)]
    return SegmentIndex(
        draw(st.integers(-1, 1)), np.array(spans, np.uint32).reshape(-1, 3), tuple(parts)
    )


def plain_of(index: tuple[SegmentIndex, ...]) -> list[Any]:
    """Without arrays, to be compared."""
    return [
        (
            each.source,
            each.spans.tolist(),
            [
                (
                    part.disk,
                    part.data.start.tolist(),
                    part.data.count.tolist(),
                    part.zero.start.tolist(),
                    part.zero.count.tolist(),
                    part.refs.tolist(),
                )
                for part in each.parts
            ],
        )
        for each in index
    ]


@settings(max_examples=60)
@given(st.lists(segments(), max_size=3).map(tuple))
def test_a_body_comes_back(index: tuple[SegmentIndex, ...]) -> None:
    header = replace(HEADER, frames=sum(len(each.spans) for each in index))
    found = decode_body(encode_body(index), header, "the key")
    assert plain_of(found) == plain_of(index)
    assert encode_body(found) == encode_body(index)


def u64(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def part(**change: object) -> Entry:
    return {"disk": 0, "data": u64(0, 3), "zero": b"", "refs": b""} | change


def segment(*parts: Entry, **change: object) -> Entry:
    spans = np.array([(0, 10, 1), (10, 10, 1), (20, 10, 1)], "<u4").tobytes()
    return {"source": 0, "spans": spans, "parts": list(parts)} | change


def decoded(*found: Entry, frames: int = 3, key: str = "the key") -> tuple[SegmentIndex, ...]:
    plain = pack({"format": 1, "segments": list(found)})
    return decode_body(plain, replace(HEADER, frames=frames), key)


def test_the_smallest_lies_are_damage_because_the_truth_is_not() -> None:
    assert decoded(segment(part()))[0].parts[0].data.total == 3


WRAPS = u64(*[0, 1 << 47] * (1 << 17), 0, 3)  # counts that add up to 3, in 64 bits
TOP = (1 << BLOCK_BITS) - 1
LIES: dict[str, Callable[[], object]] = {
    "counts that overflow": lambda: decoded(segment(part(data=WRAPS))),
    "reference counts that overflow": lambda: decoded(
        segment(part(refs=u64(*[0, 0, 1 << 47] * (1 << 17))))
    ),
    "more content than a segment may name": lambda: decoded(
        segment(part(data=u64(0, commit.MAX_SEGMENT_BLOCKS + 1)))
    ),
    "more references than a segment may name": lambda: decoded(
        segment(part(refs=u64(0, 0, commit.MAX_SEGMENT_BLOCKS)))
    ),
    "a run of no blocks": lambda: decoded(segment(part(data=u64(0, 3, 9, 0)))),
    "a zero run of no blocks": lambda: decoded(segment(part(zero=u64(0, 0)))),
    "a reference to no blocks": lambda: decoded(segment(part(refs=u64(0, 0, 0)))),
    "a block beyond all disks": lambda: decoded(segment(part(data=u64(TOP + 1, 3)))),
    "a zero run beyond all disks": lambda: decoded(segment(part(zero=u64(0, TOP + 2)))),
    "a zero run that begins there": lambda: decoded(segment(part(zero=u64(1 << 63, 1)))),
    "a reference from there": lambda: decoded(segment(part(refs=u64(TOP + 1, 0, 1)))),
    "a disk beyond all numbers": lambda: decoded(segment(part(disk=4096))),
    "half a row": lambda: decoded(segment(part(data=u64(0, 3, 4)))),
    "half a span": lambda: decoded(segment(part(), spans=bytes(13))),
    "fewer blocks than the frames hold": lambda: decoded(segment(part(data=u64(0, 2)))),
    "more blocks than the frames hold": lambda: decoded(segment(part(data=u64(0, 4)))),
    "other frames than the header says": lambda: decoded(segment(part()), frames=2),
    "no frames at all": lambda: decoded(frames=1),
    "a frame of no bytes": lambda: decoded(
        segment(part(), spans=np.array([(0, 0, 3)], "<u4").tobytes()), frames=1
    ),
    "a frame of no blocks": lambda: decoded(
        segment(part(), spans=np.array([(0, 9, 3), (9, 9, 0)], "<u4").tobytes()), frames=2
    ),
    "a frame of too many blocks": lambda: decoded(
        segment(part(data=u64(0, 65)), spans=np.array([(0, 9, 65)], "<u4").tobytes()), frames=1
    ),
    "an object that the header does not name": lambda: decoded(segment(part(), source=3)),
    "a source below the tail": lambda: decoded(segment(part(), source=-1)),
    "a part that is no map": lambda: decoded(segment(1)),  # type: ignore[arg-type]
    "too many segments": lambda: decoded(*[segment(spans=b"")] * 4097, frames=0),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_bodies_that_lie_are_damage(lie: Callable[[], object]) -> None:
    with pytest.raises(DamagedObject) as caught:
        lie()
    assert caught.value.subject == "the key"


def test_bodies_to_come_are_told_as_such() -> None:
    with pytest.raises(UnknownVersion):
        decode_body(pack({"format": 2, "segments": []}), replace(HEADER, frames=0), "the key")


@given(st.data())
def test_changed_bodies_are_damage_or_bodies(data: st.DataObject) -> None:
    plain = bytearray(pack({"format": 1, "segments": [segment(part(zero=u64(9, 1)))]}))
    for _ in range(data.draw(st.integers(1, 3))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_body(bytes(plain), HEADER, "the key")
    except (DamagedObject, UnknownVersion):
        return
    for each in found:
        for one in each.parts:
            assert len(one.data.blocks()) == one.data.total
            assert one.data.total <= commit.MAX_SEGMENT_BLOCKS


def test_the_body_is_the_documented_one() -> None:
    index = SegmentIndex(
        1,
        np.array([(0, 99, 3)], np.uint32),
        (Part(2, runs_of([(5, 3)]), Runs.none(), np.array([(8, 9, 1)], np.uint64)),),
    )
    found = msgpack.unpackb(encode_body((index,)))
    spans = np.array([0, 99, 3], "<u4").tobytes()
    parts = [{"disk": 2, "data": u64(5, 3), "zero": b"", "refs": u64(8, 9, 1)}]
    assert found == {"format": 1, "segments": [{"source": 2, "spans": spans, "parts": parts}]}
