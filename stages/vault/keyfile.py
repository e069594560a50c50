"""The files a person keeps: private key (sealed with a passphrase) and public key with pins.

Both are JSON. The private file holds an Ed25519 seed (operator) and an X25519 secret (recipient)
under Argon2id and the pins of the vaults it opens (R15); the pins are the associated data of the
seal, so they cannot be changed without the passphrase.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from stages.crypto.aead import CIPHERS, OpenFailed
from stages.crypto.box import BoxSecret
from stages.crypto.passphrase import (
    MAX_MEMORY,
    MAX_OPS,
    MEMORY,
    OPS,
    SALT_SIZE,
    stretch,
)
from stages.crypto.sign import Signer
from stages.errors import KeyFailure, UnknownVersion, WrongPassphrase
from stages.ports import Entropy
from stages.vault.charter import ID_SIZE, Pin

VERSION = 1
MAX_SIZE = 1 << 20
MAX_PINS = 1000
_CIPHER = CIPHERS["xchacha20poly1305"]  # opens on machines without AES instructions
_PRIVATE = "private key"
_PUBLIC = "public key"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What may be handed out. ``pins``: the vaults whose trust this file carries."""

    name: str
    operator: bytes
    recipient: bytes
    pins: tuple[Pin, ...] = ()

    def pinned(self, pin: Pin) -> PublicKey:
        """The same with ``pin`` in place of any older pin of that vault."""
        return replace(self, pins=_with_pin(self.pins, pin))


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An opened private key."""

    name: str
    signer: Signer
    box: BoxSecret
    pins: tuple[Pin, ...] = ()

    @property
    def public(self) -> PublicKey:
        """The public half, with the same pins."""
        return PublicKey(self.name, self.signer.public, self.box.public, self.pins)

    def pinned(self, pin: Pin) -> PrivateKey:
        """The same with ``pin`` in place of any older pin of that vault."""
        return replace(self, pins=_with_pin(self.pins, pin))


def generate(name: str, entropy: Entropy) -> PrivateKey:
    """A new operator's key pair."""
    return PrivateKey(name, Signer(entropy.token(32)), BoxSecret(entropy.token(32)))


def encode_public(key: PublicKey) -> bytes:
    """The public file."""
    return _dump(_public_fields(key, _PUBLIC))


def decode_public(data: bytes, subject: str) -> PublicKey:
    """Parse a public file. Raises ``KeyFailure`` or ``UnknownVersion``."""
    return _public(_parse(data, subject, _PUBLIC), subject)


def encode_private(key: PrivateKey, passphrase: str | None, entropy: Entropy) -> bytes:
    """The private file; ``passphrase`` None leaves it open (drills and tests)."""
    fields = _public_fields(key.public, _PRIVATE)
    secret = key.signer.seed + key.box.secret
    if passphrase is None:
        fields["kdf"] = None
        fields["secret"] = secret.hex()
        return _dump(fields)
    salt = entropy.token(SALT_SIZE)
    fields["kdf"] = {"name": "argon2id", "ops": OPS, "memory": MEMORY, "salt": salt.hex()}
    sealing = stretch(passphrase, salt, ops=OPS, memory=MEMORY)
    fields["secret"] = _CIPHER.seal(sealing, secret, _aad(fields), entropy).hex()
    return _dump(fields)


def needs_passphrase(data: bytes, subject: str) -> bool:
    """True if the private file is sealed."""
    return _parse(data, subject, _PRIVATE).get("kdf") is not None


def decode_private(data: bytes, passphrase: str | None, subject: str) -> PrivateKey:
    """Open a private file. Raises ``WrongPassphrase``, ``KeyFailure`` or ``UnknownVersion``."""
    fields = _parse(data, subject, _PRIVATE)
    public = _public(fields, subject)
    try:
        secret = bytes.fromhex(fields["secret"])
        if fields["kdf"] is not None:
            secret = _unseal(fields, secret, passphrase, subject)
    except (ValueError, TypeError, KeyError):
        raise _malformed(subject) from None
    if len(secret) != 64:
        raise _malformed(subject)
    key = PrivateKey(public.name, Signer(secret[:32]), BoxSecret(secret[32:]), public.pins)
    if (key.signer.public, key.box.public) != (public.operator, public.recipient):
        raise KeyFailure("its public and private halves do not belong together", subject=subject)
    return key


def _unseal(fields: dict[str, Any], sealed: bytes, passphrase: str | None, subject: str) -> bytes:
    kdf = fields["kdf"]
    ops, memory, salt = kdf["ops"], kdf["memory"], bytes.fromhex(kdf["salt"])
    bounded = 1 <= ops <= MAX_OPS and 8192 <= memory <= MAX_MEMORY and len(salt) == SALT_SIZE
    if kdf["name"] != "argon2id" or not bounded:
        raise _malformed(subject)
    if passphrase is None:
        raise WrongPassphrase("needs a passphrase", subject=subject)
    try:
        return _CIPHER.open(stretch(passphrase, salt, ops=ops, memory=memory), sealed, _aad(fields))
    except OpenFailed:
        raise WrongPassphrase(
            "the passphrase does not open this key, or the file was altered",
            operation="open key",
            subject=subject,
            hint="check keyboard layout and file; without the passphrase the key is lost",
        ) from None


def _aad(fields: dict[str, Any]) -> bytes:
    open_part = {name: value for name, value in fields.items() if name != "secret"}
    return json.dumps(open_part, sort_keys=True, separators=(",", ":")).encode()


def _public_fields(key: PublicKey, what: str) -> dict[str, Any]:
    return {
        "backstay": what,
        "version": VERSION,
        "name": key.name,
        "operator": key.operator.hex(),
        "recipient": key.recipient.hex(),
        "vaults": [
            {
                "id": pin.vault.hex(),
                "operator": pin.operator.hex(),
                "recipients": [recipient.hex() for recipient in pin.recipients],
                "generation": pin.generation,
            }
            for pin in key.pins
        ],
    }


def _public(fields: dict[str, Any], subject: str) -> PublicKey:
    try:
        pins = tuple(
            Pin(
                _exactly(entry["id"], ID_SIZE),
                _exactly(entry["operator"], 32),
                tuple(_exactly(recipient, 32) for recipient in entry["recipients"]),
                _generation(entry["generation"]),
            )
            for entry in _list(fields["vaults"])
        )
        return PublicKey(
            str(fields["name"]),
            _exactly(fields["operator"], 32),
            _exactly(fields["recipient"], 32),
            pins,
        )
    except (ValueError, TypeError, KeyError):
        raise _malformed(subject) from None


def _generation(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("generation")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_PINS:
        raise ValueError("list of vaults")
    return value


def _exactly(text: str, size: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError(f"{size} bytes expected")
    return value


def _parse(data: bytes, subject: str, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
        kind, version = fields["backstay"], fields["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _malformed(subject) from None
    if kind != what:
        raise KeyFailure(
            f"this is a Backstay {kind}, wanted is a {what}",
            operation="open key",
            subject=subject,
            hint="NAME.key is the private key, NAME.pub the public one",
        )
    if version != VERSION:
        raise UnknownVersion(
            f"key file version {version!r}, this program reads {VERSION}",
            operation="open key",
            subject=subject,
            hint="use the Backstay release that wrote it, or a newer one",
        )
    return dict(fields)


def _malformed(subject: str) -> KeyFailure:
    return KeyFailure(
        "this is not a Backstay key file, or it is damaged",
        operation="open key",
        subject=subject,
        hint="'backstay keygen' writes NAME.key (private) and NAME.pub (public)",
    )


def _dump(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"


def _with_pin(pins: tuple[Pin, ...], pin: Pin) -> tuple[Pin, ...]:
    others = [other for other in pins if other.vault != pin.vault]
    if len(others) >= MAX_PINS:
        raise KeyFailure(
            f"the key file knows {MAX_PINS} vaults already",
            operation="pin vault",
            hint="make another key with 'backstay keygen' for further vaults",
        )
    return (*others, pin)
