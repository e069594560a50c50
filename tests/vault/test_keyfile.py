"""Key files: what goes in comes out, and only with the passphrase that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import BackstayError, KeyFailure, UnknownVersion, WrongPassphrase
from stages.vault import keyfile
from stages.vault.charter import Pin
from stages.vault.keyfile import (
    PrivateKey,
    decode_private,
    decode_public,
    encode_private,
    encode_public,
    generate,
    needs_passphrase,
)
from tests.vault.support import People, SeededEntropy

KEY = People.of("keyfile").operator
PIN = KEY.pins[0]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest work factor: 64 MiB and four passes take a fifth of a second each time."""
    monkeypatch.setattr(keyfile, "OPS", 1)
    monkeypatch.setattr(keyfile, "MEMORY", 8192)


def sealed(key: PrivateKey = KEY, passphrase: str | None = "secret") -> bytes:
    return encode_private(key, passphrase, SeededEntropy("file"))


def changed(data: bytes, change: Change) -> bytes:
    fields = json.loads(data)
    change(fields)
    return json.dumps(fields).encode()


@pytest.mark.parametrize("passphrase", ["secret", "", "gehé 石 🗝", "x" * 10_000, None])
def test_a_private_key_comes_back(passphrase: str | None) -> None:
    data = sealed(passphrase=passphrase)
    assert decode_private(data, passphrase, "a.key") == KEY
    assert needs_passphrase(data, "a.key") == (passphrase is not None)


def test_the_work_factor_is_the_documented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    fields = json.loads(sealed())
    assert fields["kdf"] | {"salt": ""} == {
        "name": "argon2id",
        "ops": 4,
        "memory": 64 << 20,
        "salt": "",
    }
    assert decode_private(sealed(), "secret", "a.key") == KEY


def test_a_public_key_comes_back_and_holds_no_secret() -> None:
    data = encode_public(KEY.public)
    assert decode_public(data, "a.pub") == KEY.public
    for secret in (KEY.signer.seed, KEY.box.secret):
        assert secret.hex() not in data.decode()
        assert secret.hex() not in sealed().decode()


@pytest.mark.parametrize("passphrase", ["Secret", "", "secret ", "x" * 1000])
def test_a_wrong_passphrase_is_told_as_such(passphrase: str) -> None:
    with pytest.raises(WrongPassphrase) as caught:
        decode_private(sealed(), passphrase, "a.key")
    assert (caught.value.subject, caught.value.exit_code) == ("a.key", 4)


def test_a_sealed_key_without_a_passphrase_is_told_as_such() -> None:
    with pytest.raises(WrongPassphrase, match="needs a passphrase"):
        decode_private(sealed(), None, "a.key")


OTHER_PIN = {"id": "00" * 16, "operator": "11" * 32, "recipients": [], "generation": 1}
TAMPERED: dict[str, Change] = {
    "a vault pinned instead": lambda fields: fields["vaults"].__setitem__(0, OTHER_PIN),
    "a vault pinned too": lambda fields: fields["vaults"].append(OTHER_PIN),
    "no vault pinned": lambda fields: fields["vaults"].clear(),
    "another operator pinned": lambda fields: fields["vaults"][0].update(operator="11" * 32),
    "a recipient pinned": lambda fields: fields["vaults"][0]["recipients"].append("11" * 32),
    "an older generation": lambda fields: fields["vaults"][0].update(generation=7),
    "another name": lambda fields: fields.update(name="someone"),
    "another operator": lambda fields: fields.update(operator="11" * 32),
    "another recipient": lambda fields: fields.update(recipient="11" * 32),
    "other salt": lambda fields: fields["kdf"].update(salt="11" * 16),
    "more passes": lambda fields: fields["kdf"].update(ops=2),
    "more memory": lambda fields: fields["kdf"].update(memory=16384),
    "a field more": lambda fields: fields.update(more=1),
    "other secret": lambda fields: fields.update(secret="00" * len(fields["secret"])),
    "no secret": lambda fields: fields.update(secret=""),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_what_was_altered_does_not_open(change: Change) -> None:
    with pytest.raises(WrongPassphrase):
        decode_private(changed(sealed(), change), "secret", "a.key")


MALFORMED: dict[str, Change] = {
    "no kdf": lambda fields: fields.pop("kdf"),
    "kdf of another kind": lambda fields: fields["kdf"].update(name="scrypt"),
    "too many passes": lambda fields: fields["kdf"].update(ops=17),
    "no passes": lambda fields: fields["kdf"].update(ops=0),
    "passes that are no number": lambda fields: fields["kdf"].update(ops="1"),
    "too much memory": lambda fields: fields["kdf"].update(memory=(1 << 30) + 1),
    "too little memory": lambda fields: fields["kdf"].update(memory=8191),
    "salt of another size": lambda fields: fields["kdf"].update(salt="00"),
    "kdf that is a list": lambda fields: fields.update(kdf=[]),
    "secret that is no hex": lambda fields: fields.update(secret="zz"),
    "secret that is a number": lambda fields: fields.update(secret=7),
    "short operator": lambda fields: fields.update(operator="11"),
    "vaults as text": lambda fields: fields.update(vaults="text"),
    "vaults as a map": lambda fields: fields.update(vaults={}),
    "too many vaults": lambda fields: fields.update(vaults=[OTHER_PIN] * 1001),
    "a vault that is a number": lambda fields: fields.update(vaults=[1]),
    "an endless generation": lambda fields: fields["vaults"][0].update(generation=float("inf")),
    "a generation below 1": lambda fields: fields["vaults"][0].update(generation=0),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_before_any_work(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **more: object) -> bytes:
        pytest.fail("asked for memory")

    data = changed(sealed(), change)
    monkeypatch.setattr(keyfile, "stretch", never)
    with pytest.raises(KeyFailure) as caught:
        decode_private(data, "secret", "a.key")
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"backstay": 1}'])
def test_what_is_no_key_file_is_told_as_such(data: bytes) -> None:
    for read in (decode_public, needs_passphrase, lambda d, s: decode_private(d, None, s)):
        with pytest.raises(KeyFailure) as caught:
            read(data, "a.key")
        assert caught.value.subject == "a.key"


def test_private_and_public_files_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(KeyFailure, match="this is a Backstay private key"):
        decode_public(sealed(), "a.key")
    with pytest.raises(KeyFailure, match="this is a Backstay public key"):
        decode_private(encode_public(KEY.public), None, "a.pub")


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_version_is_refused(version: object) -> None:
    data = changed(sealed(), lambda fields: fields.update(version=version))
    with pytest.raises(UnknownVersion):
        decode_private(data, "secret", "a.key")


def test_halves_must_belong_together_in_an_open_file_too() -> None:
    data = changed(sealed(passphrase=None), lambda fields: fields.update(operator="11" * 32))
    with pytest.raises(KeyFailure, match="halves"):
        decode_private(data, None, "a.key")


def test_a_pin_replaces_the_older_one_of_its_vault() -> None:
    newer, other = replace(PIN, generation=5), replace(PIN, vault=bytes(16))
    assert KEY.pinned(other).pinned(newer).pins == (other, newer)
    assert KEY.public.pinned(newer).pins == (newer,)


def test_a_key_file_never_grows_beyond_what_it_may_hold() -> None:
    pins = tuple(Pin(at.to_bytes(16), bytes(32), (), 1) for at in range(keyfile.MAX_PINS))
    full = replace(KEY, pins=pins)
    assert decode_private(sealed(full, None), None, "a.key") == full
    with pytest.raises(KeyFailure, match="1000 vaults"):
        full.pinned(PIN)
    assert len(full.pinned(replace(pins[3], generation=2)).pins) == keyfile.MAX_PINS


def test_generated_keys_differ() -> None:
    entropy = SeededEntropy("keys")
    one, other = generate("one", entropy), generate("other", entropy)
    secrets = {one.signer.seed, one.box.secret, other.signer.seed, other.box.secret}
    assert len(secrets) == 4


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_are_an_error_of_ours_or_change_nothing(data: st.DataObject) -> None:
    encoded = bytearray(sealed(passphrase=None))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        decode_private(bytes(encoded), None, "a.key")
    except BackstayError as error:
        assert error.subject == "a.key"
