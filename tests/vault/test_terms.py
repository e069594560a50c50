"""Terms: one winner for each epoch, keys for every recipient, nothing from strangers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from stages.crypto.box import BoxSecret, seal_to
from stages.crypto.sign import Signer
from stages.errors import (
    Damage,
    DamagedObject,
    MissingData,
    NotAdmitted,
    StoreError,
    WrongKey,
)
from stages.store.memory import MemoryStore
from stages.vault import layout
from stages.vault.charter import Member
from stages.vault.container import Kind, build, parse
from stages.vault.sealing import EpochKeys
from stages.vault.terms import (
    DATA,
    DIGEST,
    INDEX,
    MAX_EPOCH,
    KeyRing,
    Term,
    check_place,
    check_signer,
    claim,
    next_epoch,
    term_object,
    wrapped_object,
)
from tests.vault.support import START, People, SeededEntropy

PEOPLE = People.of("terms")
SCOPE = PEOPLE.scope()
OTHER = Signer(bytes(range(32)))
CHARTER = PEOPLE.charter.with_writer(Member(OTHER.public, "other"))
STRANGER = Signer(bytes(32))


async def claimed(store: MemoryStore, epoch: int, signer: Signer = PEOPLE.daemon) -> EpochKeys:
    keys = await claim(store, SCOPE, CHARTER, signer, SeededEntropy(f"{epoch}"), epoch, START)
    assert keys is not None
    return keys


def ring(store: MemoryStore, box: BoxSecret = PEOPLE.operator.box, **more: Any) -> KeyRing:
    return KeyRing(store, SCOPE, CHARTER, box, **more)


async def replaced(store: MemoryStore, key: str, *parts: Any) -> None:
    assert await store.delete(key)
    await store.put(key, parts)


async def test_every_recipient_opens_both_keys() -> None:
    store = MemoryStore()
    keys = await claimed(store, 1)
    assert keys.data != keys.index
    for person in (PEOPLE.operator, PEOPLE.second):
        assert await ring(store, person.box).keys(1) == keys
        assert await ring(store, person.box).writer(1) == PEOPLE.daemon.public


async def test_a_keeper_opens_the_index_key_only() -> None:
    store = MemoryStore()
    keys = await claimed(store, 1)
    assert await ring(store, uses=(INDEX,)).keys(1) == replace(keys, data=None)


async def test_an_epoch_has_one_winner() -> None:
    for seed in range(20):
        store = MemoryStore()
        won: list[Signer] = []

        async def run(
            signer: Signer, entropy: SeededEntropy, won: list[Signer] = won, store: Any = store
        ) -> None:
            if await claim(store, SCOPE, CHARTER, signer, entropy, 1, START) is not None:
                won.append(signer)

        async with trio.open_nursery() as nursery:
            for at, signer in enumerate((PEOPLE.daemon, OTHER, PEOPLE.daemon)):
                nursery.start_soon(run, signer, SeededEntropy(f"{seed} {at}"))
        assert len(won) == 1
        assert await ring(store).writer(1) == won[0].public
        assert await next_epoch(store, SCOPE.group, 0) == 2


async def test_the_loser_stores_nothing() -> None:
    store = MemoryStore()
    await claimed(store, 1)
    before = await store.page("")
    lost = await claim(store, SCOPE, CHARTER, OTHER, SeededEntropy("lost"), 1, START)
    assert lost is None
    assert await store.page("") == before


async def test_the_next_epoch_is_the_first_free_one() -> None:
    store = MemoryStore()
    assert await next_epoch(store, SCOPE.group, 0) == 1
    for epoch in (1, 2, 4):
        await claimed(store, epoch)
    assert await next_epoch(store, SCOPE.group, 0) == 3
    assert await next_epoch(store, SCOPE.group, 3) == 5


async def test_an_epoch_whose_keys_cannot_be_stored_is_not_used() -> None:
    """Else everything written in it could be read by nobody."""
    key = layout.wrapped_key(SCOPE.group, 1, PEOPLE.second.box.public, INDEX)
    store = MemoryStore()
    await store.put(key, [b"put there by someone else"])
    with pytest.raises(StoreError) as caught:
        await claimed(store, 1)
    assert caught.value.subject == key
    assert await next_epoch(store, SCOPE.group, 0) == 2


async def test_a_private_key_that_is_no_recipient_is_told_as_such() -> None:
    store = MemoryStore()
    await claimed(store, 1)
    with pytest.raises(WrongKey) as caught:
        await ring(store, BoxSecret(bytes(range(32)))).keys(1)
    assert caught.value.hint


async def test_what_is_missing_is_named() -> None:
    store = MemoryStore()
    with pytest.raises(MissingData) as caught:
        await ring(store).writer(1)
    assert caught.value.subject == layout.term(SCOPE.group, 1)
    await claimed(store, 1)
    key = layout.wrapped_key(SCOPE.group, 1, PEOPLE.operator.box.public, DATA)
    await store.delete(key)
    with pytest.raises(MissingData) as caught:
        await ring(store).data_key(1)
    assert caught.value.subject == key
    assert (await ring(store).keys(1)).data is None  # indexes can be read all the same
    await ring(store, PEOPLE.second.box).keys(1)  # the other recipient has not lost anything


async def test_a_term_of_a_stranger_is_nobodys() -> None:
    store = MemoryStore()
    term = Term(1, STRANGER.public, START)
    await store.put(layout.term(SCOPE.group, 1), term_object(SCOPE, term, STRANGER))
    with pytest.raises(NotAdmitted):
        await ring(store).writer(1)


async def test_the_operator_wraps_keys_but_holds_no_terms() -> None:
    store = MemoryStore()
    keys = await claimed(store, 1)
    operator, box = PEOPLE.operator.signer, PEOPLE.operator.box
    for use, secret in ((DATA, keys.data or b""), (INDEX, keys.index)):
        parts = wrapped_object(SCOPE, 1, use, secret, box.public, operator, SeededEntropy(use))
        await replaced(store, layout.wrapped_key(SCOPE.group, 1, box.public, use), *parts)
    assert await ring(store).keys(1) == keys
    term = term_object(SCOPE, Term(1, operator.public, START), operator)
    await replaced(store, layout.term(SCOPE.group, 1), *term)
    with pytest.raises(NotAdmitted):
        await ring(store).writer(1)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"use": INDEX},
        {"recipient": PEOPLE.second.box.public},
        {"recipient": b"short"},
        {"group": bytes(16)},
        {"vault": bytes(16)},
        {"use": 7},
    ],
)
async def test_a_wrapped_key_in_another_ones_place_is_damage(change: dict[str, object]) -> None:
    store = MemoryStore()
    await claimed(store, 1)
    box = PEOPLE.operator.box
    key = layout.wrapped_key(SCOPE.group, 1, box.public, DATA)
    fields = SCOPE.fields() | {"epoch": 1, "use": DATA, "recipient": box.public} | change
    body = seal_to(box.public, bytes(32), SeededEntropy("box"))
    await replaced(store, key, *build(Kind.WRAPPED_KEY, fields, PEOPLE.daemon, body))
    with pytest.raises(DamagedObject) as caught:
        await ring(store).data_key(1)
    assert caught.value.subject == key


@pytest.mark.parametrize(
    "body",
    [
        seal_to(PEOPLE.second.box.public, bytes(32), SeededEntropy("box")),
        seal_to(PEOPLE.operator.box.public, bytes(31), SeededEntropy("box")),
        seal_to(PEOPLE.operator.box.public, bytes(33), SeededEntropy("box")),
        b"",
        bytes(80),
    ],
)
async def test_a_wrapped_key_that_does_not_open_is_damage(body: bytes) -> None:
    store = MemoryStore()
    await claimed(store, 1)
    box = PEOPLE.operator.box
    key = layout.wrapped_key(SCOPE.group, 1, box.public, DATA)
    fields = SCOPE.fields() | {"epoch": 1, "use": DATA, "recipient": box.public}
    await replaced(store, key, *build(Kind.WRAPPED_KEY, fields, PEOPLE.daemon, body))
    with pytest.raises(DamagedObject):
        await ring(store).data_key(1)


async def test_a_changed_byte_of_a_key_object_is_noticed() -> None:
    store = MemoryStore()
    await claimed(store, 1)
    keys = [
        layout.term(SCOPE.group, 1),
        layout.wrapped_key(SCOPE.group, 1, PEOPLE.operator.box.public, INDEX),
    ]
    for key in keys:
        data = await store.get(key)
        for at in (0, 6, 9, 33, 100, 150, len(data) - 1):
            await replaced(store, key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            opened = ring(store)
            with pytest.raises(Damage):
                await opened.writer(1)
                await opened.keys(1)
        await replaced(store, key, data)
    await ring(store).keys(1)


async def test_the_term_of_another_epoch_is_damage() -> None:
    store = MemoryStore()
    await claimed(store, 2)
    await store.put(layout.term(SCOPE.group, 1), [await store.get(layout.term(SCOPE.group, 2))])
    with pytest.raises(DamagedObject, match="another epoch"):
        await ring(store).writer(1)


async def test_epochs_fit_into_locations() -> None:
    store = MemoryStore()
    keys = await claimed(store, MAX_EPOCH)
    assert await ring(store).keys(MAX_EPOCH) == keys


async def test_the_digest_key_is_wrapped_like_the_others() -> None:
    store = MemoryStore()
    for person in (PEOPLE.operator, PEOPLE.second):
        parts = wrapped_object(
            SCOPE,
            0,
            DIGEST,
            bytes(range(32)),
            person.box.public,
            PEOPLE.daemon,
            SeededEntropy(person.name),
        )
        await store.put(layout.digest_key(SCOPE.group, person.box.public), parts)
        assert await ring(store, person.box).digest_key() == bytes(range(32))


async def test_keys_are_fetched_once() -> None:
    store = MemoryStore()
    keys = await claimed(store, 1)
    known = ring(store)
    assert await known.keys(1) == keys
    for info in await store.page(""):
        await store.delete(info.key)
    assert await known.keys(1) == keys


def signed(fields: dict[str, object], signer: Signer) -> Any:
    return parse(b"".join(build(Kind.GROUP, fields, signer)), "the key", Kind.GROUP)


def test_only_admitted_signers_count() -> None:
    assert check_signer(signed({}, PEOPLE.daemon), CHARTER) == PEOPLE.daemon.public
    for signer in (STRANGER, PEOPLE.operator.signer):
        with pytest.raises(NotAdmitted) as caught:
            check_signer(signed({}, signer), CHARTER)
        assert caught.value.subject == "the key"
    operator = PEOPLE.operator.signer
    assert check_signer(signed({}, operator), CHARTER, operator=True) == operator.public


def test_a_borrowed_name_does_not_make_a_signer() -> None:
    found = signed({}, PEOPLE.daemon)
    forged = replace(found, signature=STRANGER.sign(found.signed))
    with pytest.raises(DamagedObject, match="signature"):
        check_signer(forged, CHARTER)


def test_objects_of_other_vaults_and_groups_are_damage() -> None:
    check_place(signed({**SCOPE.fields()}, PEOPLE.daemon), SCOPE)
    for field in ("vault", "group"):
        other = signed({**SCOPE.fields(), field: bytes(16)}, PEOPLE.daemon)
        with pytest.raises(DamagedObject):
            check_place(other, SCOPE)
