"""Keys, passphrases, recipients: rows of the table."""

from __future__ import annotations

import json

from stages.system import SystemEntropy
from stages.vault.keyfile import encode_public, generate
from tests.faults import tamper
from tests.faults.row import Row
from tests.faults.tamper import OPERATOR, SECOND, STRANGER
from tests.faults.world import ACCESS, PASSPHRASE, World

_VAULT = ACCESS[:2]


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
    fields["vaults"][0]["generation"] = 7
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
    Row(
        "wrong passphrase",
        _wrong_passphrase,
        4,
        sees=(
            "backstay: open key: sealed.key: the passphrase does not open this key, or the "
            "file was altered"
        ),
        hint="check keyboard layout and file; without the passphrase the key is lost",
    ),
    Row(
        "passphrase needed, no terminal",
        _no_terminal,
        2,
        sees="backstay: a passphrase is needed and there is no terminal to ask for it",
        hint="set BACKSTAY_PASSPHRASE, or run this on a terminal",
    ),
    Row(
        "sealed key file altered",
        _altered_pin,
        4,
        sees=(
            "backstay: open key: sealed.key: the passphrase does not open this key, or the "
            "file was altered"
        ),
        hint="check keyboard layout and file; without the passphrase the key is lost",
    ),
    Row(
        "key file missing",
        _no_key_file,
        4,
        sees=(
            "backstay: open key: lost.key: the private key cannot be read: No such file or "
            "directory"
        ),
        hint="give the path of a file that 'backstay keygen' made",
    ),
    Row(
        "key file is something else",
        _garbage_key,
        4,
        sees=("backstay: open key: garbage.key: this is not a Backstay key file, or it is damaged"),
        hint="'backstay keygen' writes NAME.key (private) and NAME.pub (public)",
    ),
    Row(
        "public key given for the private one",
        _public_for_private,
        4,
        sees=("backstay: open key: op.pub: this is a Backstay public key, wanted is a private key"),
        hint="NAME.key is the private key, NAME.pub the public one",
    ),
    Row(
        "key file of a newer version",
        _newer_key,
        5,
        sees="backstay: open key: newer.key: key file version 2, this program reads 1",
        hint="use the Backstay release that wrote it, or a newer one",
    ),
    Row(
        "key of someone else",
        _unpinned,
        4,
        sees="backstay: open vault: file:./vault: this key file does not know vault {vault}",
        hint=(
            "give the trust file written by 'backstay init' with --trust, if this vault is "
            "the right one"
        ),
    ),
    Row(
        "key of someone else, vault trusted by file",
        _no_recipient,
        4,
        sees="backstay: open vault: file:./vault: this key is not a recipient of the vault",
        hint="use the private key of one of the recipients shown by 'backstay vault check'",
    ),
    Row(
        "drill with a key that is no recipient",
        _drill_stranger,
        4,
        sees="backstay: open vault: file:./vault: this key is not a recipient of the vault",
        hint="use the private key of one of the recipients shown by 'backstay vault check'",
    ),
    Row(
        "admit by a recipient who is not the operator",
        _admit_by_second,
        4,
        sees="backstay: admit: file:./vault: only the vault's operator can admit writers",
        hint="use the private key that 'backstay init' was given",
    ),
    Row(
        "admit something that is no key",
        _admit_nonsense,
        2,
        sees="backstay: admit: me: not a signing key: 64 hex digits are needed",
        hint="the run that was refused says which key it needs",
    ),
    Row(
        "init, second recipient missing",
        _no_second,
        2,
        sees="backstay: init: file:./new: a second recipient is needed",
        hint="--recipient OTHER.pub, or --single-recipient if one key is really enough",
    ),
    Row(
        "init, second recipient is the operator",
        _second_is_the_same,
        2,
        sees="backstay: init: op: the second recipient is the same key",
        hint="make another with 'backstay keygen', on another machine, by another person",
    ),
    Row(
        "init, second recipient's file damaged",
        _second_garbage,
        4,
        sees="backstay: open key: cut.pub: this is not a Backstay key file, or it is damaged",
        hint="'backstay keygen' writes NAME.key (private) and NAME.pub (public)",
    ),
    Row(
        "keygen over an existing key",
        _keygen_twice,
        2,
        sees="backstay: keygen: op.key: exists already",
        hint="choose another --out",
    ),
    Row(
        "keygen into a missing folder",
        _keygen_nowhere,
        2,
        sees=(
            "backstay: write key: no/such/folder/op.key: cannot be written: No such file or "
            "directory"
        ),
        hint="its folder must exist, be writable and have room",
    ),
)
