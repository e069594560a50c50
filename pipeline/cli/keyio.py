"""Reading and writing key files for commands, passphrases included."""

from __future__ import annotations

import os

from pipeline.cli.confirming import typed
from pipeline.cli.console import say
from stages import durable
from stages.errors import FORBIDDEN, FULL, BackstayError, KeyFailure, NoSpace, UsageError
from stages.ports import Machine
from stages.vault.charter import Pin
from stages.vault.keyfile import (
    MAX_SIZE,
    PrivateKey,
    PublicKey,
    decode_private,
    decode_public,
    encode_private,
    encode_public,
    needs_passphrase,
)

PASSPHRASE_VARIABLE = "BACKSTAY_PASSPHRASE"  # noqa: S105 - the name of it


def read_file(ports: Machine, path: str, what: str) -> bytes:
    """A key file's bytes. Raises ``KeyFailure``."""
    try:
        return ports.files.read(path, MAX_SIZE)
    except OSError as error:
        raise KeyFailure(
            f"the {what} cannot be read: {error.strerror}",
            operation="open key",
            subject=path,
            hint="only its owner may read it: give this command as that user, or as root"
            if error.errno in FORBIDDEN
            else "give the path of a file that 'backstay keygen' made",
        ) from None


def read_private(ports: Machine, path: str) -> tuple[PrivateKey, str | None]:
    """Open a private key, asking for its passphrase; returns the passphrase too.

    The passphrase comes from the terminal, or from the variable BACKSTAY_PASSPHRASE.
    """
    data = read_file(ports, path, "private key")
    passphrase = None
    if needs_passphrase(data, path):
        passphrase = os.environ.get(PASSPHRASE_VARIABLE)
        if passphrase is None:
            passphrase = ask(f"Passphrase of {path}", confirm=False)
    return decode_private(data, passphrase, path), passphrase


def read_public(ports: Machine, path: str) -> PublicKey:
    """A public key file."""
    return decode_public(read_file(ports, path, "public key"), path)


def trust_pins(ports: Machine, path: str | None) -> tuple[Pin, ...]:
    """The pins of an optional trust file."""
    return read_public(ports, path).pins if path else ()


def ask(prompt: str, *, confirm: bool) -> str:
    """A passphrase from the terminal. Raises ``UsageError`` where there is none."""
    if not os.isatty(0):
        raise UsageError(
            "a passphrase is needed and there is no terminal to ask for it",
            hint=f"set {PASSPHRASE_VARIABLE}, or run this on a terminal",
        )
    while True:
        answer = typed(prompt, hidden=True)
        if not answer:
            continue
        if not confirm or typed("Repeat for confirmation", hidden=True) == answer:
            return answer
        say("The two are not the same.")


def write_private(ports: Machine, path: str, key: PrivateKey, passphrase: str | None) -> None:
    """Replace a private key file atomically."""
    _replace(ports, path, encode_private(key, passphrase, ports.entropy))


def write_public(ports: Machine, path: str, key: PublicKey) -> None:
    """Replace a public key file atomically."""
    _replace(ports, path, encode_public(key))


def _replace(ports: Machine, path: str, data: bytes) -> None:
    try:
        durable.replace(ports.files, path, data, token=ports.entropy.token(8).hex())
    except OSError as error:
        kind: type[BackstayError] = NoSpace if error.errno in FULL else UsageError
        raise kind(
            f"cannot be written: {error.strerror}",
            operation="write key",
            subject=path,
            hint="its folder must exist, be writable and have room",
        ) from None
