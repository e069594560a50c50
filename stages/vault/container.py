"""The signed container around every metadata object (FORMAT.md, "Container").

====  ====  =======================================================
from  size  field
====  ====  =======================================================
0     4     magic ``BSTY``
4     1     format version
5     1     kind
6     2     zero
8     4     header length
12    4     body length
16    8     tail length
24    8     zero
32    64    Ed25519 signature over context, bytes 0 to 32 and header
96          header (msgpack), body (usually sealed), tail
====  ====  =======================================================

The header carries the digests of body and tail, so the signature covers every byte.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

from stages.crypto.digest import digest
from stages.crypto.sign import Signer, verify
from stages.errors import DamagedObject, UnknownVersion
from stages.ports import Buffer
from stages.vault.codec import Fields, pack

MAGIC = b"BSTY"
VERSION = 1
PREFIX = struct.Struct("<4sBBHIIQQ")
HEAD_SIZE = PREFIX.size + 64
MAX_HEADER = 1 << 20
MAX_BODY = 64 << 20
MAX_TAIL = 64 << 20
FIRST_READ = 16 << 10  # enough for the header of nearly every commit, in one get
CONTEXT = b"backstay signed object 1\0"


class Kind(enum.IntEnum):
    """What a container holds."""

    GROUP = 1
    MACHINE = 2
    TERM = 3
    WRAPPED_KEY = 4
    COMMIT = 5
    MANIFEST = 6
    FAILOVER = 7
    FLOOR = 8
    HOLD = 9
    PACK = 10
    LEASE = 11
    DELETION = 12


@dataclass(frozen=True, slots=True)
class Container:
    """A parsed object. ``signed`` is the byte string under the signature; body and tail unread."""

    key: str
    kind: Kind
    header: Fields
    signed: bytes
    signature: bytes
    header_size: int
    body_size: int
    tail_size: int

    @property
    def body_at(self) -> int:
        """Offset of the body in the object."""
        return HEAD_SIZE + self.header_size

    @property
    def tail_at(self) -> int:
        """Offset of the tail in the object."""
        return self.body_at + self.body_size

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self.tail_at + self.tail_size

    @property
    def head(self) -> bytes:
        """Prefix and header as they were read."""
        prefix, header = (
            self.signed[len(CONTEXT) :][: PREFIX.size],
            self.signed[-self.header_size :],
        )
        return prefix + self.signature + header

    @property
    def digest(self) -> bytes:
        """Names this object in the chain: it covers all bytes, by way of the header."""
        return digest([self.signed, self.signature])

    def signed_by(self, public: bytes) -> bool:
        """True if the signature is ``public``'s."""
        return verify(public, self.signed, self.signature)

    def check_body(self, body: bytes) -> bytes:
        """Return ``body`` if it is the one the header names, else raise ``DamagedObject``."""
        if len(body) != self.body_size or digest([body]) != self.header.raw("body_digest", 32):
            raise DamagedObject("the body is not the one that was signed", subject=self.key)
        return body


def build(
    kind: Kind,
    fields: dict[str, Any],
    signer: Signer,
    body: bytes = b"",
    tail: tuple[Buffer, ...] = (),
) -> list[Buffer]:
    """Make an object, as parts to be put without a join; the first part is prefix to body.

    Raises ``ValueError`` for more bytes than the format allows.
    """
    header = pack(
        fields
        | {"writer": signer.public, "body_digest": digest([body]), "tail_digest": digest(tail)}
    )
    tail_size = sum(len(part) for part in tail)
    if len(header) > MAX_HEADER or len(body) > MAX_BODY or tail_size > MAX_TAIL:
        raise ValueError(f"{kind.name}: larger than the format allows")
    prefix = PREFIX.pack(MAGIC, VERSION, kind, 0, len(header), len(body), tail_size, 0)
    signature = signer.sign(CONTEXT + prefix + header)
    return [b"".join((prefix, signature, header, body)), *tail]


def parse(data: bytes, key: str, kind: Kind) -> Container:
    """Read prefix and header from the first bytes of an object.

    Raises ``UnknownVersion``, or ``DamagedObject`` also when ``data`` is too short for the header
    (``header_reach`` says how much it takes). The signature is not checked here.
    """
    if len(data) < HEAD_SIZE:
        raise DamagedObject("cut short", subject=key)
    magic, version, found, zero, header_size, body_size, tail_size, zeros = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise DamagedObject("does not begin like a Backstay object", subject=key)
    if version != VERSION:
        raise UnknownVersion(
            f"format version {version}, this program reads {VERSION}",
            subject=key,
            hint="use the Backstay release that wrote this vault, or a newer one",
        )
    if found != kind or zero or zeros:
        raise DamagedObject(f"not a {kind.name.lower()} object", subject=key)
    if header_size > MAX_HEADER or body_size > MAX_BODY or tail_size > MAX_TAIL:
        raise DamagedObject("sizes out of bounds", subject=key)
    header = data[HEAD_SIZE : HEAD_SIZE + header_size]
    if len(header) != header_size:
        raise DamagedObject("cut short", subject=key)
    return Container(
        key=key,
        kind=kind,
        header=Fields.decode(header, key),
        signed=CONTEXT + data[: PREFIX.size] + header,
        signature=data[PREFIX.size : HEAD_SIZE],
        header_size=header_size,
        body_size=body_size,
        tail_size=tail_size,
    )


def header_reach(data: bytes) -> int:
    """How many bytes of the object hold prefix, header and body; bounded by the format's limits."""
    if len(data) < PREFIX.size:
        return HEAD_SIZE
    _, _, _, _, header_size, body_size, _, _ = PREFIX.unpack_from(data)
    return HEAD_SIZE + min(int(header_size), MAX_HEADER) + min(int(body_size), MAX_BODY)
