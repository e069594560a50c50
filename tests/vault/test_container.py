"""The signed container: any change of any byte is noticed, by its name, before it is used."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crypto.digest import digest
from stages.crypto.sign import Signer
from stages.errors import DamagedObject, UnknownVersion
from stages.vault import container
from stages.vault.codec import pack
from stages.vault.container import HEAD_SIZE, PREFIX, Container, Kind, build, header_reach, parse

SIGNER = Signer(bytes(range(32)))
FIELDS = {"seq": 7, "text": "seven"}


def made(body: bytes = b"the body", tail: tuple[bytes, ...] = (b"tail ", b"end")) -> bytes:
    return b"".join(build(Kind.COMMIT, FIELDS, SIGNER, body, tail))


def checked(data: bytes) -> Container:
    """Everything that a reader checks of an object, the frames in the tail left out."""
    found = parse(data, "the key", Kind.COMMIT)
    if not found.signed_by(found.header.raw("writer", 32)):
        raise DamagedObject("the signature does not verify", subject="the key")
    found.check_body(data[found.body_at : found.tail_at])
    return found


def test_an_object_comes_back_as_it_was_made() -> None:
    data = made()
    found = checked(data)
    assert (found.kind, found.key, found.size) == (Kind.COMMIT, "the key", len(data))
    assert (found.header.number("seq"), found.header.text("text")) == (7, "seven")
    assert found.header.raw("writer", 32) == SIGNER.public
    assert data[found.body_at : found.tail_at] == b"the body"
    assert data[found.tail_at :] == b"tail end"
    assert found.header.raw("tail_digest", 32) == digest([b"tail end"])
    assert header_reach(data) == found.tail_at


def test_the_layout_is_the_documented_one() -> None:
    data = made()
    header = pack(
        FIELDS
        | {
            "writer": SIGNER.public,
            "body_digest": digest([b"the body"]),
            "tail_digest": digest([b"tail end"]),
        }
    )
    prefix = struct.pack("<4sBBHIIQQ", b"BSTY", 1, 5, 0, len(header), 8, 8, 0)
    signature = SIGNER.sign(b"backstay signed object 1\0" + prefix + header)
    assert data == prefix + signature + header + b"the body" + b"tail end"
    link = digest([b"backstay signed object 1\0", prefix, header, signature])
    assert parse(data, "the key", Kind.COMMIT).digest == link


def test_the_same_object_has_the_same_bytes() -> None:
    assert made() == made()


def test_every_changed_bit_is_noticed() -> None:
    data = made()
    tail_at = parse(data, "the key", Kind.COMMIT).tail_at
    for bit in range(8 * tail_at):
        other = bytearray(data)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DamagedObject, UnknownVersion)):
            checked(bytes(other))


def test_a_changed_tail_is_noticed_by_its_digest() -> None:
    data = made()
    found = checked(data)
    for at in range(found.tail_at, len(data)):
        other = bytearray(data)
        other[at] ^= 1
        assert digest([bytes(other[found.tail_at :])]) != found.header.raw("tail_digest", 32)


def test_a_version_to_come_is_told_as_such() -> None:
    data = made()
    for version in (0, 2, 255):
        with pytest.raises(UnknownVersion) as caught:
            parse(data[:4] + bytes([version]) + data[5:], "the key", Kind.COMMIT)
        assert caught.value.subject == "the key"
        assert caught.value.hint


def test_every_truncation_is_noticed() -> None:
    data = made(tail=())
    for size in range(len(data)):
        with pytest.raises(DamagedObject) as caught:
            checked(data[:size])
        assert caught.value.subject == "the key"


def test_what_follows_an_object_is_not_part_of_it() -> None:
    assert checked(made() + b"more").size == len(made())


@given(st.binary(max_size=400))
def test_random_bytes_are_no_object(data: bytes) -> None:
    with pytest.raises((DamagedObject, UnknownVersion)):
        checked(data)
    assert 0 <= header_reach(data) <= HEAD_SIZE + container.MAX_HEADER + container.MAX_BODY


@given(st.binary(max_size=400))
def test_random_headers_are_no_objects(header: bytes) -> None:
    """Even with a good signature: nothing but ``DamagedObject``."""
    prefix = PREFIX.pack(b"BSTY", 1, Kind.COMMIT, 0, len(header), 0, 0, 0)
    signature = SIGNER.sign(b"backstay signed object 1\0" + prefix + header)
    with pytest.raises(DamagedObject):
        checked(prefix + signature + header)


@pytest.mark.parametrize(
    ("header", "body", "tail"),
    [
        (container.MAX_HEADER + 1, 0, 0),
        (0, container.MAX_BODY + 1, 0),
        (0, 0, container.MAX_TAIL + 1),
        (0xFFFFFFFF, 0xFFFFFFFF, (1 << 64) - 1),
    ],
)
def test_sizes_are_bounded_before_anything_is_read(header: int, body: int, tail: int) -> None:
    data = PREFIX.pack(b"BSTY", 1, Kind.COMMIT, 0, header, body, tail, 0) + bytes(64)
    with pytest.raises(DamagedObject, match="out of bounds"):
        parse(data, "the key", Kind.COMMIT)
    assert header_reach(data) <= HEAD_SIZE + container.MAX_HEADER + container.MAX_BODY


def test_an_object_of_another_kind_is_refused() -> None:
    for kind in Kind:
        if kind is not Kind.COMMIT:
            with pytest.raises(DamagedObject, match=kind.name.lower()):
                parse(made(), "the key", kind)


def test_another_body_of_the_same_length_is_refused() -> None:
    found = checked(made())
    for body in (b"the bodx", b"the bod", b"the body ", b""):
        with pytest.raises(DamagedObject):
            found.check_body(body)


def test_too_large_objects_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_BODY", 7)
    with pytest.raises(ValueError, match="COMMIT"):
        made()
    made(body=b"seven..")
    monkeypatch.setattr(container, "MAX_TAIL", 7)
    with pytest.raises(ValueError, match="COMMIT"):
        made(body=b"")
    monkeypatch.setattr(container, "MAX_HEADER", 10)
    with pytest.raises(ValueError, match="COMMIT"):
        made(body=b"", tail=())
