"""Charters: every change by anyone but the operator is noticed, and so is every older charter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crypto.sign import Signer
from stages.errors import (
    BackstayError,
    DamagedObject,
    NotAVault,
    TrustMismatch,
    UnknownVersion,
    UsageError,
)
from stages.store.memory import MemoryStore
from stages.vault import charter as charters
from stages.vault import layout
from stages.vault.charter import Charter, Member, Pin, decode, encode, load
from tests.vault.support import People, put_charter

PEOPLE = People.of("charter")
FIRST = PEOPLE.charter
OPERATOR = PEOPLE.operator.signer
STRANGER = Signer(bytes(32))
MINE = Member(bytes(range(32)), "mine")


def outer() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(FIRST, OPERATOR))
    return found


async def vault(*chain: Charter) -> MemoryStore:
    store = MemoryStore()
    for each in chain:
        await put_charter(store, each, OPERATOR)
    return store


def test_a_charter_comes_back_as_it_was_signed() -> None:
    assert decode(encode(FIRST, OPERATOR), layout.VAULT) == FIRST


def test_what_is_signed_is_canonical() -> None:
    """The layout of the file does not matter, nor does the order of its fields."""
    fields = outer()
    message = json.dumps(fields["charter"], sort_keys=True, separators=(",", ":")).encode()
    assert bytes.fromhex(fields["signature"]) == OPERATOR.sign(b"backstay charter 1\0" + message)
    backwards = {
        "signature": fields["signature"],
        "charter": dict(reversed(fields["charter"].items())),
    }
    assert decode(json.dumps(backwards, indent=7).encode(), layout.VAULT) == FIRST


def test_names_may_be_in_any_script() -> None:
    named = replace(FIRST, recipients=(Member(bytes(32), 'Ärztin "石" 🗝'),))
    data = encode(named, OPERATOR)
    assert data.isascii()
    assert decode(data, layout.VAULT) == named


def _swap(fields: dict[str, Any]) -> None:
    fields["recipients"] = [{"key": STRANGER.public.hex(), "name": "operator"}]


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "vault": lambda fields: fields.update(vault=bytes(16).hex()),
    "operator": lambda fields: fields.update(operator=STRANGER.public.hex()),
    "generation": lambda fields: fields.update(generation=2),
    "cipher": lambda fields: fields.update(cipher="xchacha20poly1305"),
    "recipients swapped": _swap,
    "a recipient more": lambda fields: fields["recipients"].append(fields["writers"][0]),
    "a recipient less": lambda fields: fields["recipients"].pop(),
    "recipients in another order": lambda fields: fields["recipients"].reverse(),
    "a recipient's name": lambda fields: fields["recipients"][0].update(name="someone"),
    "a writer more": lambda fields: fields["writers"].append(fields["recipients"][0]),
    "no writers": lambda fields: fields.update(writers=[]),
    "a field more": lambda fields: fields.update(more=1),
    "a field of a member more": lambda fields: fields["writers"][0].update(more=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_changed_field_breaks_the_signature(
    change: Callable[[dict[str, Any]], object],
) -> None:
    fields = outer()
    change(fields["charter"])
    with pytest.raises(TrustMismatch):
        decode(json.dumps(fields).encode(), layout.VAULT)


@pytest.mark.parametrize("at", [0, 31, 63])
def test_a_changed_signature_does_not_verify(at: int) -> None:
    fields = outer()
    signature = bytearray.fromhex(fields["signature"])
    signature[at] ^= 1
    fields["signature"] = signature.hex()
    with pytest.raises(TrustMismatch):
        decode(json.dumps(fields).encode(), layout.VAULT)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_refused_before_its_fields_are_looked_at(version: object) -> None:
    data = json.dumps({"charter": {"format": version}, "signature": ""}).encode()
    with pytest.raises(UnknownVersion) as caught:
        decode(data, layout.VAULT)
    assert caught.value.hint


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"1", b'{"charter": 1}', b"\xff", b"[" * 100_000, b"<html>"]
)
def test_what_is_no_charter_is_no_vault(data: bytes) -> None:
    with pytest.raises(NotAVault):
        decode(data, layout.VAULT)
    with pytest.raises(DamagedObject):
        decode(data, layout.charter(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vault", "00"),
        ("vault", 7),
        ("operator", "zz" * 32),
        ("generation", 0),
        ("generation", True),
        ("generation", "1"),
        ("generation", 100_000_000),
        ("block_size", 512),
        ("cipher", "rot13"),
        ("cipher", []),
        ("recipients", {}),
        ("recipients", [1]),
        ("recipients", [{"key": "00" * 32}]),
        ("recipients", [{"key": "00" * 32, "name": 7}]),
        ("recipients", [{"key": "00" * 32, "name": "n" * 201}]),
        ("recipients", [{"key": "00" * 32, "name": ""}] * 1001),
        ("writers", [{"key": "00" * 31, "name": ""}]),
    ],
)
def test_fields_out_of_bounds_are_damage_even_if_signed(field: str, value: object) -> None:
    fields = outer()["charter"]
    fields[field] = value
    message = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    signature = OPERATOR.sign(b"backstay charter 1\0" + message)
    data = json.dumps({"charter": fields, "signature": signature.hex()}).encode()
    with pytest.raises(DamagedObject):
        decode(data, layout.VAULT)


@given(st.data())
def test_changed_bytes_are_an_error_of_ours_or_change_nothing(data: st.DataObject) -> None:
    encoded = bytearray(encode(FIRST, OPERATOR))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(encoded), layout.VAULT) == FIRST
    except BackstayError as error:
        assert error.subject == layout.VAULT


@pytest.mark.parametrize(
    "unfit",
    [
        replace(FIRST, writers=(MINE,) * 1001),
        replace(FIRST, writers=(Member(bytes(32), "n" * 201),)),
        replace(FIRST, cipher="rot13"),
        replace(FIRST, generation=0),
    ],
)
def test_a_charter_that_nobody_could_read_is_not_signed(unfit: Charter) -> None:
    """Its place could never be taken by a better one."""
    with pytest.raises(UsageError):
        encode(unfit, OPERATOR)


async def test_the_newest_charter_is_in_force() -> None:
    second = FIRST.with_writer(MINE)
    third = second.with_writer(Member(bytes(32), "third"))
    assert await load(await vault(FIRST), None) == FIRST
    assert await load(await vault(FIRST, second, third), None) == third
    assert third.admits(MINE.key)
    assert not FIRST.admits(MINE.key)


async def test_there_is_no_vault_without_its_charter() -> None:
    with pytest.raises(NotAVault, match="no vault here"):
        await load(MemoryStore(), None)


@pytest.mark.parametrize(
    "following",
    [
        replace(FIRST, generation=2, vault=bytes(16)),
        replace(FIRST, generation=2, cipher="xchacha20poly1305"),
        replace(FIRST, generation=3),
    ],
)
async def test_a_charter_must_follow_the_one_before(following: Charter) -> None:
    store = await vault(FIRST)
    await store.put(layout.charter(2), [encode(following, OPERATOR)])
    with pytest.raises(TrustMismatch):
        await load(store, None)


async def test_a_stranger_cannot_succeed_the_operator() -> None:
    store = await vault(FIRST)
    usurped = replace(FIRST.with_writer(MINE), operator=STRANGER.public)
    await store.put(layout.charter(2), [encode(usurped, STRANGER)])
    with pytest.raises(TrustMismatch):
        await load(store, None)


async def test_a_damaged_successor_is_damage_not_ignored() -> None:
    store = await vault(FIRST)
    await store.put(layout.charter(2), [b"{}"])
    with pytest.raises(DamagedObject) as caught:
        await load(store, None)
    assert caught.value.subject == layout.charter(2)


async def test_a_later_charter_in_the_place_of_the_first_is_noticed() -> None:
    store = MemoryStore()
    await store.put(layout.VAULT, [encode(FIRST.with_writer(MINE), OPERATOR)])
    with pytest.raises(TrustMismatch):
        await load(store, None)


async def test_a_charter_too_large_is_not_read() -> None:
    store = MemoryStore()
    await store.put(layout.VAULT, [encode(FIRST, OPERATOR), b" " * charters.MAX_SIZE, b"x"])
    assert await load(store, None) == FIRST  # only its first MiB was asked for


PIN = FIRST.pin()


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        (replace(PIN, vault=bytes(16)), "vault id"),
        (replace(PIN, operator=STRANGER.public), "operator"),
        (replace(PIN, recipients=PIN.recipients[:1]), "recipients"),
        (replace(PIN, recipients=(*PIN.recipients, STRANGER.public)), "recipients"),
        (replace(PIN, recipients=()), "recipients"),
        (replace(PIN, generation=2), "generation"),
    ],
)
async def test_what_is_pinned_must_match(pin: Pin, says: str) -> None:
    with pytest.raises(TrustMismatch, match=says) as caught:
        await load(await vault(FIRST), pin)
    assert caught.value.hint


async def test_a_pin_holds_for_later_charters_too() -> None:
    second = FIRST.with_writer(MINE)
    reordered = replace(PIN, recipients=PIN.recipients[::-1])
    assert await load(await vault(FIRST, second), reordered) == second


async def test_deleted_charters_are_noticed_by_who_has_seen_them() -> None:
    second = FIRST.with_writer(MINE)
    rolled_back = await vault(FIRST)
    with pytest.raises(TrustMismatch, match="generation"):
        await load(rolled_back, second.pin())
    assert await load(rolled_back, PIN) == FIRST  # nobody else can know
