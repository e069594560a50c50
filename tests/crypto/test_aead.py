"""Both ciphers against published vectors, and what does not open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crypto.aead import CIPHERS, KEY_SIZE, Cipher, OpenFailed
from tests.vault.support import SeededEntropy

BOTH = pytest.mark.parametrize("cipher", CIPHERS.values(), ids=list(CIPHERS))
KEY = bytes(range(KEY_SIZE))


class Given:
    """Entropy that is given."""

    def __init__(self, value: bytes):
        self.value = value

    def token(self, size: int) -> bytes:
        assert size == len(self.value)
        return self.value


def test_aegis256_as_published() -> None:
    """First vector of draft-irtf-cfrg-aegis-aead, with the tag of 256 bits."""
    key = bytes.fromhex("1001" + "00" * 30)
    nonce = bytes.fromhex("100002" + "00" * 29)
    sealed = CIPHERS["aegis256"].seal(key, bytes(16), b"", Given(nonce))
    assert sealed[:32] == nonce
    assert sealed[32:48].hex() == "754fc3d8c973246dcc6d741412a4b236"
    assert sealed[48:].hex() == "1181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13"


def test_xchacha20poly1305_as_published() -> None:
    """The vector of draft-irtf-cfrg-xchacha, A.3.1."""
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    nonce = bytes(range(0x40, 0x58))
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    cipher = CIPHERS["xchacha20poly1305"]
    sealed = cipher.seal(bytes(range(0x80, 0xA0)), plain, aad, Given(nonce))
    assert sealed[:24] == nonce
    assert sealed[24:40].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


@BOTH
@settings(max_examples=30, deadline=None)
@given(plain=st.binary(max_size=5000), aad=st.binary(max_size=200))
def test_what_was_sealed_opens(cipher: Cipher, plain: bytes, aad: bytes) -> None:
    sealed = cipher.seal(KEY, plain, aad, SeededEntropy("nonce"))
    assert len(sealed) == len(plain) + cipher.overhead
    assert cipher.open(KEY, sealed, aad) == plain


@BOTH
def test_one_changed_bit_anywhere_and_it_does_not_open(cipher: Cipher) -> None:
    sealed = cipher.seal(KEY, b"content", b"place", SeededEntropy("nonce"))
    for bit in range(8 * len(sealed)):
        other = bytearray(sealed)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OpenFailed):
            cipher.open(KEY, bytes(other), b"place")


@BOTH
def test_another_key_place_or_length_does_not_open(cipher: Cipher) -> None:
    sealed = cipher.seal(KEY, b"content", b"place", SeededEntropy("nonce"))
    with pytest.raises(OpenFailed):
        cipher.open(bytes(KEY_SIZE), sealed, b"place")
    with pytest.raises(OpenFailed):
        cipher.open(KEY, sealed, b"another place")
    for size in range(len(sealed)):
        with pytest.raises(OpenFailed):
            cipher.open(KEY, sealed[:size], b"place")


@BOTH
def test_memory_of_another_size_is_not_written_to(cipher: Cipher) -> None:
    sealed = cipher.seal(KEY, b"content", b"place", SeededEntropy("nonce"))
    exact = bytearray(7)
    cipher.open_into(KEY, sealed, b"place", memoryview(exact))
    assert exact == b"content"
    for size in (0, 6, 8):
        other = bytearray(size)
        with pytest.raises(ValueError, match="in the place of"):
            cipher.open_into(KEY, sealed, b"place", memoryview(other))
        assert other == bytes(size)


@BOTH
def test_every_seal_draws_a_nonce_of_its_own(cipher: Cipher) -> None:
    entropy = SeededEntropy("nonces")
    sealed = [cipher.seal(KEY, b"same", b"", entropy) for _ in range(100)]
    assert len({each[: cipher.nonce_size] for each in sealed}) == 100
