"""Keys, passphrases, trust: rows of the table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from stages.system import SystemEntropy
from stages.vault import charter as charters
from stages.vault.keyfile import encode_public, generate
from tests.faults import tamper
from tests.faults.row import Row
from tests.faults.tamper import OPERATOR, SECOND, STRANGER
from tests.faults.world import ACCESS, PASSPHRASE, World, found

_VAULT = ACCESS[:2]
_RUN = ("run", "c.yaml", "--once", "--machine", "web1")
_RESTORE = ("restore", "web1", *ACCESS, "--to", "out")
_KEPT_BY_RUN = ("vault", "op.key", "op.pub", "root.img", "data.img", "state/writer.key")


def _points(key: str, *more: str) -> tuple[str, ...]:
    return ("points", "web1", *_VAULT, "--key", key, *more)


def _wrong_passphrase(world: World) -> tuple[str, ...]:
    tamper.seal_key(world)
    world.env["BACKSTAY_PASSPHRASE"] = "incorrect"
    return _points("sealed.key")


def _no_terminal(world: World) -> tuple[str, ...]:
    tamper.seal_key(world)
    return _points("sealed.key")


def _altered_pin(world: World) -> tuple[str, ...]:
    tamper.seal_key(world)
    fields = json.loads(world.path("sealed.key").read_bytes())
    fields["vaults"][0]["generation"] = 0
    tamper.change(world, "sealed.key", json.dumps(fields).encode())
    world.env["BACKSTAY_PASSPHRASE"] = PASSPHRASE
    return _points("sealed.key")


def _no_key_file(world: World) -> tuple[str, ...]:
    return _points("lost.key")


def _garbage_key(world: World) -> tuple[str, ...]:
    tamper.change(world, "garbage.key", b"\0\1\2 not a key")
    return _points("garbage.key")


def _public_for_private(world: World) -> tuple[str, ...]:
    return _points("op.pub")


def _newer_key(world: World) -> tuple[str, ...]:
    fields = json.loads(world.path(OPERATOR).read_bytes())
    tamper.change(world, "newer.key", json.dumps(fields | {"version": 2}).encode())
    return _points("newer.key")


def _unpinned(world: World) -> tuple[str, ...]:
    return _points(STRANGER)


def _no_recipient(world: World) -> tuple[str, ...]:
    return _points(STRANGER, "--trust", "op.pub")


def _trust_missing(world: World) -> tuple[str, ...]:
    tamper.remove(world, "op.pub")
    return _RUN


def _trust_garbage(world: World) -> tuple[str, ...]:
    tamper.change(world, "op.pub", b"{}")
    return _RUN


def _trust_of_another(world: World) -> tuple[str, ...]:
    tamper.change(world, "op.pub", world.path("stranger.pub").read_bytes())
    return _RUN


def _other_vault(world: World) -> None:
    """The operator's own other vault lies where this one should be."""
    other = found(world.path("other"))
    tamper.move(world, "vault", "moved")
    tamper.move(world, "other/vault", "vault")
    world.names["other"] = tamper.read_charter(other, "../vault/vault.json").vault.hex()


def _other_vault_run(world: World) -> tuple[str, ...]:
    _other_vault(world)
    return _RUN


def _other_vault_restore(world: World) -> tuple[str, ...]:
    _other_vault(world)
    return _RESTORE


def _other_operator(world: World) -> None:
    key = tamper.private(world, STRANGER)

    def edit(old: charters.Charter) -> charters.Charter:
        return replace(old, operator=key.signer.public)

    tamper.recharter(world, edit, STRANGER)


def _other_operator_run(world: World) -> tuple[str, ...]:
    _other_operator(world)
    return _RUN


def _other_operator_restore(world: World) -> tuple[str, ...]:
    _other_operator(world)
    return _RESTORE


def _recipients_unsigned(world: World) -> tuple[str, ...]:
    thief = tamper.private(world, STRANGER).box.public.hex()

    def edit(fields: dict[str, Any]) -> None:
        fields["recipients"][1]["key"] = thief

    tamper.rewrite_charter(world, edit)
    return _RUN


def _recipients_by_stranger(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR, STRANGER), STRANGER)
    return _RUN


def _recipients_by_operator(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR), OPERATOR)
    return _RUN


def _recipients_by_operator_restore(world: World) -> tuple[str, ...]:
    tamper.recharter(world, tamper.with_recipients_of(world, OPERATOR), OPERATOR)
    return _RESTORE


def _admit_and_roll_back(world: World) -> None:
    writer = tamper.stranger().public.hex()
    pinned = {name: world.path(name).read_bytes() for name in ("op.key", "op.pub")}
    for name, data in pinned.items():
        tamper.change(world, name, data)
    world.fine("vault", "admit", "file:./vault", "--key", "op.key", "--writer", writer)
    world.undo.append(world.path("vault/charters/00000002").unlink)
    tamper.remove(world, "vault/charters/00000002")


def _rolled_back_run(world: World) -> tuple[str, ...]:
    _admit_and_roll_back(world)
    return _RUN


def _rolled_back_restore(world: World) -> tuple[str, ...]:
    _admit_and_roll_back(world)
    return _RESTORE


def _check_with_nothing(world: World) -> tuple[str, ...]:
    return ("vault", "check", "file:./vault")


def _admit_by_second(world: World) -> tuple[str, ...]:
    writer = tamper.stranger().public.hex()
    pinned = tamper.private(world, SECOND).pinned(tamper.read_charter(world).pin())
    tamper.change(world, "second.pub", encode_public(pinned.public))
    key = json.loads(world.path(SECOND).read_bytes())
    key["vaults"] = json.loads(world.path("second.pub").read_bytes())["vaults"]
    tamper.change(world, SECOND, json.dumps(key).encode())
    return ("vault", "admit", "file:./vault", "--key", SECOND, "--writer", writer)


def _admit_nonsense(world: World) -> tuple[str, ...]:
    return ("vault", "admit", "file:./vault", "--key", OPERATOR, "--writer", "me")


def _second_is_the_same(world: World) -> tuple[str, ...]:
    return ("init", "file:./new", "--key", "op.key", "--recipient", "op.pub")


def _no_second(world: World) -> tuple[str, ...]:
    return ("init", "file:./new", "--key", "op.key")


def _second_garbage(world: World) -> tuple[str, ...]:
    key = generate("x", SystemEntropy())
    tamper.change(world, "cut.pub", encode_public(key.public)[:50])
    return ("init", "file:./new", "--key", "op.key", "--recipient", "cut.pub")


def _keygen_twice(world: World) -> tuple[str, ...]:
    return ("keygen", "--out", "op", "--no-passphrase")


def _keygen_nowhere(world: World) -> tuple[str, ...]:
    return ("keygen", "--out", "no/such/folder/op", "--no-passphrase")


def _drill_stranger(world: World) -> tuple[str, ...]:
    return ("key", "drill", *_VAULT, "--key", STRANGER, "--trust", "op.pub", "--state", "state")


ROWS = (
    Row("wrong passphrase", _wrong_passphrase, 4),
    Row("passphrase needed, no terminal", _no_terminal, 2),
    Row("sealed key file altered", _altered_pin, 4),
    Row("key file missing", _no_key_file, 4),
    Row("key file is something else", _garbage_key, 4),
    Row("public key given for the private one", _public_for_private, 4),
    Row("key file of a newer version", _newer_key, 5),
    Row("key of someone else", _unpinned, 4),
    Row("key of someone else, vault trusted by file", _no_recipient, 4),
    Row("drill with a key that is no recipient", _drill_stranger, 4),
    Row("trust file missing", _trust_missing, 4, kept=_KEPT_BY_RUN),
    Row("trust file damaged", _trust_garbage, 4, kept=_KEPT_BY_RUN),
    Row("trust file of another vault", _trust_of_another, 4, kept=_KEPT_BY_RUN),
    Row("another vault at the place, run", _other_vault_run, 4, kept=_KEPT_BY_RUN),
    Row("another vault at the place, restore", _other_vault_restore, 4),
    Row("vault signed by another operator, run", _other_operator_run, 4, kept=_KEPT_BY_RUN),
    Row("vault signed by another operator, restore", _other_operator_restore, 4),
    Row("recipients swapped, not signed", _recipients_unsigned, 4, kept=_KEPT_BY_RUN),
    Row("recipients swapped and signed by a stranger", _recipients_by_stranger, 4, kept=_KEPT_BY_RUN),
    Row("recipients changed by the operator, config pins the old", _recipients_by_operator, 4, kept=_KEPT_BY_RUN),
    Row("recipients changed by the operator, key pins the old", _recipients_by_operator_restore, 4),
    Row("charter rolled back, run", _rolled_back_run, 4, kept=_KEPT_BY_RUN),
    Row("charter rolled back, restore", _rolled_back_restore, 4),
    Row("vault check without key or trust file", _check_with_nothing, 2),
    Row("admit by a recipient who is not the operator", _admit_by_second, 4),
    Row("admit something that is no key", _admit_nonsense, 2),
    Row("init, second recipient missing", _no_second, 2),
    Row("init, second recipient is the operator", _second_is_the_same, 2),
    Row("init, second recipient's file damaged", _second_garbage, 4),
    Row("keygen over an existing key", _keygen_twice, 2),
    Row("keygen into a missing folder", _keygen_nowhere, 2),
)
