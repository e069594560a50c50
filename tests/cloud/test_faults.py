"""What can go wrong between a cloud store and its server, with the real servers behind a proxy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio

from bench.servers.cloud import Cloud
from stages.errors import (
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.store.port import Put, walk
from stages.store.retry import RetryStore
from tests.cloud.asking import MACHINE, QUICK, all_five, no_secret_in, opened
from tests.cloud.proxy import Spoil, proxied, says


async def test_a_bucket_that_is_not_there(cloud: Cloud) -> None:
    gone = replace(cloud, bucket="no-such-place")
    found = await all_five(opened(gone))
    names = ["get", "info", "page"]  # "not there" must never mean "no such object"
    # Azure deletes in batches, whose answers do not tell a container that is missing.
    names += ["delete"] if cloud.scheme == "s3" else []
    for name in names:
        error = found[name]
        assert type(error) is StoreError, (name, error)
        assert "no-such-place" in error.message
        assert not error.recoverable
    # SeaweedFS makes one for those who may, and refuses the others.
    assert type(found["put"]) is (StoreDenied if cloud.scheme == "s3" else StoreError)


ANSWERS = {
    "clock": (says(403, "RequestTimeTooSkewed"), StoreUnreachable, "clock", "set the clock"),
    "azure clock": (
        says(403, "AuthenticationFailed", "<D>Request date header too old: 'x'</D>"),
        StoreUnreachable,
        "clock",
        "set the clock",
    ),
    "expired": (says(400, "ExpiredToken"), StoreDenied, "expired", "renew"),
    "expired sas": (
        says(403, "AuthenticationFailed", "<D>Signature not valid in the specified time frame</D>"),
        StoreDenied,
        "expired",
        "renew",
    ),
    "region": (
        says(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
        StoreError,
        "another region",
        "eu-west-3",
    ),
    "redirect": (says(301), StoreError, "another region", "region"),
    "slow down": (says(503, "SlowDown"), StoreUnreachable, "503 SlowDown", "tried again"),
    "busy": (says(429), StoreUnreachable, "429", "tried again"),
    "internal": (says(500, "InternalError"), StoreUnreachable, "500", "tried again"),
    "conflict": (
        says(409, "ConditionalRequestConflict"),
        StoreUnreachable,
        "409 ConditionalRequestConflict",
        "tried again",
    ),
    "container": (says(404, "ContainerNotFound"), StoreError, "there is no", "make it"),
    "locked": (says(409, "BlobImmutableDueToPolicy"), StoreDenied, "409", "retention"),
    "firewall": (says(403, "AuthorizationFailure"), StoreDenied, "403", "network rules"),
    "nonsense": (says(418, "Teapot"), StoreError, "418 Teapot", "manual"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_servers_say(cloud: Cloud, name: str) -> None:
    answer, kind, told, hint = ANSWERS[name]
    async with proxied(cloud.port, lambda _: Spoil(answer=answer)) as proxy:
        found = await all_five(opened(cloud, proxy))
    for operation, error in found.items():
        known = OutcomeUnknown if operation == "put" and b" 50" in answer[:13] else kind
        assert type(error) is known, (operation, error)
        assert told in error.message
        assert hint in error.hint
        assert error.recoverable == kind.recoverable
        no_secret_in(error, cloud)


async def test_two_creators_at_once_are_not_taken_for_one_that_won(s3: Cloud) -> None:
    """S3 answers 409 to both of two conditional puts at times: then nothing exists."""
    conflict = Spoil(answer=says(409, "ConditionalRequestConflict"))
    async with proxied(s3.port, lambda number: conflict if number == 0 else Spoil()) as proxy:
        store = opened(s3, proxy)
        retrying = RetryStore(store, MACHINE.clock, MACHINE.entropy)
        proxy.spoil = _first(conflict)
        assert await retrying.put("k", [b"x"]) is Put.CREATED
        assert await store.get("k") == b"x"


def _first(spoil: Spoil) -> Callable[[int], Spoil]:
    """The first request of a connection is spoilt and closes it."""
    return lambda number: _closing(spoil.answer) if number == 0 else Spoil()


def _closing(answer: bytes) -> Spoil:
    """The answer to one request, after which the connection is closed."""
    return Spoil(answer=answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))


async def test_silence(cloud: Cloud) -> None:
    async with proxied(cloud.port, lambda _: Spoil(silent=True)) as proxy:
        found = await all_five(opened(cloud, proxy, timeout=QUICK))
    for name, error in found.items():
        assert type(error) is (OutcomeUnknown if name == "put" else StoreUnreachable), name
        assert "no answer within 0.4 s" in error.message


async def test_a_put_without_an_answer_is_settled(cloud: Cloud) -> None:
    """It has arrived: put again it exists, and is found to be ours."""
    async with proxied(cloud.port, lambda number: Spoil(deaf=number == 0)) as proxy:
        store = opened(cloud, proxy, prefix="settled")
        with pytest.raises(OutcomeUnknown):
            await store.put("alone", [b"x"])
        assert await store.put("alone", [b"x"]) is Put.EXISTS
    async with proxied(cloud.port, lambda number: Spoil(deaf=number == 0)) as proxy:
        store = opened(cloud, proxy, prefix="settled")
        retrying = RetryStore(store, MACHINE.clock, MACHINE.entropy)
        assert await retrying.put("k", [b"mine"]) is Put.CREATED
        assert await retrying.put("k", [b"other"]) is Put.EXISTS
        assert await retrying.get("k") == b"mine"


async def test_half_written_answers(cloud: Cloud) -> None:
    data = random.Random(1).randbytes(300_000)
    store = opened(cloud, prefix="half")
    await store.put("k", [data])
    for cut in (0, 1, 100, 1000, 200_000, 299_000):
        async with proxied(cloud.port, _cut(cut)) as proxy:
            cutting = opened(cloud, proxy, prefix="half")
            with pytest.raises(StoreUnreachable):
                await cutting.get("k")
    async with proxied(
        cloud.port, lambda number: _cut(5000)(0) if number < 3 else Spoil()
    ) as proxy:
        retrying = RetryStore(opened(cloud, proxy, prefix="half"), MACHINE.clock, MACHINE.entropy)
        assert await retrying.get("k") == data


def _cut(count: int) -> Callable[[int], Spoil]:
    return lambda _: Spoil(cut=count)


async def test_five_of_a_hundred_requests_fail(cloud: Cloud) -> None:
    """Each in one of several ways; behind the retries nobody notices."""
    chance = random.Random(5)
    spoils = [
        *(Spoil(refuse=True), Spoil(deaf=True), Spoil(cut=50)),
        *(_closing(says(503, "SlowDown")), _closing(says(500))),
    ]

    def fate(_: int) -> Spoil:
        # A client keeps its connections, so that far fewer of them are made than requests sent.
        return chance.choice(spoils) if chance.random() < 0.3 else Spoil()

    async with proxied(cloud.port, fate) as proxy:
        store = RetryStore(opened(cloud, proxy), MACHINE.clock, MACHINE.entropy)
        bodies = {f"k/{number:03d}": chance.randbytes(2000 + number) for number in range(60)}

        async def put(keys: list[str]) -> None:
            for key in keys:
                assert await store.put(key, [bodies[key]]) is Put.CREATED

        async with trio.open_nursery() as nursery:
            for worker in range(4):
                nursery.start_soon(put, [*bodies][worker::4])
        assert [info.key async for info in walk(store, "", most=1000)] == [*bodies]
        for key, body in bodies.items():
            assert await store.get(key) == body
        assert await store.delete("k/000")
        with pytest.raises(ObjectMissing):
            await store.get("k/000")


async def test_an_abandoned_put_is_left_to_itself(cloud: Cloud) -> None:
    """Cancelled, the caller goes on at once; what was sent is whole when it arrives."""
    body = random.Random(2).randbytes(400_000)
    async with proxied(cloud.port, lambda _: Spoil(silent=True)) as proxy:
        store = opened(cloud, proxy, timeout="60s")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, "k", [body])
                while not proxy.connections:  # noqa: ASYNC110 - nobody here would tell
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert proxy.open  # nobody waited for the thread: it still waits for its answer
    settled = opened(cloud)
    assert await settled.info("k") is None


async def test_nobody_listens(cloud: Cloud) -> None:
    for error in (await all_five(opened(replace(cloud, port=1)))).values():
        assert type(error) is StoreUnreachable  # a put too: it was never sent
        assert "cannot be reached" in error.message
