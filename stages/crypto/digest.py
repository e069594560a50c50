"""BLAKE3: object digests and key derivation."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from stages.ports import Buffer

SIZE = 32


def digest(parts: Iterable[Buffer]) -> bytes:
    """The 32-byte digest of the joined parts."""
    state = blake3()
    for part in parts:
        state.update(part)
    return state.digest()


def derive(context: str, key: bytes) -> bytes:
    """A 32-byte subkey of ``key`` for one purpose; ``context`` is a constant of the program."""
    return blake3(key, derive_key_context=context).digest()
