"""What can go wrong between a cloud store and its server, with the real servers behind a proxy."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme

from bench.servers.cloud import Cloud
from stages.errors import (
    BackstayError,
    ObjectMissing,
    OutcomeUnknown,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from stages.store.canary import Powers, powers
from stages.store.open import open_store
from stages.store.port import ObjectStore, Put, walk
from stages.store.retry import RetryStore
from stages.system import this_machine
from tests.cloud.proxy import Proxy, Spoil, connecting, proxied, says

MACHINE = this_machine()
QUICK = "400ms"  # until an answer that never comes is given up


def opened(
    cloud: Cloud, proxy: Proxy | None = None, prefix: str = "", **options: str
) -> ObjectStore:
    """A store, through the proxy if there is one."""
    there = cloud if proxy is None else replace(cloud, port=proxy.port)
    return open_store(there.url(prefix, **options), MACHINE)


async def all_five(store: ObjectStore) -> dict[str, BackstayError | None]:
    """How each operation ends."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "put": lambda: store.put("k", [b"x"]),
        "get": lambda: store.get("k", 0, 10),
        "info": lambda: store.info("k"),
        "page": lambda: store.page(""),
        "delete": lambda: store.delete("k"),
    }
    found: dict[str, BackstayError | None] = {}
    for name, call in calls.items():
        try:
            await call()
            found[name] = None
        except BackstayError as error:
            found[name] = error
    return found


def no_secret_in(error: BackstayError, cloud: Cloud) -> None:
    """Nothing of a credential file is told."""
    told = f"{error} {error.hint}"
    for file in cloud.folder.iterdir():
        for line in file.read_text().splitlines():
            secret = line.partition("=")[2].strip()
            assert not secret or secret not in told
    assert "ignature=" not in told
    assert "sig=" not in told


@pytest.mark.parametrize("credentials", ["wrong", "stranger"])
async def test_wrong_credentials(s3: Cloud, credentials: str) -> None:
    for name, error in (await all_five(opened(s3, credentials=credentials))).items():
        assert type(error) is StoreDenied, name
        assert not error.recoverable
        assert error.exit_code == 4
        assert "access key" in error.hint
        no_secret_in(error, s3)


async def test_wrong_credentials_of_azure(azure: Cloud) -> None:
    for name, error in (await all_five(opened(azure, credentials="wrong"))).items():
        assert type(error) is StoreDenied, name
        assert "the account's key" in error.hint
        no_secret_in(error, azure)


async def test_a_credential_that_only_reads(s3: Cloud) -> None:
    await opened(s3, prefix="shared-read").put("k", [b"x"])
    reader = opened(s3, prefix="shared-read", credentials="reader")
    assert await reader.get("k") == b"x"
    assert [info.key for info in await reader.page("")] == ["k"]
    # What is there is there, whatever this credential may do.
    assert await reader.put("k", [b"y"]) is Put.EXISTS
    with pytest.raises(StoreDenied, match="AccessDenied"):
        await reader.put("other", [b"y"])
    assert await powers(reader) == Powers(create=False)


async def test_a_credential_that_may_do_too_much(cloud: Cloud) -> None:
    store = opened(cloud)
    assert await powers(store) == Powers(True, True, True)
    assert await store.page("") == []


async def test_credentials_of_the_environment(s3: Cloud, tmp_path: Path) -> None:
    """The default file, a profile of it, and a file that is renewed while the store is open."""
    text = (s3.folder / "writer").read_text()
    home = tmp_path / ".aws" / "credentials"
    home.parent.mkdir()
    home.write_text(text.replace("[default]", "[other]\nregion = x\n[mine]") + "[default]\n")
    url = s3.url(credentials="").replace(f"&credentials={s3.folder}/", "")
    alone = {"HOME": str(tmp_path)}
    mine = replace(MACHINE, environment=alone | {"AWS_PROFILE": "mine"})
    assert await open_store(url, mine).put("k", [b"x"]) is Put.CREATED
    with pytest.raises(StoreDenied, match="has no key of profile default"):
        await open_store(url, replace(MACHINE, environment=alone)).get("k")
    elsewhere = {"AWS_SHARED_CREDENTIALS_FILE": str(s3.folder / "writer")}
    assert await open_store(url, replace(MACHINE, environment=elsewhere)).get("k") == b"x"


@pytest.mark.parametrize("content", [None, b"", b"[default]\naws_access_key_id = x\n", b"\xff\xfe"])
async def test_a_credential_file_that_is_none(
    cloud: Cloud, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    there = replace(cloud, folder=tmp_path)
    for name, error in (await all_five(opened(there, credentials="file"))).items():
        assert type(error) is StoreDenied, name
        assert error.subject == str(path)


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
        store = opened(cloud, proxy, timeout="5s")
        started = time.monotonic()
        with trio.move_on_after(0.2) as scope:
            await store.put("k", [body])
        assert scope.cancelled_caught
        assert time.monotonic() - started < 4  # far from its limit: nobody waited for the thread
    settled = opened(cloud)
    assert await settled.info("k") is None


async def test_nobody_listens(cloud: Cloud) -> None:
    for error in (await all_five(opened(replace(cloud, port=1)))).values():
        assert type(error) is StoreUnreachable  # a put too: it was never sent
        assert "cannot be reached" in error.message


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


async def test_certificates(s3: Cloud, authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    good = authority.issue_cert("127.0.0.1")
    old = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
    named = authority.issue_cert("elsewhere.example.com")
    foreign = trustme.CA().issue_cert("127.0.0.1")
    cases: list[tuple[trustme.LeafCert, str, type[BackstayError] | None, str]] = [
        (good, str(path), None, ""),
        (good, "", StoreError, "set ca to the file"),
        (foreign, str(path), StoreError, "set ca to the file"),
        (named, str(path), StoreError, "endpoint must be the name"),
        (old, str(path), StoreUnreachable, "renewed"),
    ]
    for certificate, ca, kind, hint in cases:
        async with proxied(s3.port, tls=_context(certificate)) as proxy:
            options = {"ca": ca} if ca else {}
            endpoint = f"https://127.0.0.1:{proxy.port}"
            store = open_store(s3.url(endpoint=endpoint, **options), MACHINE)
            try:
                assert await store.put("k", [b"x"]) is Put.CREATED
                found: BackstayError | None = None
            except BackstayError as error:
                found = error
            assert (type(found) if found else None) is kind, (found, found and found.hint)
            assert found is None or (hint in found.hint and "certificate" in found.message)


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_certificate_file_that_is_none(
    s3: Cloud, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await open_store(s3.url(ca=str(path)), MACHINE).get("k")
    assert caught.value.subject == str(path)


async def test_a_proxy_that_connects(s3: Cloud, authority: trustme.CA, tmp_path: Path) -> None:
    """HTTP CONNECT to a TLS server, and a proxy that wants a password."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = _context(authority.issue_cert("s3.invalid"))
    async with proxied(s3.port, tls=context) as server, connecting(server.port) as (port, asked):
        endpoint = "https://s3.invalid:9000"
        url = s3.url(endpoint=endpoint, ca=str(path), proxy=f"http://127.0.0.1:{port}")
        store = open_store(url, MACHINE)
        assert await store.put("k", [b"x"]) is Put.CREATED
        assert await store.get("k") == b"x"
        assert asked[0].startswith(b"CONNECT s3.invalid:9000 ")
    refusing = Spoil(answer=b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n")
    async with proxied(s3.port, lambda _: refusing) as proxy:
        url = s3.url(endpoint=endpoint, proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(StoreUnreachable, match="proxy does not let") as caught:
            await open_store(url, MACHINE).get("k")
    assert "HTTPS_PROXY" in caught.value.hint
