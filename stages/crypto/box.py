"""Sealed boxes: to a public key, openable only with its private half, the sender stays nameless.

The format is libsodium's ``crypto_box_seal``. Sealing is spelled out here so that the ephemeral
key comes from the Entropy port; opening is libsodium's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacl import bindings
from nacl.encoding import RawEncoder
from nacl.exceptions import CryptoError
from nacl.hash import blake2b

from stages.ports import Entropy


@dataclass(frozen=True)
class BoxSecret:
    """An X25519 private key; ``public`` names the recipient."""

    secret: bytes

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return bytes(bindings.crypto_scalarmult_base(self.secret))

    def open(self, sealed: bytes) -> bytes | None:
        """The plaintext, or None if it was not sealed to this key or was altered."""
        try:
            return bytes(bindings.crypto_box_seal_open(sealed, self.public, self.secret))
        except (CryptoError, TypeError, ValueError):
            return None

    def __repr__(self) -> str:
        return f"BoxSecret({self.public.hex()[:16]})"


def seal_to(recipient: bytes, plain: bytes, entropy: Entropy) -> bytes:
    """Seal ``plain`` to the X25519 public key ``recipient``."""
    public, secret = bindings.crypto_box_seed_keypair(entropy.token(32))
    nonce = blake2b(public + recipient, digest_size=24, encoder=RawEncoder)
    return bytes(public + bindings.crypto_box(plain, nonce, recipient, secret))
