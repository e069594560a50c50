"""Frames and sealed bodies: bound to their place, bounded before they are expanded."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crypto.aead import CIPHERS
from stages.errors import DamagedObject
from stages.model import BLOCK, FRAME_BLOCKS, Frame
from stages.vault import sealing
from stages.vault.container import Kind
from stages.vault.frame import (
    HEADER,
    MOST,
    RAW,
    ZSTD,
    expand,
    read_head,
    seal,
    unpack_into,
    unseal,
)
from stages.vault.sealing import EpochKeys, Scope, open_body, seal_body
from tests.vault.support import SeededEntropy, noise_block, text_block

SCOPE = Scope(bytes(16), bytes(range(16)), "aegis256")
KEY = bytes(range(32))
KEYS = EpochKeys(3, KEY, KEY[::-1])
CONTENT = text_block("a") + text_block("b")


def packed(content: bytes = CONTENT, codec: int = ZSTD) -> Frame:
    data = zstandard.ZstdCompressor(level=1).compress(content) if codec == ZSTD else content
    return Frame(codec, len(content) // BLOCK, data)


def sealed(frame: Frame, scope: Scope = SCOPE) -> bytes:
    return seal(scope, KEY, 3, 70_000, frame, SeededEntropy("frame"))


def opened(stored: bytes, scope: Scope = SCOPE, epoch: int = 3, number: int = 70_000) -> bytes:
    """Both ways: what one opens the other does, and what one refuses the other does."""
    expander, room = zstandard.ZstdDecompressor(), bytearray(b"?" * (MOST + 1))
    arguments = (scope, KEY, epoch, number, stored, "the object")
    try:
        size = unpack_into(*arguments, expander, memoryview(room)[:MOST])
    except DamagedObject:
        with pytest.raises(DamagedObject):
            expand(*unseal(*arguments), expander, "the object")
        raise
    content = expand(*unseal(*arguments), expander, "the object")
    assert room == content + b"?" * (len(room) - size), "and nothing behind it is touched"
    return content


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("codec", [RAW, ZSTD])
@pytest.mark.parametrize("blocks", [1, 2, FRAME_BLOCKS])
def test_a_frame_comes_back(cipher: str, codec: int, blocks: int) -> None:
    scope = replace(SCOPE, cipher_name=cipher)
    content = b"".join(noise_block(str(block)) for block in range(blocks))
    assert opened(sealed(packed(content, codec), scope), scope) == content


def test_the_header_is_the_documented_one() -> None:
    frame = packed()
    stored = sealed(frame)
    size = len(frame.data) + 64
    assert stored[:24] == struct.pack("<4sBBHIIII", b"BFRM", 1, 1, 2, 3, 70_000, size, 0)
    assert len(stored) == 24 + size
    associated = b"backstay frame 1" + bytes(16) + bytes(range(16)) + stored[:24]
    assert SCOPE.cipher.open(KEY, stored[24:], associated) == frame.data


def test_every_changed_bit_is_noticed() -> None:
    stored = sealed(packed())
    for bit in range(8 * len(stored)):
        other = bytearray(stored)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedObject) as caught:
            opened(bytes(other))
        assert caught.value.subject == "the object"


def test_every_truncation_is_noticed() -> None:
    stored = sealed(packed())
    for size in range(len(stored)):
        with pytest.raises(DamagedObject):
            opened(stored[:size])
    with pytest.raises(DamagedObject):
        opened(stored + b"\0")


def test_a_frame_opens_in_its_own_place_only() -> None:
    stored = sealed(packed())
    with pytest.raises(DamagedObject, match="in the place of"):
        opened(stored, number=70_001)
    with pytest.raises(DamagedObject, match="in the place of"):
        opened(stored, epoch=4)
    for scope in (replace(SCOPE, vault=KEY[:16]), replace(SCOPE, group=bytes(16))):
        with pytest.raises(DamagedObject, match="does not open"):
            opened(stored, scope)


@given(st.binary(max_size=100))
def test_random_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(DamagedObject):
        opened(data)


@pytest.mark.parametrize(
    "head",
    [
        (b"BFRM", 1, 0, 0, 3, 7, 100, 0),  # no blocks
        (b"BFRM", 1, 0, FRAME_BLOCKS + 1, 3, 7, 100, 0),
        (b"BFRM", 1, 2, 1, 3, 7, 100, 0),  # an unknown codec
        (b"BFRM", 2, 0, 1, 3, 7, 100, 0),
        (b"BFRM", 1, 0, 1, 3, 7, (512 << 10) + 1, 0),
        (b"BFRM", 1, 0, 1, 3, 7, 100, 1),
        (b"BFRN", 1, 0, 1, 3, 7, 100, 0),
    ],
)
def test_heads_out_of_bounds_are_damage(head: tuple[int | bytes, ...]) -> None:
    with pytest.raises(DamagedObject):
        read_head(HEADER.pack(*head), "the object")


@pytest.mark.parametrize(
    "frame",
    [
        Frame(ZSTD, 2, packed(CONTENT * 1000).data),  # a bomb: expands to 8 MB, says 8 KiB
        Frame(ZSTD, 2, packed(CONTENT[:BLOCK]).data),
        Frame(ZSTD, 2, packed().data[:-1]),
        Frame(ZSTD, 2, CONTENT),
        Frame(ZSTD, 2, b""),
        Frame(RAW, 2, CONTENT[:-1]),
        Frame(RAW, 2, CONTENT + b"\0"),
        Frame(RAW, 2, b""),
    ],
)
def test_content_of_another_size_is_damage(frame: Frame) -> None:
    with pytest.raises(DamagedObject):
        opened(sealed(frame))


def without_size(content: bytes) -> bytes:
    """A zstd frame that does not say how much it expands to."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


def test_content_must_say_its_size() -> None:
    with pytest.raises(DamagedObject):
        opened(sealed(Frame(ZSTD, 2, without_size(CONTENT))))


@settings(max_examples=30)
@given(st.binary(max_size=3000), st.sampled_from(list(Kind)), st.integers(0, (1 << 63) - 1))
def test_a_body_comes_back(plain: bytes, kind: Kind, number: int) -> None:
    stored = seal_body(SCOPE, kind, KEYS, number, plain, SeededEntropy("body"))
    assert open_body(SCOPE, kind, KEYS, number, stored, "the object") == plain


def test_a_body_opens_in_its_own_place_only() -> None:
    stored = seal_body(SCOPE, Kind.COMMIT, KEYS, 7, b"plain", SeededEntropy("body"))
    other = EpochKeys(4, KEY, KEY[::-1])
    for scope, kind, keys, number in (
        (SCOPE, Kind.MANIFEST, KEYS, 7),
        (SCOPE, Kind.COMMIT, other, 7),
        (SCOPE, Kind.COMMIT, KEYS, 8),
        (SCOPE, Kind.COMMIT, EpochKeys(3, KEY, KEY), 7),
        (replace(SCOPE, vault=KEY[:16]), Kind.COMMIT, KEYS, 7),
        (replace(SCOPE, group=KEY[16:]), Kind.COMMIT, KEYS, 7),
    ):
        with pytest.raises(DamagedObject, match="index key") as caught:
            open_body(scope, kind, keys, number, stored, "the object")
        assert caught.value.subject == "the object"


def test_a_bodys_associated_data_are_the_documented_ones() -> None:
    found = sealing.body_aad(SCOPE, Kind.COMMIT, 3, 7)
    assert found == (
        b"backstay body 1".ljust(24, b"\0")
        + bytes(16)
        + bytes(range(16))
        + b"\5"
        + (3).to_bytes(4, "little")
        + (7).to_bytes(8, "little")
    )


def claims(size: int) -> bytes:
    """The head of a zstd frame that claims to expand to ``size`` bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"


@pytest.mark.parametrize(
    "bomb",
    [
        claims(sealing.MAX_PLAIN + 1),
        claims(1 << 62),
        claims((1 << 64) - 3),
        zstandard.ZstdCompressor().compress(bytes(1001)),
        without_size(b"plain"),
        b"",
        b"\x28\xb5\x2f\xfd",
        b"no zstd at all",
    ],
)
def test_what_claims_too_much_is_not_expanded(bomb: bytes) -> None:
    limit = 1000 if len(bomb) > 16 else sealing.MAX_PLAIN
    with pytest.raises(DamagedObject) as caught:
        sealing.expand(bomb, limit, "the object")
    assert caught.value.subject == "the object"


@given(st.binary(max_size=200))
def test_random_bytes_expand_to_damage(data: bytes) -> None:
    with pytest.raises(DamagedObject):
        sealing.expand(data, 1000, "the object")
    with contextlib.suppress(DamagedObject):
        sealing.expand(b"\x28\xb5\x2f\xfd" + data, 1000, "the object")


def test_an_empty_body_is_one() -> None:
    assert sealing.expand(zstandard.ZstdCompressor().compress(b""), 0, "the object") == b""


def test_a_body_that_no_reader_takes_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_PLAIN", 10)
    with pytest.raises(ValueError, match="COMMIT"):
        seal_body(SCOPE, Kind.COMMIT, KEYS, 7, bytes(11), SeededEntropy("body"))


def test_keys_do_not_show_in_what_is_printed() -> None:
    assert KEY.hex()[:8] not in repr(KEYS)
    assert repr(KEY)[2:12] not in repr(KEYS)
