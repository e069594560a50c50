"""What a group's objects are sealed with: associated data and epoch keys (R18)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from stages.crypto.aead import CIPHERS, Cipher, OpenFailed
from stages.errors import DamagedObject
from stages.ports import Entropy
from stages.vault.container import Kind

_AAD = struct.Struct("<24s16s16sBIQ")
_BODY = b"backstay body 1"
MAX_PLAIN = 512 << 20


@dataclass(frozen=True, slots=True)
class Scope:
    """Which group of which vault, and the vault's cipher: bound into every seal."""

    vault: bytes
    group: bytes
    cipher_name: str

    @property
    def cipher(self) -> Cipher:
        """The vault's algorithm."""
        return CIPHERS[self.cipher_name]

    def fields(self) -> dict[str, bytes]:
        """The part of every signed header that says where the object belongs."""
        return {"vault": self.vault, "group": self.group}


@dataclass(frozen=True, repr=False, slots=True)
class EpochKeys:
    """The two keys of a term: frames, and metadata (R18). ``data`` is None for a keeper."""

    epoch: int
    data: bytes | None
    index: bytes


def body_aad(scope: Scope, kind: Kind, epoch: int, number: int) -> bytes:
    """Associated data of a sealed body: kind, vault, group, epoch, number."""
    return _AAD.pack(_BODY, scope.vault, scope.group, kind, epoch, number)


def seal_body(
    scope: Scope, kind: Kind, keys: EpochKeys, number: int, plain: bytes, entropy: Entropy
) -> bytes:
    """Compress and seal a metadata body. ``ValueError`` if no reader would take it."""
    if len(plain) > MAX_PLAIN:
        raise ValueError(f"{kind.name}: a body of {len(plain)} bytes")
    packed = zstandard.ZstdCompressor(level=1).compress(plain)
    aad = body_aad(scope, kind, keys.epoch, number)
    return scope.cipher.seal(keys.index, packed, aad, entropy)


def open_body(
    scope: Scope, kind: Kind, keys: EpochKeys, number: int, sealed: bytes, key: str
) -> bytes:
    """Undo ``seal_body``; ``DamagedObject`` names the object ``key``."""
    aad = body_aad(scope, kind, keys.epoch, number)
    try:
        packed = scope.cipher.open(keys.index, sealed, aad)
    except OpenFailed:
        raise DamagedObject("does not open with the epoch's index key", subject=key) from None
    return expand(packed, MAX_PLAIN, key)


def expand(
    packed: bytes, limit: int, key: str, tool: zstandard.ZstdDecompressor | None = None
) -> bytes:
    """Decompress, bounded: the size the data claims is checked before anything is allocated.

    ``tool`` is for those who expand many small ones: making it takes longer than its work. Raises
    ``DamagedObject`` naming ``key``.
    """
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= limit:
            raise DamagedObject("compressed size out of bounds", subject=key)
        tool = tool or zstandard.ZstdDecompressor()
        return tool.decompress(packed, max_output_size=max(1, size))
    except zstandard.ZstdError as error:
        raise DamagedObject(f"does not expand: {error}", subject=key) from None
