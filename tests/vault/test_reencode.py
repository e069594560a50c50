"""Decoded and encoded again, every golden object has the bytes it had."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import pytest
import zstandard

from stages.crypto.sign import Signer
from stages.model import U64, Frame
from stages.recover.opened import Group
from stages.vault import checkpoint, frame, layout, records, rollup, terms
from stages.vault.charter import decode, encode
from stages.vault.checkpoint import COLUMNS, DIGESTS, FRAMES, MAP, PAGE_ROWS, PageName
from stages.vault.commit import decode_body, encode_body, read_header
from stages.vault.container import Container, Kind, build, parse
from stages.vault.keyfile import (
    decode_private,
    decode_public,
    encode_private,
    encode_public,
)
from stages.vault.sealing import Scope, open_body
from tests.vault.build_golden import NAMES, PASSPHRASE
from tests.vault.support import People, SeededEntropy
from tests.vault.test_golden import golden, opened

EACH = pytest.mark.parametrize("name", NAMES)
SAME_ZSTD = {name: golden(name)[1] == zstandard.ZSTD_VERSION for name in NAMES}


class Recalled:
    """Gives the nonce that was drawn the first time."""

    def __init__(self, sealed: bytes, scope: Scope):
        self.nonce = sealed[: scope.cipher.nonce_size]

    def token(self, size: int) -> bytes:
        assert size == len(self.nonce)
        return self.nonce


def objects(name: str, part: str) -> Iterator[tuple[str, bytes]]:
    return ((key, data) for key, data in golden(name)[0].objects.items() if part in key)


def daemon(name: str) -> Signer:
    return People.of(f"golden {name}", name).daemon


def taken(key: str, data: bytes, kind: Kind) -> tuple[Container, bytes, bytes]:
    found = parse(data, key, kind)
    return found, data[found.body_at : found.tail_at], data[found.tail_at :]


@EACH
def test_key_files(name: str) -> None:
    made = golden(name)[0].objects
    second = decode_private(made["keys/second.key"], None, "second.key")
    assert encode_private(second, None, SeededEntropy("")) == made["keys/second.key"]
    public = decode_public(made["keys/operator.pub"], "operator.pub")
    assert encode_public(public) == made["keys/operator.pub"]


@EACH
def test_charters(name: str) -> None:
    made = golden(name)[0].objects
    key = decode_private(made["keys/operator.key"], PASSPHRASE, "operator.key")
    for place in (layout.VAULT, layout.charter(2)):
        assert encode(decode(made[place], place), key.signer) == made[place]


@EACH
@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("/group", Kind.GROUP),
        ("/machine/", Kind.MACHINE),
        ("/term", Kind.TERM),
        ("/for/", Kind.WRAPPED_KEY),
        ("/log/", Kind.COMMIT),
        ("/manifest", Kind.MANIFEST),
    ],
)
def test_containers(name: str, part: str, kind: Kind) -> None:
    count = 0
    for key, data in objects(name, part):
        if part == "/group" and not key.endswith(part):
            continue
        found, body, tail = taken(key, data, kind)
        header = msgpack.unpackb(data[96 : found.body_at])
        fields = {
            field: value
            for field, value in header.items()
            if field not in ("writer", "body_digest", "tail_digest")
        }
        assert b"".join(build(kind, fields, daemon(name), body, (tail,))) == data
        count += 1
    assert count


@EACH
async def test_groups_and_terms(name: str) -> None:
    scope = (await opened(name)).scope
    for key, data in objects(name, "/group"):
        if key.endswith("/group"):
            record = records.read_group(parse(data, key, Kind.GROUP))
            assert b"".join(records.group_object(scope, record, daemon(name))) == data
    for key, data in objects(name, "/term"):
        header = parse(data, key, Kind.TERM).header
        term = terms.Term(header.number("epoch"), header.raw("writer"), header.number("created"))
        assert b"".join(terms.term_object(scope, term, daemon(name))) == data


@EACH
async def test_machine_records(name: str) -> None:
    group = await opened(name)
    for key, data in objects(name, "/machine/"):
        found, body, _ = taken(key, data, Kind.MACHINE)
        keys = await group.ring.keys(found.header.number("epoch"))
        record = records.read_machine(found, group.scope, keys, body)
        again = records.machine_object(
            group.scope, keys, record, daemon(name), Recalled(body, group.scope)
        )
        assert not SAME_ZSTD[name] or b"".join(again) == data


@EACH
async def test_commits(name: str) -> None:
    group = await opened(name)
    for key, data in objects(name, "/log/"):
        found, body, tail = taken(key, data, Kind.COMMIT)
        header = read_header(found, group.scope, int(key[-15:]))
        parts = build(Kind.COMMIT, header.fields(group.scope), daemon(name), body, (tail,))
        assert b"".join(parts) == data
        keys = await group.ring.keys(header.epoch)
        plain = open_body(group.scope, Kind.COMMIT, keys, header.seq, body, key)
        assert encode_body(decode_body(plain, header, key)) == plain


@EACH
def test_rollups(name: str) -> None:
    for key, data in objects(name, "/rollups/"):
        heads = rollup.decode(data, key)
        assert b"".join(rollup.encode(heads)) == data
        for head, (_, commit) in zip(heads, objects(name, "/log/"), strict=False):
            assert commit.startswith(head)


@EACH
async def test_frames(name: str) -> None:
    group = await opened(name)
    keys = await group.ring.keys(1)
    ((key, data),) = objects(name, "/data/0")
    at = 0
    while at < len(data):
        head = frame.read_head(data[at:], key)
        stored = data[at : at + 24 + head.sealed]
        _, content = frame.unseal(group.scope, keys.data or b"", 1, head.number, stored, key)
        again = frame.seal(
            group.scope,
            keys.data or b"",
            1,
            head.number,
            Frame(head.codec, head.blocks, content),
            Recalled(stored[24:], group.scope),
        )
        assert again == stored
        at += len(stored)


@EACH
async def test_checkpoints(name: str) -> None:
    group = await opened(name)
    for key, data in objects(name, "/manifest"):
        found, body, _ = taken(key, data, Kind.MANIFEST)
        keys = await group.ring.keys(found.header.number("epoch"))
        manifest = checkpoint.read_manifest(found, group.scope, keys, body)
        again = checkpoint.manifest_object(
            group.scope, keys, manifest, daemon(name), Recalled(body, group.scope)
        )
        assert not SAME_ZSTD[name] or b"".join(again) == data
        for disk in manifest.disks:
            await check_pages(group, name, MAP, disk.number, disk.blocks, disk.map)
            await check_pages(group, name, DIGESTS, disk.number, disk.blocks, disk.digests)
        for epoch in manifest.epochs:
            await check_pages(group, name, FRAMES, epoch.epoch, epoch.frames, epoch.table)


async def check_pages(
    group: Group, name: str, what: int, owner: int, rows: int, table: U64
) -> None:
    for page, (seq, place, length) in enumerate(table.tolist()):
        if not length:
            continue
        part = layout.checkpoint_part(group.scope.group, seq, place >> checkpoint.OFFSET_BITS)
        offset = place & ((1 << checkpoint.OFFSET_BITS) - 1)
        stored = golden(name)[0].objects[part][offset : offset + length]
        keys = await group.ring.keys(checkpoint.page_epoch(stored, part))
        exact = PageName(what, owner, page, seq)
        content = checkpoint.open_page(group.scope, keys, exact, stored, part)
        assert content.shape == (PAGE_ROWS, COLUMNS[what])
        here = content[: rows - page * PAGE_ROWS]
        again = checkpoint.seal_page(
            group.scope, keys, exact, here, Recalled(stored[32:], group.scope)
        )
        assert not SAME_ZSTD[name] or again == stored
