"""Who may read and who may write: ``vault.json`` and the charters that succeed it (R15).

``vault.json`` is generation 1: vault id, block size, cipher, recipients, admitted writers, signed
by the operator. It is never replaced, because stores only promise create-only puts: a change is
the next numbered charter. The highest generation is in force. What config and key file pin must
match it, so a swapped recipient, a foreign operator or a rolled-back charter is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from stages.crypto.aead import CIPHERS
from stages.crypto.sign import Signer, verify
from stages.errors import (
    DamagedObject,
    NotAVault,
    ObjectMissing,
    TrustMismatch,
    UnknownVersion,
    UsageError,
)
from stages.model import BLOCK
from stages.store.port import ObjectStore
from stages.vault import layout

FORMAT = 1
ID_SIZE = 16
MAX_SIZE = 1 << 20
MAX_MEMBERS = 1000
MAX_NAME = 200
MAX_GENERATION = 99_999_999
_CONTEXT = b"backstay charter 1\0"


@dataclass(frozen=True, slots=True)
class Member:
    """A recipient (X25519) or a writer (Ed25519), by public key."""

    key: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Keeper:
    """One who may let old points go (R16): X25519 key that opens indexes, Ed25519 key that signs
    floors, holds and packs. Never told the keys of content."""

    key: bytes
    signer: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Pin:
    """What a config or a key file knows of a vault, never learnt from the vault itself."""

    vault: bytes
    operator: bytes
    recipients: tuple[bytes, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class Charter:
    """The vault's constitution at one generation."""

    vault: bytes
    operator: bytes
    generation: int
    cipher: str
    recipients: tuple[Member, ...]
    writers: tuple[Member, ...]
    keepers: tuple[Keeper, ...] = ()

    def pin(self) -> Pin:
        """What to remember of this charter."""
        keys = tuple(member.key for member in self.recipients)
        return Pin(self.vault, self.operator, keys, self.generation)

    def admits(self, writer: bytes) -> bool:
        """True if ``writer`` may write."""
        return any(member.key == writer for member in self.writers)

    def keeps(self, signer: bytes) -> bool:
        """True if what ``signer`` says of retention counts: the operator's or a keeper's."""
        return signer == self.operator or any(each.signer == signer for each in self.keepers)

    def with_keeper(self, keeper: Keeper) -> Charter:
        """The next generation, in which ``keeper`` is admitted too."""
        return replace(self, generation=self.generation + 1, keepers=(*self.keepers, keeper))

    def with_writer(self, writer: Member) -> Charter:
        """The next generation, in which ``writer`` is admitted too."""
        return replace(self, generation=self.generation + 1, writers=(*self.writers, writer))


def encode(charter: Charter, operator: Signer) -> bytes:
    """The signed JSON of a charter. ``UsageError`` if it is one that no reader would take."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "vault": charter.vault.hex(),
        "operator": charter.operator.hex(),
        "generation": charter.generation,
        "block_size": BLOCK,
        "cipher": charter.cipher,
        "recipients": [_member(member) for member in charter.recipients],
        "writers": [_member(member) for member in charter.writers],
    }
    if charter.keepers:
        fields["keepers"] = [
            {"key": each.key.hex(), "signer": each.signer.hex(), "name": each.name}
            for each in charter.keepers
        ]
    try:
        _from_fields(fields)
    except ValueError as error:
        raise UsageError(f"not a valid charter: {error}", operation="charter") from None
    signature = operator.sign(_CONTEXT + _canonical(fields))
    return json.dumps({"charter": fields, "signature": signature.hex()}, indent=1).encode()


def decode(data: bytes, key: str) -> Charter:
    """Parse and check the signature against the operator named inside (pins come after).

    Raises ``NotAVault`` if the first charter, at ``key``, is none, ``UnknownVersion``,
    ``DamagedObject``, ``TrustMismatch`` for a signature that is not the operator's.
    """
    try:
        outer = json.loads(data)
        fields, signature = outer["charter"], bytes.fromhex(outer["signature"])
        version = fields["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        if key != layout.VAULT:
            raise DamagedObject("this is not a charter", subject=key) from None
        raise NotAVault(
            "this is not the charter of a vault", subject=key, hint="is the URL right?"
        ) from None
    if version != FORMAT:
        raise UnknownVersion(
            f"vault format {version!r}, this program reads {FORMAT}",
            subject=key,
            hint="use the Backstay release that wrote this vault, or a newer one",
        )
    try:
        charter = _from_fields(fields)
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedObject(f"malformed charter: {error}", subject=key) from None
    if not verify(charter.operator, _CONTEXT + _canonical(fields), signature):
        raise TrustMismatch(
            "the operator's signature does not match: it was changed by someone else",
            subject=key,
            hint="restore the object from a copy; do not trust this vault's recipients",
        )
    return charter


async def load(store: ObjectStore, pin: Pin | None) -> Charter:
    """The charter in force, checked against ``pin``.

    Raises ``NotAVault``, ``UnknownVersion``, ``DamagedObject`` or ``TrustMismatch``.
    """
    try:
        data = await store.get(layout.VAULT, 0, MAX_SIZE)
    except ObjectMissing:
        raise NotAVault(
            "there is no vault here", subject=store.url, hint="'backstay init' makes one"
        ) from None
    charter = decode(data, layout.VAULT)
    if charter.generation != 1:
        raise TrustMismatch("a later charter is in its place", subject=layout.VAULT)
    while charter.generation < MAX_GENERATION:
        key = layout.charter(charter.generation + 1)
        try:
            following = decode(await store.get(key, 0, MAX_SIZE), key)
        except ObjectMissing:
            break
        _check_succession(charter, following, key)
        charter = following
    if pin is not None:
        check_pin(charter, pin, store.url)
    return charter


def check_pin(charter: Charter, pin: Pin, subject: str) -> None:
    """Raise ``TrustMismatch`` unless the vault is the pinned one, with the pinned recipients."""
    if charter.vault != pin.vault:
        what = f"vault id {charter.vault.hex()}, pinned is {pin.vault.hex()}"
        hint = "this is another vault: check the URL, or the trust and key files"
    elif charter.operator != pin.operator:
        what = "another operator's key than the pinned one"
        hint = "someone has put up a vault of their own here: do not use it"
    elif charter.generation < pin.generation:
        what = f"charter generation {charter.generation}, already seen {pin.generation}"
        hint = "newer charters were removed from the vault"
    elif sorted(m.key for m in charter.recipients) != sorted(pin.recipients):
        what = "other recipients than the pinned ones"
        hint = "if you changed them yourself, take the new trust file into the config"
    else:
        return
    raise TrustMismatch(what, operation="trust", subject=subject, hint=hint)


def _check_succession(before: Charter, after: Charter, key: str) -> None:
    same = (after.vault, after.operator, after.cipher) == (
        before.vault,
        before.operator,
        before.cipher,
    )
    if not same or after.generation != before.generation + 1:
        raise TrustMismatch("does not follow the charter before it", subject=key)


def _member(member: Member) -> dict[str, str]:
    return {"key": member.key.hex(), "name": member.name}


def _members(fields: Any) -> tuple[Member, ...]:
    if not isinstance(fields, list) or len(fields) > MAX_MEMBERS:
        raise ValueError(f"more than {MAX_MEMBERS} members, or none that can be read")
    return tuple(Member(_bytes(entry["key"], 32), _text(entry["name"])) for entry in fields)


def _from_fields(fields: dict[str, Any]) -> Charter:
    if fields["block_size"] != BLOCK or fields["cipher"] not in CIPHERS:
        raise ValueError("unknown block size or cipher")
    generation = fields["generation"]
    if type(generation) is not int or not 1 <= generation <= MAX_GENERATION:
        raise ValueError("generation out of bounds")
    return Charter(
        vault=_bytes(fields["vault"], ID_SIZE),
        operator=_bytes(fields["operator"], 32),
        generation=generation,
        cipher=fields["cipher"],
        recipients=_members(fields["recipients"]),
        writers=_members(fields["writers"]),
        keepers=_keepers(fields.get("keepers", [])),
    )


def _keepers(fields: Any) -> tuple[Keeper, ...]:
    members = _members(fields)
    signers = [_bytes(entry["signer"], 32) for entry in fields]
    return tuple(
        Keeper(member.key, signer, member.name)
        for member, signer in zip(members, signers, strict=True)
    )


def _bytes(text: str, size: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError(f"{size} bytes expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} characters")
    return value


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
