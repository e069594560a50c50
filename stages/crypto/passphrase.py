"""Keys from passphrases: Argon2id.

64 MiB and 4 passes: above the second recommended setting of RFC 9106 (64 MiB, 3 passes), about a
fifth of a second on one core, and small enough for a rescue system.
"""

from __future__ import annotations

from nacl.exceptions import RuntimeError as SodiumFailed
from nacl.pwhash import argon2id

from stages.errors import OutOfMemory

SALT_SIZE = 16
OPS = 4
MEMORY = 64 << 20
MAX_OPS = 16
MAX_MEMORY = 1 << 30


def stretch(passphrase: str, salt: bytes, *, ops: int = OPS, memory: int = MEMORY) -> bytes:
    """A 32-byte key from a passphrase (as UTF-8). The caller checks the limits of a file first.

    Raises ``OutOfMemory`` where ``memory`` bytes cannot be had.
    """
    try:
        return bytes(argon2id.kdf(32, passphrase.encode(), salt, opslimit=ops, memlimit=memory))
    except SodiumFailed:
        raise OutOfMemory(
            f"opening the key takes {memory >> 20} MiB of memory", operation="open key"
        ) from None
