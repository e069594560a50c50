"""Checkpoints: pages bound to their place, tables bounded by what they describe."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crypto.aead import CIPHERS
from stages.crypto.sign import Signer
from stages.errors import DamagedObject
from stages.model import U64
from stages.vault import checkpoint
from stages.vault.checkpoint import (
    DIGESTS,
    FRAMES,
    MAP,
    PAGE_ROWS,
    DiskPages,
    EpochPages,
    Manifest,
    PageName,
    manifest_object,
    open_page,
    page_epoch,
    read_manifest,
    seal_page,
)
from stages.vault.codec import pack
from stages.vault.container import Kind, build, parse
from stages.vault.sealing import EpochKeys, Scope, seal_body
from tests.vault.support import SeededEntropy

SCOPE = Scope(bytes(16), bytes(range(16)), "aegis256")
KEYS = EpochKeys(3, None, bytes(range(32)))
SIGNER = Signer(bytes(32))
NAME = PageName(MAP, 1, 2, 77)
WORDS = st.integers(0, (1 << 64) - 1) | st.integers(0, 3)


def table(*rows: tuple[int, int, int]) -> U64:
    return np.array(rows, np.uint64).reshape(-1, 3)


def sealed(rows: U64, name: PageName = NAME, scope: Scope = SCOPE) -> bytes:
    return seal_page(scope, KEYS, name, rows, SeededEntropy("page"))


def column(*values: int) -> U64:
    return np.array(values, np.uint64).reshape(-1, 1)


@settings(max_examples=40)
@given(st.sampled_from([MAP, DIGESTS, FRAMES]), st.lists(st.tuples(WORDS, WORDS), max_size=50))
@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_page_comes_back_filled_up_with_zeros(
    cipher: str, what: int, pairs: list[tuple[int, int]]
) -> None:
    scope = replace(SCOPE, cipher_name=cipher)
    rows = np.array(pairs, np.uint64).reshape(-1, 2)[:, : checkpoint.COLUMNS[what]]
    name = replace(NAME, what=what)
    stored = sealed(rows, name, scope)
    assert page_epoch(stored, "the key") == 3
    found = open_page(scope, KEYS, name, stored, "the key")
    assert found.shape == (PAGE_ROWS, checkpoint.COLUMNS[what])
    assert found[: len(rows)].tolist() == rows.tolist()
    assert not found[len(rows) :].any()


def test_a_full_page_of_noise_fits() -> None:
    raw = SeededEntropy("rows").token(PAGE_ROWS * 16)
    rows = np.frombuffer(raw, "<u8").reshape(-1, 2).astype(np.uint64)
    name = replace(NAME, what=FRAMES)
    stored = sealed(rows, name)
    assert len(stored) <= checkpoint.MAX_STORED
    assert (open_page(SCOPE, KEYS, name, stored, "the key") == rows).all()


def test_the_layout_is_the_documented_one() -> None:
    stored = sealed(column(7, 9, 9, 8))
    assert stored[:32] == struct.pack(
        "<4sBBHIIQII", b"BPAG", 1, MAP, 0, 3, len(stored) - 32, 77, 1, 2
    )
    associated = b"backstay page 1" + bytes(16) + bytes(range(16)) + stored[:32]
    packed = SCOPE.cipher.open(KEYS.index, stored[32:], associated)
    steps = np.frombuffer(zstandard.decompress(packed), "<u8").tolist()
    assert steps == [7, 2, 0, (1 << 64) - 1]


def test_every_changed_bit_is_noticed() -> None:
    stored = sealed(column(7, 9))
    for bit in range(8 * len(stored)):
        other = bytearray(stored)
        other[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedObject) as caught:
            open_page(SCOPE, KEYS, NAME, bytes(other), "the key")
        assert caught.value.subject == "the key"


def test_every_truncation_is_noticed() -> None:
    stored = sealed(column(7, 9))
    for size in range(len(stored)):
        with pytest.raises(DamagedObject):
            open_page(SCOPE, KEYS, NAME, stored[:size], "the key")
    for size in range(32):
        with pytest.raises(DamagedObject):
            page_epoch(stored[:size], "the key")


def test_a_page_opens_in_its_own_place_only() -> None:
    stored = sealed(column(7, 9))
    for name in (
        replace(NAME, what=FRAMES),
        replace(NAME, owner=2),
        replace(NAME, page=3),
        replace(NAME, seq=78),
    ):
        with pytest.raises(DamagedObject):
            open_page(SCOPE, KEYS, name, stored, "the key")
    for scope in (replace(SCOPE, vault=bytes(range(16))), replace(SCOPE, group=bytes(16))):
        with pytest.raises(DamagedObject):
            open_page(scope, KEYS, NAME, stored, "the key")
    for keys in (replace(KEYS, epoch=4), replace(KEYS, index=bytes(32))):
        with pytest.raises(DamagedObject):
            open_page(SCOPE, keys, NAME, stored, "the key")


@pytest.mark.parametrize(
    ("what", "size"), [(MAP, 7), (FRAMES, 24), (MAP, PAGE_ROWS * 8 + 8), (FRAMES, PAGE_ROWS * 32)]
)
def test_pages_of_another_size_are_damage(what: int, size: int) -> None:
    name = replace(NAME, what=what)
    packed = zstandard.ZstdCompressor().compress(bytes(size))
    cipher = SCOPE.cipher
    head = struct.pack(
        "<4sBBHIIQII", b"BPAG", 1, what, 0, 3, len(packed) + cipher.overhead, 77, 1, 2
    )
    associated = b"backstay page 1" + bytes(16) + bytes(range(16)) + head
    stored = head + cipher.seal(KEYS.index, packed, associated, SeededEntropy("page"))
    with pytest.raises(DamagedObject):
        open_page(SCOPE, KEYS, name, stored, "the key")


MANIFEST = Manifest(
    seq=77,
    link=bytes(range(32)),
    disks=(
        DiskPages(0, 0, table(), table()),
        DiskPages(
            5, PAGE_ROWS + 1, table((77, 1 << 24, 99), (3, 1, 0)), table((0, 0, 0)).repeat(2, 0)
        ),
    ),
    epochs=(EpochPages(2, 3, table((77, 4096, 262144))),),
)


def made(manifest: Manifest) -> bytes:
    return b"".join(manifest_object(SCOPE, KEYS, manifest, SIGNER, SeededEntropy("manifest")))


def read(data: bytes) -> Manifest:
    found = parse(data, "the key", Kind.MANIFEST)
    return read_manifest(found, SCOPE, KEYS, data[found.body_at : found.tail_at])


def plain_of(manifest: Manifest) -> Any:
    return (
        manifest.seq,
        manifest.link,
        [(d.number, d.blocks, d.map.tolist(), d.digests.tolist()) for d in manifest.disks],
        [(e.epoch, e.frames, e.table.tolist()) for e in manifest.epochs],
    )


def test_a_manifest_comes_back() -> None:
    assert plain_of(read(made(MANIFEST))) == plain_of(MANIFEST)
    assert plain_of(read(made(Manifest(1, bytes(32), (), ())))) == (1, bytes(32), [], [])


ONE = table((77, 0, 9))


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(77, bytes(32), (DiskPages(0, 1, table(), ONE),), ()),
        Manifest(77, bytes(32), (DiskPages(0, 1, ONE, table()),), ()),
        Manifest(77, bytes(32), (DiskPages(0, PAGE_ROWS + 1, ONE, ONE),), ()),
        Manifest(77, bytes(32), (DiskPages(0, 1 << 48, ONE, ONE),), ()),
        Manifest(77, bytes(32), (), (EpochPages(1, PAGE_ROWS + 1, ONE),)),
        Manifest(77, bytes(32), (), (EpochPages(1, 1, table((78, 0, 9))),)),
        Manifest(77, bytes(32), (), (EpochPages(1, 1, table((77, 0, 262145))),)),
        Manifest(77, bytes(32), (DiskPages(4096, 1, ONE, ONE),), ()),
        Manifest(77, bytes(32), (), (EpochPages(1 << 24, 1, ONE),)),
    ],
)
def test_tables_that_do_not_fit_are_damage(manifest: Manifest) -> None:
    with pytest.raises(DamagedObject) as caught:
        read(made(manifest))
    assert caught.value.subject == "the key"


def test_every_changed_byte_of_a_body_is_noticed() -> None:
    data = made(MANIFEST)
    body_at = parse(data, "the key", Kind.MANIFEST).body_at
    for at in range(body_at, len(data)):
        with pytest.raises(DamagedObject):
            read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@given(st.binary(max_size=60))
def test_any_sealed_body_is_damage_or_a_manifest(plain: bytes) -> None:
    body = seal_body(SCOPE, Kind.MANIFEST, KEYS, 77, plain, SeededEntropy("manifest"))
    fields = SCOPE.fields() | {"seq": 77, "link": bytes(32), "epoch": 3}
    with pytest.raises(DamagedObject):
        read(b"".join(build(Kind.MANIFEST, fields, SIGNER, body)))


def test_a_manifest_without_epochs_is_damage() -> None:
    body = seal_body(SCOPE, Kind.MANIFEST, KEYS, 77, pack({"disks": []}), SeededEntropy("manifest"))
    fields = SCOPE.fields() | {"seq": 77, "link": bytes(32), "epoch": 3}
    with pytest.raises(DamagedObject, match="epochs"):
        read(b"".join(build(Kind.MANIFEST, fields, SIGNER, body)))
