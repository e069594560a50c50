"""Ed25519 signatures."""

from __future__ import annotations

from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey


@dataclass(frozen=True)
class Signer:
    """A signing key; ``public`` is its 32-byte verify key, the signer's name everywhere."""

    seed: bytes

    @property
    def public(self) -> bytes:
        """The verify key."""
        return bytes(SigningKey(self.seed).verify_key)

    def sign(self, message: bytes) -> bytes:
        """A 64-byte signature."""
        return bytes(SigningKey(self.seed).sign(message).signature)

    def __repr__(self) -> str:
        return f"Signer({self.public.hex()[:16]})"


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """True if ``signature`` is ``public``'s over ``message``."""
    try:
        VerifyKey(public).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True
