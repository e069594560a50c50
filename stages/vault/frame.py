"""Frames: up to 64 blocks, compressed, sealed, self-describing (FORMAT.md, "Frame").

====  ====  =========================================
from  size  field
====  ====  =========================================
0     4     magic ``BFRM``
4     1     format version
5     1     codec: 0 raw, 1 zstd
6     2     blocks
8     4     epoch
12    4     frame number within the epoch
16    4     sealed length: nonce, ciphertext, tag
20    4     zero
24          sealed content
====  ====  =========================================

The clear header is associated data together with vault and group, so a frame moved elsewhere
(repacking) still opens, and a frame put in another's place does not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from stages.crypto.aead import OpenFailed, scratch
from stages.errors import DamagedObject
from stages.model import BLOCK, FRAME_BLOCKS, Frame
from stages.ports import Buffer, Entropy
from stages.vault.sealing import Scope

HEADER = struct.Struct("<4sBBHIIII")
MAGIC = b"BFRM"
VERSION = 1
RAW, ZSTD = 0, 1
MOST = FRAME_BLOCKS * BLOCK  # bytes of content
_AAD = b"backstay frame 1"


@dataclass(frozen=True, slots=True)
class FrameHead:
    """A frame's clear header."""

    codec: int
    blocks: int
    epoch: int
    number: int
    sealed: int


def seal(
    scope: Scope, key: bytes, epoch: int, number: int, frame: Frame, entropy: Entropy
) -> bytes:
    """The stored form of ``frame``."""
    sealed_size = len(frame.data) + scope.cipher.overhead
    head = HEADER.pack(MAGIC, VERSION, frame.codec, frame.blocks, epoch, number, sealed_size, 0)
    return scope.cipher.seal(key, frame.data, _aad(scope, head), entropy, before=head)


def read_head(data: Buffer, subject: str) -> FrameHead:
    """Parse a clear header; raises ``DamagedObject``."""
    if len(data) < HEADER.size:
        raise DamagedObject("frame cut short", subject=subject)
    magic, version, codec, blocks, epoch, number, sealed, zero = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or zero or codec > ZSTD:
        raise DamagedObject("not a frame", subject=subject)
    if not 1 <= blocks <= FRAME_BLOCKS or sealed > 2 * FRAME_BLOCKS * BLOCK:
        raise DamagedObject("frame sizes out of bounds", subject=subject)
    return FrameHead(codec, blocks, epoch, number, sealed)


def unseal(
    scope: Scope, key: bytes, epoch: int, number: int, stored: Buffer, subject: str
) -> tuple[FrameHead, bytes]:
    """Check and decrypt frame ``number`` of ``epoch``: its head and still compressed content."""
    head = _head_of(epoch, number, stored, subject)
    with scratch(max(0, head.sealed - scope.cipher.overhead)) as plain:
        _decrypt(scope, key, head, stored, plain, subject)
        return head, bytes(plain)


def unpack_into(
    scope: Scope,
    key: bytes,
    epoch: int,
    number: int,
    stored: Buffer,
    subject: str,
    decompressor: zstandard.ZstdDecompressor,
    room: memoryview,
) -> int:
    """``unseal`` and ``expand``, the blocks to the beginning of ``room``, which has place for
    ``MOST`` bytes; how many they are. What is there after ``DamagedObject`` is of no use."""
    head = _head_of(epoch, number, stored, subject)
    size, packed = head.blocks * BLOCK, head.sealed - scope.cipher.overhead
    if head.codec == RAW and packed == size:
        _decrypt(scope, key, head, stored, room[:size], subject)
        return size
    with scratch(max(0, packed)) as plain:
        _decrypt(scope, key, head, stored, plain, subject)
        _expand_into(head, plain, decompressor, subject, room[:size])
    return size


def expand(
    head: FrameHead, content: bytes, decompressor: zstandard.ZstdDecompressor, subject: str
) -> bytes:
    """The blocks: exactly ``head.blocks`` * 4096 bytes. The decompressor belongs to one thread."""
    size = head.blocks * BLOCK
    if head.codec == ZSTD:
        try:
            if zstandard.frame_content_size(content) != size:
                raise DamagedObject("frame of another size", subject=subject)
            content = decompressor.decompress(content, max_output_size=size)
        except zstandard.ZstdError as error:
            raise DamagedObject(f"frame does not expand: {error}", subject=subject) from None
    if len(content) != size:
        raise DamagedObject("frame of another size", subject=subject)
    return content


def _head_of(epoch: int, number: int, stored: Buffer, subject: str) -> FrameHead:
    """The head of what is stored, if it is that of a whole frame of this name."""
    head = read_head(stored, subject)
    if (head.epoch, head.number) != (epoch, number):
        raise DamagedObject(
            f"frame {head.epoch}/{head.number} in the place of {epoch}/{number}", subject=subject
        )
    if len(stored) != HEADER.size + head.sealed:
        raise DamagedObject("frame cut short", subject=subject)
    return head


def _decrypt(
    scope: Scope, key: bytes, head: FrameHead, stored: Buffer, plain: memoryview, subject: str
) -> None:
    view = memoryview(stored)
    clear, sealed = bytes(view[: HEADER.size]), view[HEADER.size :]
    try:
        scope.cipher.open_into(key, sealed, _aad(scope, clear), plain)
    except OpenFailed:
        what = f"frame {head.epoch}/{head.number} does not open"
        raise DamagedObject(what, subject=subject) from None


def _expand_into(
    head: FrameHead,
    content: memoryview,
    decompressor: zstandard.ZstdDecompressor,
    subject: str,
    blocks: memoryview,
) -> None:
    """``blocks``: as many bytes as the head says. With place for all of it, zstd expands a frame
    there at once, without a copy."""
    try:
        if head.codec == RAW or zstandard.frame_content_size(content) != len(blocks):
            raise DamagedObject("frame of another size", subject=subject)
        got = decompressor.stream_reader(content).readinto(blocks)
    except zstandard.ZstdError as error:
        raise DamagedObject(f"frame does not expand: {error}", subject=subject) from None
    if got != len(blocks):
        raise DamagedObject("frame of another size", subject=subject)


def _aad(scope: Scope, head: bytes) -> bytes:
    return _AAD + scope.vault + scope.group + head
