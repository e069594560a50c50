"""Files that describe themselves: every block says whose it is, where and of which generation.

A block's bytes all follow from (file, index, generation), so that one wrong byte is found. A
generation is the number of the operation that wrote it, and is never used twice.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

SIZE = 4096
INVALID, EMPTY = -1, 0  # instead of a generation: garbage; zeros
_HEAD = struct.Struct("<8sIIQ")
_MAGIC = b"STORMBLK"
_ZERO = bytes(SIZE)
TEMPORARY = ".tmp"


def block(file: int, index: int, generation: int) -> bytes:
    """One block of a file; half of them can be compressed."""
    head = _HEAD.pack(_MAGIC, file, index, generation)
    room = SIZE - len(head)
    if file % 2:
        return head + hashlib.shake_128(head).digest(room)
    short = hashlib.sha256(head).digest()
    return head + (short * (room // len(short) + 1))[:room]


def blocks(file: int, indices: Iterable[int], generation: int) -> bytes:
    """Neighbouring blocks of a file."""
    return b"".join(block(file, index, generation) for index in indices)


def generation_of(data: bytes, file: int, index: int) -> int:
    """What is written there; ``EMPTY``; or ``INVALID`` if it is not a whole block of that place."""
    if data == _ZERO:
        return EMPTY
    if len(data) != SIZE:
        return INVALID
    magic, _, _, generation = _HEAD.unpack_from(data)
    whole = magic == _MAGIC and data == block(file, index, generation)
    return int(generation) if whole else INVALID


def file_of(name: str) -> int:
    """The file that a name belongs to: ``folder/<file>.<count>``."""
    return int(name.rpartition("/")[2].partition(".")[0])


def read_tree(folder: Path) -> dict[str, tuple[int, ...]]:
    """The generations of all files below a folder, by name. Raises ``OSError``."""
    found = {}
    for path in sorted(folder.rglob("*.*")):
        name = str(path.relative_to(folder))
        data, file = path.read_bytes(), file_of(name)
        found[name] = tuple(
            generation_of(data[at : at + SIZE], file, at // SIZE)
            for at in range(0, len(data), SIZE)
        )
    return found
