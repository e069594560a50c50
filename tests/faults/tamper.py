"""Ways to spoil a vault or a state folder. Each one can be taken back by ``World.mend``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

from stages.crypto.sign import Signer
from stages.system import SystemEntropy
from stages.vault import charter as charters
from stages.vault.charter import Charter
from stages.vault.container import Kind, build, parse
from stages.vault.keyfile import PrivateKey, decode_private, encode_private
from tests.faults.world import PASSPHRASE, World

OPERATOR, SECOND, STRANGER = "op.key", "second.key", "stranger.key"


def change(world: World, name: str, data: bytes | None) -> None:
    """Put other bytes at a path, or nothing; ``mend`` brings the old ones back."""
    path = world.path(name)
    old = path.read_bytes() if path.is_file() else None
    world.undo.append(lambda: write(path, old))
    write(path, data)


def write(path: Path, data: bytes | None) -> None:
    """Put bytes at a path, or nothing."""
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def flip(world: World, name: str, offset: int) -> None:
    """Invert one byte; a negative ``offset`` counts from the end."""
    data = bytearray(world.path(name).read_bytes())
    data[offset] ^= 0xFF
    change(world, name, bytes(data))


def remove(world: World, name: str) -> None:
    """Take a file away."""
    assert world.path(name).is_file(), name
    change(world, name, None)


def move(world: World, source: str, target: str) -> None:
    """Rename a file or folder."""
    world.path(source).rename(world.path(target))
    world.undo.append(lambda: _back(world.path(target), world.path(source)))


def _back(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.rename(target)


def private(world: World, name: str) -> PrivateKey:
    """An unsealed private key of the world."""
    return decode_private(world.path(name).read_bytes(), None, name)


def seal_key(world: World, name: str = "sealed.key") -> None:
    """A copy of the operator's key, sealed with the passphrase."""
    data = encode_private(private(world, OPERATOR), PASSPHRASE, SystemEntropy())
    change(world, name, data)


def read_charter(world: World, name: str = "vault/vault.json") -> Charter:
    """A vault's charter."""
    return charters.decode(world.path(name).read_bytes(), name)


def recharter(world: World, edit: Callable[[Charter], Charter], signed_by: str) -> None:
    """Replace ``vault.json`` by an edited one with a good signature of ``signed_by``."""
    edited = edit(read_charter(world))
    change(world, "vault/vault.json", charters.encode(edited, private(world, signed_by).signer))


def rewrite_charter(world: World, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the fields of ``vault.json`` and leave the signature as it was."""
    outer = json.loads(world.path("vault/vault.json").read_bytes())
    edit(outer["charter"])
    change(world, "vault/vault.json", json.dumps(outer).encode())


def resign_charter(world: World, edit: Callable[[dict[str, Any]], None], signed_by: str) -> None:
    """Edit the fields of ``vault.json``, also to what this program never writes; sign them."""
    outer = json.loads(world.path("vault/vault.json").read_bytes())
    edit(outer["charter"])
    canonical = json.dumps(outer["charter"], sort_keys=True, separators=(",", ":")).encode()
    signature = private(world, signed_by).signer.sign(b"backstay charter 1\0" + canonical)
    change(world, "vault/vault.json", json.dumps(outer | {"signature": signature.hex()}).encode())


def with_recipients_of(world: World, *names: str) -> Callable[[Charter], Charter]:
    """An edit: other recipients."""
    members = tuple(
        charters.Member(private(world, name).box.public, private(world, name).name)
        for name in names
    )
    return lambda old: replace(old, recipients=members)


def stranger() -> Signer:
    """Someone whom nobody has admitted."""
    return Signer(bytes(range(32)))


def forge(world: World, source: str, target: str, fields: dict[str, Any], kind: Kind) -> None:
    """Write ``target`` after the model of ``source``, some fields changed, signed by a stranger."""
    data = world.path(source).read_bytes()
    model = parse(data, source, kind)
    header = msgpack.unpackb(data[96 : model.body_at], raw=False)
    for derived in ("writer", "body_digest", "tail_digest"):
        del header[derived]
    body, tail = data[model.body_at : model.tail_at], data[model.tail_at :]
    parts = build(kind, header | fields, stranger(), body, (tail,))
    change(world, target, b"".join(bytes(part) for part in parts))


def foreign_commit(world: World) -> str:
    """A stranger's commit after the newest one; its key."""
    newest, following = world.commit(world.tail), world.commit(world.tail + 1)
    previous = parse(world.path(newest).read_bytes(), newest, Kind.COMMIT)
    fields = {
        "seq": world.tail + 1,
        "previous": previous.digest,
        "stamp": previous.header.number("stamp") + 1_000_000,
    }
    forge(world, newest, following, fields, Kind.COMMIT)
    return following.removeprefix("vault/")


def foreign_term(world: World, epoch: int) -> str:
    """A stranger's term; its key."""
    target = world.object(f"epochs/{epoch:08d}/term")
    forge(world, world.object("epochs/00000001/term"), target, {"epoch": epoch}, Kind.TERM)
    return target.removeprefix("vault/")
