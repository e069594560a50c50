"""Checkpoints: block map, digests and frame directories as sealed pages (FORMAT.md).

A page is 8,192 rows. A manifest lists for every page where it is: in a part of this checkpoint or
of an earlier one, or that all its rows hold one value. So a checkpoint stores only what changed.

Table rows (n, 3) uint64: checkpoint's seq; part << 24 | offset; stored length. A length of 0 means
a uniform page whose value is the second column (for digests: of the second half, the first is 0).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard

from stages.crypto.aead import OpenFailed
from stages.crypto.sign import Signer
from stages.errors import DamagedObject
from stages.model import MAX_DISKS, U64
from stages.ports import Buffer, Entropy
from stages.vault.codec import Fields, pack
from stages.vault.container import Container, Kind, build
from stages.vault.sealing import EpochKeys, Scope, expand, open_body, seal_body
from stages.vault.terms import MAX_EPOCH

PAGE_ROWS = 8192
MAP, DIGESTS, FRAMES = 1, 2, 3
COLUMNS = {MAP: 1, DIGESTS: 2, FRAMES: 2}
HEADER = struct.Struct("<4sBBHIIQII")
OFFSET_BITS = 24  # parts stay below 16 MiB
_MAGIC, _VERSION = b"BPAG", 1
_AAD = b"backstay page 1"
MAX_STORED = 2 * PAGE_ROWS * 16  # bytes of a stored page; zstd adds little to the largest


@dataclass(frozen=True, slots=True)
class PageName:
    """Which page: ``what`` MAP, DIGESTS or FRAMES; ``owner`` disk number or epoch."""

    what: int
    owner: int
    page: int
    seq: int


@dataclass(frozen=True, slots=True)
class DiskPages:
    """A disk's tables in a manifest."""

    number: int
    blocks: int
    map: U64
    digests: U64


@dataclass(frozen=True, slots=True)
class EpochPages:
    """An epoch's frame directory in a manifest: ``frames`` rows."""

    epoch: int
    frames: int
    table: U64


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint of the group at commit ``seq``, whose digest is ``link``."""

    seq: int
    link: bytes
    disks: tuple[DiskPages, ...]
    epochs: tuple[EpochPages, ...]


def seal_page(scope: Scope, keys: EpochKeys, name: PageName, rows: U64, entropy: Entropy) -> bytes:
    """The stored form of up to ``PAGE_ROWS`` rows (n, columns)."""
    content = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint64))
    if name.what == DIGESTS:
        content = rows
    packed = zstandard.ZstdCompressor(level=1).compress(content.astype("<u8").tobytes())
    sealed_size = len(packed) + scope.cipher.overhead
    head = _head(name, keys.epoch, sealed_size)
    return scope.cipher.seal(keys.index, packed, _aad(scope, head), entropy, before=head)


def page_epoch(stored: bytes, subject: str) -> int:
    """The epoch whose index key opens a stored page. Raises ``DamagedObject``."""
    if len(stored) < HEADER.size or stored[:4] != _MAGIC:
        raise DamagedObject("not a page", subject=subject)
    return int(HEADER.unpack_from(stored)[4])


def open_page(scope: Scope, keys: EpochKeys, name: PageName, stored: bytes, subject: str) -> U64:
    """The rows (8192, columns) of a stored page, checked to be the page ``name``.

    Rows that were not stored, because the disk ended before, are zero. Raises ``DamagedObject``.
    """
    head, sealed = stored[: HEADER.size], stored[HEADER.size :]
    bounded = HEADER.size <= len(stored) <= MAX_STORED
    if not bounded or head != _head(name, keys.epoch, len(sealed)):
        raise DamagedObject(f"not page {name.page} of {name.owner}", subject=subject)
    try:
        packed = scope.cipher.open(keys.index, sealed, _aad(scope, head))
    except OpenFailed:
        raise DamagedObject(f"page {name.page} does not open", subject=subject) from None
    columns = COLUMNS[name.what]
    raw = expand(packed, PAGE_ROWS * columns * 8, subject)
    if len(raw) % (columns * 8):
        raise DamagedObject(f"page {name.page} has another length", subject=subject)
    content = np.frombuffer(raw, "<u8").reshape(-1, columns)
    rows = np.zeros((PAGE_ROWS, columns), np.uint64)
    if name.what == DIGESTS:
        rows[: len(content)] = content
    else:
        np.cumsum(content, axis=0, dtype=np.uint64, out=rows[: len(content)])
    return rows


def manifest_object(
    scope: Scope, keys: EpochKeys, manifest: Manifest, signer: Signer, entropy: Entropy
) -> list[Buffer]:
    """The signed object whose presence completes a checkpoint."""
    plain = pack(
        {
            "disks": [
                {
                    "number": disk.number,
                    "blocks": disk.blocks,
                    "map": disk.map.astype("<u8").tobytes(),
                    "digests": disk.digests.astype("<u8").tobytes(),
                }
                for disk in manifest.disks
            ],
            "epochs": [
                {
                    "epoch": pages.epoch,
                    "frames": pages.frames,
                    "table": pages.table.astype("<u8").tobytes(),
                }
                for pages in manifest.epochs
            ],
        }
    )
    body = seal_body(scope, Kind.MANIFEST, keys, manifest.seq, plain, entropy)
    fields = scope.fields() | {
        "seq": manifest.seq,
        "link": manifest.link,
        "epoch": keys.epoch,
    }
    return build(Kind.MANIFEST, fields, signer, body)


def read_manifest(found: Container, scope: Scope, keys: EpochKeys, body: bytes) -> Manifest:
    """Open the body of a parsed container whose signer was checked."""
    seq = found.header.number("seq")
    sealed = found.check_body(body)
    plain = open_body(scope, Kind.MANIFEST, keys, seq, sealed, found.key)
    fields = Fields.decode(plain, found.key)
    disks = tuple(
        DiskPages(
            entry.number("number", MAX_DISKS - 1),
            entry.number("blocks", 1 << 48),
            entry.array("map", "<u8", 3),
            entry.array("digests", "<u8", 3),
        )
        for entry in fields.maps("disks", MAX_DISKS)
    )
    epochs = tuple(
        EpochPages(
            entry.number("epoch", MAX_EPOCH),
            entry.number("frames", 1 << 32),
            entry.array("table", "<u8", 3),
        )
        for entry in fields.maps("epochs", MAX_EPOCH)
    )
    manifest = Manifest(seq, found.header.raw("link", 32), disks, epochs)
    _check_tables(manifest, found.key)
    return manifest


def _check_tables(manifest: Manifest, key: str) -> None:
    tables = [(disk.map, disk.blocks) for disk in manifest.disks]
    tables += [(disk.digests, disk.blocks) for disk in manifest.disks]
    tables += [(pages.table, pages.frames) for pages in manifest.epochs]
    for table, rows in tables:
        if len(table) != -(-rows // PAGE_ROWS):
            raise DamagedObject("a page table has another length", subject=key)
        if (table[:, 0] > manifest.seq).any() or (table[:, 2] > MAX_STORED).any():
            raise DamagedObject("a page table is out of bounds", subject=key)


def _head(name: PageName, epoch: int, sealed: int) -> bytes:
    return HEADER.pack(
        _MAGIC, _VERSION, name.what, 0, epoch, sealed, name.seq, name.owner, name.page
    )


def _aad(scope: Scope, head: bytes) -> bytes:
    return _AAD + scope.vault + scope.group + head
