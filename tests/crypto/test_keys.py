"""Signatures, sealed boxes, digests and passphrases."""

from __future__ import annotations

import pytest
from blake3 import blake3
from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumFailed
from nacl.pwhash import argon2id

from stages.crypto import passphrase
from stages.crypto.box import BoxSecret, seal_to
from stages.crypto.digest import SIZE, derive, digest
from stages.crypto.sign import Signer, verify
from stages.errors import OutOfMemory
from tests.vault.support import SeededEntropy


def test_ed25519_as_published() -> None:
    """RFC 8032, 7.1, test 2."""
    seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    signer = Signer(bytes.fromhex(seed))
    assert signer.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = signer.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223eb")
    assert len(signature) == 64


def test_a_signature_is_for_one_message_by_one_key() -> None:
    signer, other = Signer(bytes(32)), Signer(bytes(range(32)))
    signature = signer.sign(b"message")
    assert verify(signer.public, b"message", signature)
    assert not verify(signer.public, b"massage", signature)
    assert not verify(other.public, b"message", signature)
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        assert not verify(signer.public, b"message", changed)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32])
def test_a_key_that_is_none_verifies_nothing(public: bytes) -> None:
    assert not verify(public, b"message", Signer(bytes(32)).sign(b"message"))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_signature_that_is_none_does_not_verify(signature: bytes) -> None:
    assert not verify(Signer(bytes(32)).public, b"message", signature)


def test_secrets_do_not_show_in_what_is_printed() -> None:
    secret = SeededEntropy("secret").token(32)
    shown = f"{Signer(secret)!r} {BoxSecret(secret)!r}"
    assert secret.hex()[:8] not in shown
    assert repr(secret)[2:10] not in shown


def test_a_sealed_box_opens_for_its_recipient_only() -> None:
    entropy = SeededEntropy("box")
    recipient, other = BoxSecret(entropy.token(32)), BoxSecret(entropy.token(32))
    sealed = seal_to(recipient.public, b"epoch key", entropy)
    assert len(sealed) == len(b"epoch key") + 48
    assert recipient.open(sealed) == b"epoch key"
    assert other.open(sealed) is None
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        assert recipient.open(changed) is None
    for size in range(len(sealed)):
        assert recipient.open(sealed[:size]) is None


def test_sealed_boxes_are_those_of_libsodium() -> None:
    entropy = SeededEntropy("box")
    recipient = BoxSecret(entropy.token(32))
    ours = seal_to(recipient.public, b"epoch key", entropy)
    theirs = bindings.crypto_box_seal(b"epoch key", recipient.public)
    assert bindings.crypto_box_seal_open(ours, recipient.public, recipient.secret) == b"epoch key"
    assert recipient.open(theirs) == b"epoch key"


def test_the_same_randomness_gives_the_same_box() -> None:
    public = BoxSecret(bytes(range(32))).public
    assert seal_to(public, b"key", SeededEntropy("a")) == seal_to(
        public, b"key", SeededEntropy("a")
    )
    assert seal_to(public, b"key", SeededEntropy("a")) != seal_to(
        public, b"key", SeededEntropy("b")
    )


def test_blake3_as_published() -> None:
    """The official vectors for no input, and for 1,025 bytes counting up to 250."""
    assert digest([]).hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    counted = bytes(at % 251 for at in range(1025))
    assert digest([counted]).hex() == (
        "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"
    )
    assert len(digest([b"x"])) == SIZE


def test_parts_are_digested_as_one() -> None:
    assert digest([b"ab", bytearray(b"c"), memoryview(b"")]) == blake3(b"abc").digest()


def test_subkeys_depend_on_key_and_purpose() -> None:
    assert derive("a", bytes(32)) == blake3(bytes(32), derive_key_context="a").digest()
    assert len({derive("a", bytes(32)), derive("b", bytes(32)), derive("a", bytes(31))}) == 3


def test_a_stretched_passphrase_depends_on_everything() -> None:
    salt = bytes(passphrase.SALT_SIZE)
    keys = {
        passphrase.stretch("a", salt, ops=1, memory=8192),
        passphrase.stretch("b", salt, ops=1, memory=8192),
        passphrase.stretch("a", b"\1" + salt[1:], ops=1, memory=8192),
        passphrase.stretch("a", salt, ops=2, memory=8192),
        passphrase.stretch("a", salt, ops=1, memory=16384),
    }
    assert len(keys) == 5
    assert {len(key) for key in keys} == {32}


def test_too_little_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **more: object) -> bytes:
        raise SodiumFailed("Unexpected failure in key derivation")

    monkeypatch.setattr(argon2id, "kdf", fails)
    with pytest.raises(OutOfMemory, match="64 MiB"):
        passphrase.stretch("a", bytes(16))
