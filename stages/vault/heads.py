"""Heads of many commits that follow each other, as columns: what a keeper reads whole logs by.

The same checks as commit by commit (``read_header``, the chain, the bodies' digests), for a
fraction of their time, as nothing is made for a single commit. It says yes or ``Odd``: what is odd
has to be read commit by commit, which finds out what is wrong with it, if anything is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import msgpack
import numpy as np
from blake3 import blake3

from stages.model import U8, U64, Bools, Ints
from stages.vault.commit import (
    FORMAT,
    FRAME_NUMBERS,
    GRADES,
    MAX_FRAMES,
    MAX_OBJECTS,
)
from stages.vault.container import (
    CONTEXT,
    HEAD_SIZE,
    MAGIC,
    MAX_BODY,
    MAX_HEADER,
    MAX_TAIL,
    PREFIX,
    VERSION,
    Kind,
)
from stages.vault.sealing import Scope
from stages.vault.terms import MAX_EPOCH

_NUMBERS = (
    "seq",
    "epoch",
    "stamp",
    "checkpoint",
    "machine",
    "first_frame",
    "frames",
    "last_consistent",
    "wall",
    "format",
)
_SEQ, _EPOCH, _STAMP, _CHECKPOINT, _MACHINE, _FIRST, _FRAMES, _LAST, _, _FORMAT = range(10)
_OTHERS = ("consistent", "grade", "previous", "body_digest", "tail_digest", "writer")
_TAKE = itemgetter(*_NUMBERS, *_OTHERS, "objects", "vault", "group")
_TYPES = (*[int] * len(_NUMBERS), bool, str, *[bytes] * 4, list, bytes, bytes)
_REF = itemgetter("number", "size", "digest")
_REF_TYPES = (int, int, bytes)
_N = len(_NUMBERS)


class Odd(Exception):
    """These commits have to be looked at one by one."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Commits (n,), consecutive. ``numbers`` (n, 10): fields of the headers. ``links`` (n, 32).

    ``objects`` (m, 3): row of the commit, number, size. ``raw``: the heads as they were read, in
    which the bodies, each the one that its header names, begin at ``bodies_at``. ``before``: the
    link that the first one follows.
    """

    numbers: Ints
    consistent: Bools
    links: U8
    objects: U64
    raw: Sequence[bytes]
    bodies_at: Sequence[int]
    before: bytes

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def seq(self) -> Ints:
        """Numbers of the commits."""
        return self.numbers[:, _SEQ]

    @property
    def epoch(self) -> Ints:
        """The epochs they were written in."""
        return self.numbers[:, _EPOCH]

    @property
    def stamp(self) -> Ints:
        """µs."""
        return self.numbers[:, _STAMP]

    @property
    def checkpoint(self) -> Ints:
        """The newest before each, or 0."""
        return self.numbers[:, _CHECKPOINT]

    @property
    def machine(self) -> Ints:
        """Numbers of the machine records in force."""
        return self.numbers[:, _MACHINE]

    @property
    def first_frame(self) -> Ints:
        """The first frame that each brings."""
        return self.numbers[:, _FIRST]

    @property
    def frames(self) -> Ints:
        """How many frames each brings."""
        return self.numbers[:, _FRAMES]

    def body(self, row: int) -> bytes:
        """The sealed body of one of them."""
        return self.raw[row][self.bodies_at[row] :]

    def link(self, row: int) -> bytes:
        """The link of one of them."""
        return bytes(self.links[row])

    def bare(self) -> Heads:
        """Without the bytes it was read from."""
        return replace(self, raw=(), bodies_at=())

    def objects_of(self) -> Ints:
        """How many data objects each names."""
        rows = self.objects[:, 0].astype(np.int64)
        return np.bincount(rows, minlength=len(self))

    def part(self, low: int, high: int) -> Heads:
        """Rows ``low`` to before ``high``."""
        own = self.objects[:, 0]
        objects = self.objects[(own >= np.uint64(low)) & (own < np.uint64(high))]
        objects = objects - np.array([low, 0, 0], np.uint64)
        return Heads(
            self.numbers[low:high],
            self.consistent[low:high],
            self.links[low:high],
            objects,
            self.raw[low:high],
            self.bodies_at[low:high],
            self.link(low - 1) if low else self.before,
        )


def read_heads(heads: Sequence[bytes], first: int, scope: Scope) -> Heads:
    """Read the commits ``first`` and on from their heads: prefix to body, nothing else.

    Proves that they follow each other and that each body is its header's. Not proved: the
    signature of the last, on which the trust in all of them rests. Raises ``Odd``.
    """
    try:
        rows = [_read(head, scope) for head in heads]
        numbers = np.array([row[0] for row in rows], np.int64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Odd(str(error)) from None  # msgpack's errors are ValueErrors
    links = [row[4] for row in rows]
    if any(row[2] != link for row, link in zip(rows[1:], links, strict=False)):
        raise Odd("a chain that does not hold")
    _check(numbers, first)
    objects = [(at, *ref) for at, row in enumerate(rows) for ref in row[3]]
    return Heads(
        numbers,
        np.array([row[1] for row in rows], np.bool_),
        np.frombuffer(b"".join(links), np.uint8).reshape(-1, 32),
        np.array(objects, np.uint64).reshape(-1, 3),
        heads,
        [row[5] for row in rows],
        rows[0][2],
    )


def _read(head: bytes, scope: Scope) -> tuple[Any, ...]:
    """Numbers, consistent, previous, objects, link and where the body begins, of one head."""
    magic, version, kind, zero, header_size, body_size, tail_size, zeros = PREFIX.unpack_from(head)
    if (magic, version, kind, zero, zeros) != (MAGIC, VERSION, Kind.COMMIT, 0, 0):
        raise Odd("not a commit")
    body_at = HEAD_SIZE + header_size
    if header_size > MAX_HEADER or body_size > MAX_BODY or tail_size > MAX_TAIL:
        raise Odd("sizes out of bounds")
    if len(head) != body_at + body_size:
        raise Odd("of another length")
    header = head[HEAD_SIZE:body_at]
    fields = msgpack.unpackb(header, raw=False, strict_map_key=True, use_list=True)
    values = _TAKE(fields)
    if tuple(map(type, values)) != _TYPES:
        raise Odd("a malformed field")
    consistent, grade, previous, body_digest, _, _, refs, vault, group = values[_N:]
    if (
        vault != scope.vault
        or group != scope.group
        or grade not in GRADES
        or len(previous) != 32
        or blake3(head[body_at:]).digest() != body_digest
    ):
        raise Odd("another's, or another body")
    prefix, signature = head[: PREFIX.size], head[PREFIX.size : HEAD_SIZE]
    link = blake3(b"".join((CONTEXT, prefix, header, signature))).digest()
    return values[:_N], consistent, previous, _refs(refs) if refs else (), link, body_at


def _refs(found: list[Any]) -> list[tuple[int, int]]:
    refs = [_REF(each) for each in found]
    if len(refs) > MAX_OBJECTS or any(tuple(map(type, each)) != _REF_TYPES for each in refs):
        raise Odd("malformed objects")
    if any(min(number, size) < 0 or len(name) != 32 for number, size, name in refs):
        raise Odd("objects out of range")
    if any(max(number, size) >> 63 for number, size, _ in refs):
        raise Odd("objects out of range")
    return [(number, size) for number, size, _ in refs]


def _check(numbers: Ints, first: int) -> None:
    """What holds for each header, and from one to the next."""
    seq, epoch = numbers[:, _SEQ], numbers[:, _EPOCH]
    frames = numbers[:, _FIRST] + numbers[:, _FRAMES]
    right = (
        (numbers >= 0).all()
        and (seq == np.arange(first, first + len(seq))).all()
        and (numbers[:, _FORMAT] == FORMAT).all()
        and (epoch >= 1).all()
        and (epoch <= MAX_EPOCH).all()
        and (numbers[:, _FRAMES] <= MAX_FRAMES).all()
        and (numbers[:, _FIRST] <= FRAME_NUMBERS).all()
        and (frames <= FRAME_NUMBERS).all()
        and (numbers[:, _LAST] < seq).all()
        and (numbers[:, _CHECKPOINT] < seq).all()
        and (np.diff(epoch) >= 0).all()
        and (np.diff(numbers[:, _STAMP]) > 0).all()
    )
    if not right:
        raise Odd("a header out of bounds")
