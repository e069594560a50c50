"""Rollups: headers and bodies of 256 commits in one object, so that reading needs fewer gets.

Magic ``BROL``, version, count, then the length of each commit's head (prefix to body), then the
heads. Each is signed and digested by itself, so the rollup needs no signature: it is a copy.
"""

from __future__ import annotations

import struct

from stages.errors import DamagedObject
from stages.ports import Buffer

SPAN = 256
MAX_SIZE = 256 << 20
_HEAD = struct.Struct("<4sBBHI")
_MAGIC, _VERSION = b"BROL", 1


def encode(heads: list[bytes]) -> list[Buffer]:
    """The parts of a rollup of ``SPAN`` commits, in order. ``ValueError`` for another number."""
    if len(heads) != SPAN:
        raise ValueError(f"a rollup holds {SPAN} commits, not {len(heads)}")
    sizes = struct.pack(f"<{SPAN}I", *(len(head) for head in heads))
    return [_HEAD.pack(_MAGIC, _VERSION, 0, 0, SPAN), sizes, *heads]


def decode(data: bytes, key: str) -> list[bytes]:
    """The heads, unchecked. Raises ``DamagedObject``."""
    if len(data) < _HEAD.size + 4 * SPAN or len(data) > MAX_SIZE:
        raise DamagedObject("not a rollup", subject=key)
    magic, version, zero, zeros, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or zero or zeros or count != SPAN:
        raise DamagedObject("not a rollup", subject=key)
    sizes = struct.unpack_from(f"<{SPAN}I", data, _HEAD.size)
    at = _HEAD.size + 4 * SPAN
    if at + sum(sizes) != len(data):
        raise DamagedObject("rollup of another length", subject=key)
    heads = []
    for size in sizes:
        heads.append(data[at : at + size])
        at += size
    return heads
