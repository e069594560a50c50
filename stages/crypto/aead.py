"""Authenticated encryption: AEGIS-256, or XChaCha20-Poly1305 where AES instructions are missing.

Both take random nonces: 256 bits for AEGIS-256, 192 bits for XChaCha20, so no counter has to
survive a crash. libsodium is called with memory that is used again and again: PyNaCl's own
functions clear a new buffer for each call, and two copies more are made of what is in it, all with
the interpreter's lock held. Measured on one core: 4,500 MB/s of AEGIS-256.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# What nacl.bindings itself calls; it lets go of the interpreter's lock.
from nacl._sodium import ffi as _ffi  # type: ignore[import-not-found]
from nacl._sodium import lib as _lib

from stages.ports import Buffer, Entropy

if _lib.sodium_init() < 0:  # without it there are no AES instructions: a hundredth of the speed
    raise ImportError("libsodium cannot be set up")

KEY_SIZE = 32
_SCRATCH = 1 << 20  # bytes of a buffer that is kept for the next call
_KEPT = 8

_spare: deque[bytearray] = deque(maxlen=_KEPT)  # its methods are atomic


class OpenFailed(Exception):
    """The ciphertext, its associated data or the key is not what was sealed."""


@contextmanager
def scratch(size: int) -> Iterator[memoryview]:
    """``size`` bytes with anything in them."""
    if size > _SCRATCH:
        yield memoryview(bytearray(size))
        return
    try:
        memory = _spare.pop()
    except IndexError:
        memory = bytearray(_SCRATCH)
    try:
        yield memoryview(memory)[:size]
    finally:
        _spare.append(memory)


@dataclass(frozen=True, slots=True)
class Cipher:
    """One algorithm. ``overhead`` is nonce plus tag, in bytes."""

    name: str
    nonce_size: int
    tag_size: int
    _encrypt: Callable[..., int]
    _decrypt: Callable[..., int]

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds."""
        return self.nonce_size + self.tag_size

    def seal(
        self, key: bytes, plain: Buffer, aad: bytes, entropy: Entropy, *, before: bytes = b""
    ) -> bytes:
        """Return ``before``, nonce and ciphertext with tag, joined."""
        nonce = entropy.token(self.nonce_size)
        source = _memory(plain)
        with scratch(len(source) + self.tag_size) as sealed:
            self._seal(key, nonce, source, aad, sealed)
            return b"".join((before, nonce, sealed))

    def open(self, key: bytes, sealed: Buffer, aad: bytes) -> bytes:
        """Undo ``seal`` or raise ``OpenFailed``."""
        with scratch(max(0, memoryview(sealed).nbytes - self.overhead)) as plain:
            self.open_into(key, sealed, aad, plain)
            return bytes(plain)

    def open_into(self, key: bytes, sealed: Buffer, aad: bytes, plain: memoryview) -> None:
        """As ``open``, into ``plain``: writable bytes, ``overhead`` fewer than are ``sealed``.

        What it holds after ``OpenFailed`` is of no use.
        """
        _check(key, KEY_SIZE)
        size = memoryview(sealed).nbytes
        if size < self.overhead:
            raise OpenFailed("too short")
        _check(plain, size - self.overhead)
        view = memoryview(sealed).cast("B")
        nonce, source = bytes(view[: self.nonce_size]), _memory(view[self.nonce_size :])
        into = _ffi.from_buffer("unsigned char[]", plain)
        if self._decrypt(into, _NONE, _NONE, source, len(source), aad, len(aad), nonce, key):
            raise OpenFailed("it does not verify")

    def _seal(self, key: bytes, nonce: bytes, source: Any, aad: bytes, sealed: memoryview) -> None:
        _check(key, KEY_SIZE)
        _check(nonce, self.nonce_size)
        into = _ffi.from_buffer("unsigned char[]", sealed)
        if self._encrypt(into, _NONE, source, len(source), aad, len(aad), _NONE, nonce, key):
            raise ValueError(f"{len(source)} bytes are too much for {self.name}")


_NONE: Any = _ffi.NULL


def _memory(data: Buffer) -> Any:
    """As libsodium takes it."""
    return _ffi.from_buffer("unsigned char[]", memoryview(data).cast("B"))


def _check(value: Buffer, size: int) -> None:
    """libsodium reads or writes that many bytes, whatever there is."""
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes in the place of {size}")


CIPHERS: dict[str, Cipher] = {
    "aegis256": Cipher(
        "aegis256",
        32,
        32,
        _lib.crypto_aead_aegis256_encrypt,
        _lib.crypto_aead_aegis256_decrypt,
    ),
    "xchacha20poly1305": Cipher(
        "xchacha20poly1305",
        24,
        16,
        _lib.crypto_aead_xchacha20poly1305_ietf_encrypt,
        _lib.crypto_aead_xchacha20poly1305_ietf_decrypt,
    ),
}
